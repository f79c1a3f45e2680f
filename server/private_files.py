"""Files and folders that only the account of the server may read. Also mends those that were made with wider rights.

Knows nothing of what is in them.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger("tailor.files")

OTHERS = 0o077  # the rights of the group and of everybody else


def private_folder(path: Path) -> None:
    """Makes it where it is not there yet."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    make_private(path)


def make_private(path: Path) -> None:
    """Takes the rights of others away from what is there; where that is not allowed, the log says so."""
    try:
        mode = path.stat().st_mode
        if mode & OTHERS:
            path.chmod(mode & 0o7777 & ~OTHERS)
    except FileNotFoundError:
        return
    except PermissionError as error:
        log.warning("%s can be read by others, and its rights cannot be changed: %s", path, error.strerror)


def write_private(path: Path, text: str) -> None:
    """Raises OSError."""
    make_private(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
