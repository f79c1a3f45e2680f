"""The web client: static files only, no build step, nothing from other hosts.

`STATIC` is the folder to serve at `/static/`; its `index.html` is the page for `/`. Knows nothing of the
server: it speaks docs/protocol.md and docs/api.md, like any other client.
"""

from __future__ import annotations

from pathlib import Path

STATIC = Path(__file__).parent / "static"
