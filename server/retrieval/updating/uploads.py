"""Names and paths of uploaded files: nothing that a browser sends is used as a path unchecked.

Knows the file system below the root; nothing of the index.
"""

from __future__ import annotations

import os
import re
import tempfile
import unicodedata
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Final

from server.errors import InvalidInput, NotFound
from server.names import FOLDER_RULE, folder_name
from server.retrieval.loaders import SUPPORTED, is_supported
from server.retrieval.updating.scanner import is_ignored
from server.words import normalize

MAX_NAME_BYTES: Final = 160
_UNSAFE = re.compile(r'[<>:"/\\|?*%#]')
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)


def safe_name(filename: str) -> str:
    """The name under which an upload is stored: letters of any script stay, unsafe characters are removed.

    Raises InvalidInput when the ending is not one that is read.
    """
    name = normalize(filename, "NFC").replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(char for char in name if unicodedata.category(char)[0] != "C")
    name = " ".join(_UNSAFE.sub(" ", name).split())
    stem, dot, ending = name.rpartition(".")
    if not dot or not is_supported(f"x.{ending}"):
        raise InvalidInput(
            f"'{name[:80] or filename[:80]}' cannot be read into knowledge: supported are {' '.join(SUPPORTED)}"
        )
    stem = stem.lstrip("~$. ").rstrip(". ")
    if not stem or _RESERVED.fullmatch(stem.split(".")[0]):
        stem = f"file-{stem}".rstrip("-")
    stem = stem.encode("utf-8")[:MAX_NAME_BYTES].decode("utf-8", "ignore").rstrip(". ")
    return f"{stem}.{ending.lower()}"


def folder_path(root: Path, folder: str) -> Path:
    """The folder's path, which may not exist yet. Raises InvalidInput for a name that breaks the rule."""
    name = folder_name(folder)
    if name is None or is_ignored(name):
        raise InvalidInput(f"'{folder[:80]}' cannot name a folder: use {FOLDER_RULE}")
    path = root / name
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InvalidInput(f"'{name}' in the knowledge folder is not a folder of its own")
    return path


def write(root: Path, folder: str, filename: str, data: bytes) -> Path:
    """Stores the upload: atomically, the old file or the new one is there. Returns its path."""
    name = safe_name(filename)
    if not data:
        raise InvalidInput(f"'{name}' is empty (0 bytes)")
    directory = folder_path(root, folder)
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / name
    if target.is_dir():
        raise InvalidInput(f"'{name}' is a folder in '{folder}': rename the file")
    with ExitStack() as stack:
        handle, temporary = tempfile.mkstemp(prefix=".upload-", suffix=".part", dir=directory)
        stack.callback(Path(temporary).unlink, missing_ok=True)  # whatever happens before it has its final name
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
        stack.pop_all()
    return target


def remove(root: Path, folder: str, file: str) -> None:
    """Deletes one file of a folder; `file` may lie in a subfolder. Raises NotFound."""
    missing = NotFound(f"no file '{file[:200]}' in the knowledge folder '{folder[:80]}'")
    parts = PurePosixPath(file).parts
    if not parts or file.startswith("/") or "\0" in folder + file or {".", ".."} & {folder, *parts}:
        raise missing
    if not folder or "/" in folder or any(is_ignored(part) for part in (folder, *parts)):
        raise missing
    for form in ("NFC", "NFD"):  # some systems store names decomposed
        path = root / normalize(folder, form) / normalize(file, form)
        inside = path.parent.resolve().is_relative_to(root.resolve())
        if inside and (path.is_symlink() or path.is_file()):
            path.unlink()
            return
    raise missing
