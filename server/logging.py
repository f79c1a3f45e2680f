"""One logging set-up for the command line: a line an event, no colours in files, no message texts.

Parts take `logging.getLogger("tailor.<part>")`. What users write is never logged, only ids and counts.
"""

from __future__ import annotations

import logging
import sys


def setup(level: str = "info") -> None:
    """Logs to standard error. Quiets the libraries that report every request or file."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("tailor").setLevel(level.upper())
