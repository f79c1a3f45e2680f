"""A backup that is made while people write, put back elsewhere, answers the same; a bad one changes nothing."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import LlamaConfig

from server.accounts import Accounts
from server.backup import FORMAT, MANIFEST, back_up, restore
from server.config import EngineSettings, ModelSettings, Settings
from server.database import Database
from server.engine import AdapterCatalogue, LocalEngine
from server.errors import Conflict, InvalidInput
from server.retrieval import KnowledgeBase, index_lock
from tests.engine.conftest import CONFIGS, make_adapter, save_tiny
from tests.fakes import WordEmbedder
from tests.live import LiveServer, chat_session, make_app, make_settings, make_workspace, serving

QUESTION = "How long may I return a lamp?"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = CONFIGS["llama"]()
    assert isinstance(config, LlamaConfig)
    config.max_position_embeddings = 4096
    return save_tiny(tmp_path_factory.mktemp("model") / "llama", config)


@contextmanager
def served(folder: Path, model: Path) -> Iterator[LiveServer]:
    catalogue = AdapterCatalogue(folder / "adapters")
    engine = LocalEngine(str(model), EngineSettings(), ModelSettings(device="cpu"), catalogue)
    with serving(make_app(folder, engine)) as live:
        yield live


class Reader:
    """What one user of a server is answered."""

    def __init__(self, live: LiveServer, key: str) -> None:
        self.live = live
        self.headers = {"Authorization": f"Bearer {key}"}
        self.client = httpx.Client(base_url=live.url, headers=self.headers, timeout=120)

    def close(self) -> None:
        self.client.close()

    def get(self, path: str) -> Any:
        response = self.client.get(path)
        assert response.status_code == 200, response.text
        return response.json()

    def chats(self) -> list[Any]:
        found = self.get("/api/conversations")["conversations"]
        return [self.get(f"/api/conversations/{one['id']}") for one in found if not one["temporary"]]

    def searched(self) -> Any:
        body = {"question": "return lamp days delivery", "folders": ["support"]}
        return self.client.post("/api/knowledge/search", json=body).json()["passages"]

    def answered(self) -> str:
        body = {
            "model": "base",
            "temperature": 0,
            "max_tokens": 24,
            "messages": [{"role": "user", "content": QUESTION}],
        }
        return str(self.client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"])

    def everything(self) -> dict[str, Any]:
        return {
            "chats": self.chats(),
            "memories": self.get("/api/memories?past=true")["memories"],
            "found": self.searched(),
            "generation": self.get("/api/knowledge")["generation"],
            "adapters": [
                (one["name"], one["version"], one["state"] != "invalid")
                for one in self.get("/api/adapters")["adapters"]
            ],
            "domains": self.get("/api/domains")["domains"],
            "answer": self.answered(),
        }

    async def say(self, text: str, **fields: Any) -> None:
        async with chat_session(self.live, additional_headers=self.headers) as chat:
            await chat.ask(text, domain="general", **fields)


def until(condition: Callable[[], object]) -> None:
    done = threading.Event()
    for _ in range(1200):
        if condition():
            return
        done.wait(0.1)
    raise AssertionError("it did not come")


@pytest.mark.slow
def test_a_restored_server_answers_the_same(tmp_path: Path, model: Path) -> None:
    here, there, archive = make_workspace(tmp_path / "here"), tmp_path / "there", tmp_path / "backup.tar.gz"
    make_adapter(model, here / "adapters", "helper")
    (here / "knowledge" / "support" / ".users").write_text("mina\n")
    accounts = Accounts(Database(here / "data" / "tailor.db"))
    accounts.add("mina", "a long password", admin=True)
    key = accounts.new_api_key("mina")
    with served(here, model) as live, closing(Reader(live, key)) as mina:
        until(lambda: not mina.get("/api/knowledge")["busy"] and mina.searched())
        asyncio.run(mina.say("My name is Mina. I like tea."))
        asyncio.run(mina.say("This is between us.", temporary=True))
        before = mina.everything()
        stop = threading.Event()

        def write_on() -> None:
            while not stop.is_set():
                mina.client.post("/api/memories", json={"text": "Is written meanwhile."})
                mina.client.delete("/api/memories/999")
                (here / "knowledge" / "support" / "growing.md").write_text("# Growing\n\n" + "words " * 2_000)

        writer = threading.Thread(target=write_on)
        back_up(make_settings(here), archive)
        first = archive.rename(tmp_path / "first.tar.gz")
        writer.start()
        for _ in range(3):
            report = back_up(make_settings(here), archive)
            archive.rename(tmp_path / "written.tar.gz")
        stop.set()
        writer.join()
    restore(make_settings(there), first)
    with served(there, model) as live, closing(Reader(live, key)) as mina:
        until(lambda: mina.get("/api/adapters")["adapters"])
        after = mina.everything()
    assert after == before
    assert before["adapters"] == [("helper", "1", True)]
    assert len(before["chats"]) == 1
    with closing(sqlite3.connect(there / "data" / "tailor.db")) as opened:
        assert opened.execute("SELECT count(*) FROM conversations WHERE temporary").fetchone() == (0,)

    busy = tmp_path / "busy"
    restore(make_settings(busy), tmp_path / "written.tar.gz")
    assert report.files > 5
    base = KnowledgeBase(busy / "knowledge", busy / "data" / "index", WordEmbedder(), make_settings(busy).retrieval)
    base.open()
    base.check_integrity()
    with closing(sqlite3.connect(busy / "data" / "tailor.db")) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# ── backing up ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def workspace(tmp_path: Path) -> Settings:
    """With a database and an index, and no server."""
    folder = make_workspace(tmp_path / "here")
    accounts = Accounts(Database(folder / "data" / "tailor.db"))
    accounts.add("mina", "a long password")
    settings = make_settings(folder)
    KnowledgeBase(folder / "knowledge", folder / "data" / "index", WordEmbedder(), settings.retrieval).sync()
    return settings


@pytest.fixture
def archive(workspace: Settings, tmp_path: Path) -> Path:
    return back_up(workspace, tmp_path / "backup.tar.gz").file


def names(archive: Path) -> set[str]:
    with tarfile.open(archive) as opened:
        return set(opened.getnames())


def test_it_is_its_owners_alone_and_replaces_nothing(workspace: Settings, archive: Path) -> None:
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    content = archive.read_bytes()
    with pytest.raises(Conflict, match="is there already"):
        back_up(workspace, archive)
    assert archive.read_bytes() == content
    assert [path.name for path in archive.parent.iterdir() if path.name.startswith(".")] == []


def test_models_settings_links_and_unfinished_files_are_left_out(workspace: Settings, tmp_path: Path) -> None:
    here = workspace.paths.knowledge.parent
    (here / "tailor.toml").write_text("[server]\npassword = 'secret secret'\n")
    (here / "data" / "models" / "big").mkdir(parents=True)
    (here / "data" / "models" / "big" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "outside.md").write_text("a secret of the machine")
    (here / "knowledge" / "support" / "link.md").symlink_to(tmp_path / "outside.md")
    (here / "knowledge" / "support" / ".upload-1.part").write_text("half")
    (here / "adapters" / ".staging").mkdir()
    (here / "adapters" / ".staging" / "half").write_text("half")
    report = back_up(workspace, tmp_path / "backup.tar.gz")
    assert report.left_out == ("knowledge/support/link.md",)
    found = names(report.file)
    assert {"data/tailor.db", "data/index/CURRENT", "knowledge/support/refunds.md", "prompts/general.md"} <= found
    assert not [name for name in found if "model" in name or "toml" in name or "link" in name or "half" in name]


def test_a_folder_that_is_not_there_is_named(workspace: Settings, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="make it first"):
        back_up(workspace, tmp_path / "nowhere" / "backup.tar.gz")


# ── restoring ────────────────────────────────────────────────────────────────────────────────────


def contents(folder: Path) -> dict[str, bytes]:
    """But for the lock, which whoever looks takes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "LOCK")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_workspace_that_is_not_empty_is_refused_and_set_aside_when_forced(workspace: Settings, archive: Path) -> None:
    here = workspace.paths.knowledge.parent
    (here / "knowledge" / "support" / "new.md").write_text("written after the backup")
    before = contents(here)
    with pytest.raises(Conflict, match="not empty"):
        restore(workspace, archive)
    assert contents(here) == before
    report = restore(workspace, archive, force=True)
    assert not (here / "knowledge" / "support" / "new.md").exists()
    (aside,) = [path for path in report.set_aside if path.name.startswith("knowledge")]
    assert (aside / "support" / "new.md").read_text() == "written after the backup"
    assert stat.S_IMODE((here / "data" / "tailor.db").stat().st_mode) == 0o600
    assert Accounts(Database(here / "data" / "tailor.db")).login("mina", "a long password")


def test_a_running_server_keeps_its_workspace(workspace: Settings, archive: Path) -> None:
    before = contents(workspace.paths.knowledge.parent)
    with index_lock(workspace.paths.data / "index"), pytest.raises(Conflict, match="another process uses the index"):
        restore(workspace, archive, force=True)
    assert contents(workspace.paths.knowledge.parent) == before


Change = Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]


def rewritten(archive: Path, change: Change) -> Path:
    """The archive with its members changed."""
    with tarfile.open(archive) as opened:
        members = [(one, (opened.extractfile(one) or io.BytesIO()).read()) for one in opened]
    change(members)
    target = archive.with_name("changed.tar.gz")
    with tarfile.open(target, "w:gz") as written:
        for header, data in members:
            header.size = len(data) if header.isreg() else 0
            written.addfile(header, io.BytesIO(data) if header.isreg() else None)
    return target


def extra(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Change:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        header = tarfile.TarInfo(name)
        header.type, header.linkname = kind, link
        members.insert(0, (header, b"bad" if kind == tarfile.REGTYPE else b""))

    return change


def in_manifest(**fields: Any) -> Change:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        header, data = members.pop()
        assert header.name == MANIFEST
        members.append((header, json.dumps(json.loads(data) | fields).encode()))

    return change


def damaged(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    at = next(number for number, (header, _) in enumerate(members) if header.name.endswith("refunds.md"))
    members[at] = (members[at][0], members[at][1].replace(b"45", b"99"))


def without(name: str) -> Change:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members[:] = [one for one in members if not one[0].name.endswith(name)]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (extra("../evil"), "a path that no backup has"),
        (extra("/etc/evil"), "a path that no backup has"),
        (extra("knowledge/../../evil"), "a path that no backup has"),
        (extra("data/models/evil"), "a path that no backup has"),
        (extra("tailor.toml"), "a path that no backup has"),
        (extra("knowledge/link", tarfile.SYMTYPE, "/etc"), "no regular file"),
        (extra("knowledge/link", tarfile.LNKTYPE, "prompts/general.md"), "no regular file"),
        (extra("knowledge/pipe", tarfile.FIFOTYPE), "no regular file"),
        (extra("knowledge/folder", tarfile.DIRTYPE), "no regular file"),
        (in_manifest(format=FORMAT + 1), "use a newer Tailor"),
        (in_manifest(files=[1]), "cannot be read"),
        (damaged, r"refunds\.md' .* is missing or damaged"),
        (without("refunds.md"), r"refunds\.md' .* is missing or damaged"),
        (without(MANIFEST), "no backup, or was cut off"),
    ],
)
def test_a_bad_archive_changes_nothing(
    workspace: Settings, archive: Path, tmp_path: Path, change: Change, said: str
) -> None:
    there = make_settings(tmp_path / "there")
    with pytest.raises(InvalidInput, match=said):
        restore(there, rewritten(archive, change))
    assert contents(tmp_path / "there") == {}
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("cut", [0, 10, 0.5, 0.9])
def test_a_cut_archive_changes_nothing(archive: Path, tmp_path: Path, cut: float) -> None:
    data = archive.read_bytes()
    archive.write_bytes(data[: int(cut if cut >= 1 else cut * len(data))])
    with pytest.raises(InvalidInput):
        restore(make_settings(tmp_path / "there"), archive)
    assert contents(tmp_path / "there") == {}


def test_a_database_of_a_newer_version_is_refused(workspace: Settings, tmp_path: Path) -> None:
    with closing(sqlite3.connect(workspace.paths.data / "tailor.db")) as opened, opened:
        opened.execute("INSERT INTO migrations VALUES ('accounts', 99, 0)")
    archive = back_up(workspace, tmp_path / "backup.tar.gz").file
    with pytest.raises(InvalidInput, match=r"newer Tailor \(accounts 99\)"):
        restore(make_settings(tmp_path / "there"), archive)
