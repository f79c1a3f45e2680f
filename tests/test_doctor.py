"""Each thing is broken once, and its finding is looked for; the healthy workspace has none."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server import doctor
from server.accounts import Accounts
from server.chat import ConversationStore, TraceStore
from server.cli import commands as cli
from server.config import Settings, load_settings
from server.database import Database
from server.doctor import Finding, examine
from server.engine import AdapterCatalogue, adapter_faults
from server.errors import AdapterForeign, AdapterInvalid, StorageError
from server.retrieval import KnowledgeBase, index_lock
from server.schema import MIGRATION_COUNTS
from server.types import UserId
from tests.conftest import ROOT
from tests.engine.conftest import CONFIGS, make_adapter, save_tiny
from tests.fakes import WordEmbedder
from tests.live import make_app, make_settings, make_workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """With an account, a chat and an index; its models are folders of its own."""
    folder = make_workspace(tmp_path / "workspace")
    database = Database(folder / "data" / "tailor.db")
    Accounts(database).add("mina", "a long password")
    ConversationStore(database).create(UserId("mina"), "A chat")
    TraceStore(database)
    database.close()
    settings = make_settings(folder)
    base = KnowledgeBase(folder / "knowledge", folder / "data" / "index", WordEmbedder(), settings.retrieval)
    base.sync()
    asyncio.run(base.close())
    for name in ("chat", "embedder"):
        (folder / "models" / name).mkdir(parents=True)
        (folder / "models" / name / "config.json").write_text("{}")
    (folder / "tailor.toml").write_text(
        f"[model]\nname = '{folder}/models/chat'\n[embedding]\nname = '{folder}/models/embedder'\n"
    )
    return folder


def settings_of(folder: Path) -> Settings:
    return load_settings(folder, environ={})


def findings(folder: Path, fingerprint: str = WordEmbedder.fingerprint) -> list[Finding]:
    return examine(settings_of(folder), folder, fingerprint=lambda: fingerprint, adapter_faults=None)


def execute(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as opened:
        for statement in statements:
            opened.execute(statement)
        opened.commit()


def current(folder: Path) -> Path:
    index = folder / "data" / "index"
    return index / (index / "CURRENT").read_text()


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


def scribble(file: Path, at: int = 4096) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(b"\xff" * 2048)


def test_nothing_is_wrong_with_a_healthy_workspace(workspace: Path) -> None:
    assert findings(workspace) == []


def test_nothing_is_wrong_with_an_empty_folder_but_that_the_models_are_to_come(tmp_path: Path) -> None:
    found = examine(settings_of(tmp_path), tmp_path, fingerprint=None, adapter_faults=None)
    assert [(one.area, one.level) for one in found] == [("models", "note")] * 2
    assert list(tmp_path.iterdir()) == []


BROKEN: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "database damaged": (lambda w: scribble(w / "data" / "tailor.db"), "database", "damaged|cannot be read"),
    "no database": (
        lambda w: (w / "data" / "tailor.db").write_bytes(b"no database" * 99),
        "database",
        "cannot be read",
    ),
    "loose rows": (
        lambda w: execute(w / "data" / "tailor.db", "INSERT INTO traces VALUES ('no message', 'nobody', x'00')"),
        "database",
        "rows of traces belong to rows that are gone",
    ),
    "newer database": (
        lambda w: execute(w / "data" / "tailor.db", "INSERT INTO migrations VALUES ('chat', 77, 0)"),
        "database",
        "newer Tailor: migrations chat 77",
    ),
    "unknown part": (
        lambda w: execute(w / "data" / "tailor.db", "INSERT INTO migrations VALUES ('future', 1, 0)"),
        "database",
        "future 1",
    ),
    "segment missing": (lambda w: (current(w) / "seg-1").unlink(), "index", "seg-1 is missing"),
    "segment damaged": (lambda w: scribble(current(w) / "seg-1", 64), "index", "does not have its checksum"),
    "catalogue damaged": (lambda w: (current(w) / "catalog.db").write_bytes(b"x" * 999), "index", "cannot be read"),
    "passages missing": (
        lambda w: execute(current(w) / "catalog.db", "DELETE FROM chunks"),
        "index",
        "1 files do not have the passages",
    ),
    "settings of the index": (lambda w: (current(w) / "made.json").unlink(), "index", "cannot be read"),
    "index gone": (lambda w: (w / "data" / "index" / "CURRENT").write_text("nowhere"), "index", "cannot be read"),
    "open data": (lambda w: (w / "data").chmod(0o755), "permissions", "can look into"),
    "open database": (lambda w: (w / "data" / "tailor.db").chmod(0o644), "permissions", "can read .*tailor.db"),
    "model gone": (lambda w: (w / "models" / "chat" / "config.json").unlink(), "models", "holds no config.json"),
    "embedder gone": (
        lambda w: (w / "models" / "embedder" / "config.json").unlink(),
        "models",
        "embedding.name",
    ),
    "short password": (
        lambda w: (append(w / "tailor.toml", "[server]\npassword = 'short'\n"), (w / "tailor.toml").chmod(0o600)),
        "settings",
        "fewer than 8 characters",
    ),
    "open password": (
        lambda w: append(w / "tailor.toml", "[server]\npassword = 'a long password'\n"),
        "settings",
        "can read the password",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found_with_its_remedy(workspace: Path, name: str) -> None:
    damage, area, said = BROKEN[name]
    damage(workspace)
    wrong = [one for one in findings(workspace) if one.level == "wrong"]
    assert {one.area for one in wrong} == {area}
    assert any(re.search(said, one.what) for one in wrong), wrong
    assert all(one.remedy for one in wrong)


def test_it_changes_nothing(workspace: Path) -> None:
    scribble(current(workspace) / "seg-1", 64)
    before = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file() and path.name != "LOCK"}
    findings(workspace)
    after = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file() and path.name != "LOCK"}
    assert {path: data for path, data in after.items() if path.suffix not in (".db-wal", ".db-shm")} == {
        path: data for path, data in before.items() if path.suffix not in (".db-wal", ".db-shm")
    }


def test_another_embedder_is_a_note(workspace: Path) -> None:
    (found,) = findings(workspace, fingerprint="another")
    assert (found.area, found.level) == ("index", "note")


def test_a_server_that_runs_is_a_note(workspace: Path) -> None:
    with index_lock(workspace / "data" / "index"):
        (found,) = findings(workspace)
    assert (found.area, found.level) == ("server", "note")


def test_a_disk_that_is_nearly_full_is_wrong(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", 1 << 60)
    (found,) = findings(workspace)
    assert (found.area, found.level) == ("disk", "wrong")


def test_default_models_that_are_not_whole_are_wrong(tmp_path: Path) -> None:
    (tmp_path / "data" / "models" / "smollm2-135m-instruct").mkdir(parents=True)
    (tmp_path / "data").chmod(0o700)
    found = examine(settings_of(tmp_path), tmp_path, fingerprint=None, adapter_faults=None)
    assert [(one.area, one.level) for one in found] == [("models", "wrong"), ("models", "note")]
    assert "not whole" in found[0].what


def test_adapters_that_do_not_fit_are_named_with_their_reason(workspace: Path, tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "llama", CONFIGS["llama"]())
    root = workspace / "adapters"
    make_adapter(model, root, "good")
    (make_adapter(model, root, "broken") / "adapter_model.safetensors").write_bytes(b"no weights")
    make_adapter(model, root, "large", r=32)
    make_adapter(model, root, "foreign", tailor={"base_fingerprint": "of another model"})
    (root / "empty" / "1").mkdir(parents=True)

    def faults() -> Iterator[tuple[str, AdapterInvalid]]:
        return adapter_faults(AdapterCatalogue(root), str(model), 16)

    found = examine(settings_of(workspace), workspace, fingerprint=None, adapter_faults=faults)
    by_name = {one.what.partition("@")[0]: one for one in found if one.area == "adapters"}
    assert set(by_name) == {"broken", "large", "foreign", "empty"}
    assert by_name["foreign"].level == "note"
    assert {by_name[name].level for name in ("broken", "large", "empty")} == {"wrong"}
    assert "rank" in by_name["large"].what
    assert isinstance(dict(faults())["foreign@1"], AdapterForeign)


# ── the database's versions ──────────────────────────────────────────────────────────────────────


def test_every_part_of_the_database_is_known(tmp_path: Path) -> None:
    make_app(make_workspace(tmp_path))
    with closing(sqlite3.connect(tmp_path / "data" / "tailor.db")) as opened:
        made = dict(opened.execute("SELECT part, max(number) FROM migrations GROUP BY part"))
    assert made == dict(MIGRATION_COUNTS)


def test_a_server_refuses_a_database_of_a_newer_version(workspace: Path) -> None:
    execute(workspace / "data" / "tailor.db", "INSERT INTO migrations VALUES ('chat', 77, 0)")
    with pytest.raises(StorageError, match="written by a newer version"):
        make_app(workspace)


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def invoke(folder: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["doctor", "--workspace", str(folder), *options])
    return result.exit_code, result.output


def test_a_setting_that_is_none_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "tailor.toml").write_text("[server]\nprot = 1\n")
    status, output = invoke(tmp_path, "--json")
    assert status == 1
    (found,) = json.loads(output)
    assert (found["area"], found["level"]) == ("settings", "wrong")
    assert "did you mean 'server.port'" in found["what"]


@pytest.mark.parametrize("toml", ["[server\n", "[server]\nhost = '0.0.0.0'\n"])
def test_settings_that_would_not_start_are_findings(tmp_path: Path, toml: str) -> None:
    (tmp_path / "tailor.toml").write_text(toml)
    status, output = invoke(tmp_path)
    assert status == 1
    assert "wrong: settings" in output


@pytest.mark.slow
@pytest.mark.model
def test_the_shipped_workspace_is_well(tmp_path: Path, chat_model_dir: Path, embedder_dir: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "models").symlink_to(chat_model_dir.parent)
    (tmp_path / "adapters").symlink_to(ROOT / "adapters")
    status, output = invoke(tmp_path)
    assert (status, output.strip()) == (0, "Nothing is wrong.")
