from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from server.config import RetrievalSettings
from server.errors import Conflict, InvalidInput, NotFound
from server.relations import TextRole
from server.retrieval import FileState, FileStatus, KnowledgeBase
from server.retrieval import knowledge as module
from server.retrieval.index.store import IndexStore
from server.retrieval.updating import updater
from tests.fakes import WordEmbedder

SETTINGS = RetrievalSettings(debounce_ms=50)
DEADLINE = 120.0


def wait(condition: Callable[[], bool], what: str) -> None:
    """The background thread works at its own pace: look until `condition`, fail after the deadline."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


class SlowEmbedder(WordEmbedder):
    def __init__(self, seconds: float = 0.05) -> None:
        super().__init__()
        self.seconds = seconds

    def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
        time.sleep(self.seconds)
        return super().embed(texts, role)


class Workspace:
    """A workspace with one embedder, on which knowledge bases are opened one after the other."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "knowledge"
        self.index = folder / "index"
        self.embedder = WordEmbedder()

    def open(self, settings: RetrievalSettings = SETTINGS) -> KnowledgeBase:
        return KnowledgeBase(self.root, self.index, self.embedder, settings)

    def put(self, name: str, text: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
async def live(workspace: Workspace) -> AsyncIterator[KnowledgeBase]:
    """A knowledge base whose threads run."""
    base = workspace.open()
    await base.start()
    yield base
    await base.close()


def found(base: KnowledgeBase, query: str, folder: str = "shop") -> list[str]:
    return [passage.text for passage in base.search(query, [folder]).passages]


def file_of(base: KnowledgeBase, file: str, folder: str = "shop") -> FileStatus | None:
    for one in base.status().folders:
        for status in one.files:
            if (one.name, status.file) == (folder, file):
                return status
    return None


# ── sync ─────────────────────────────────────────────────────────────────────────────────────────


def test_sync_makes_files_searchable(workspace: Workspace) -> None:
    workspace.put("shop/returns.md", "# Returns\n\nAccepted within 45 days.\n")
    base = workspace.open()
    assert base.search("returns", ["shop"]).generation == 0
    assert base.sync() == 1
    result = base.search("returns accepted", ["shop"])
    assert (result.generation, result.folders) == (1, ("shop",))
    assert result.passages[0].heading == ("Returns",)
    assert result.passages[0].place == "line 3"
    assert base.sync() == 1


def test_a_new_start_opens_the_last_generation(workspace: Workspace) -> None:
    workspace.put("shop/a.md", "Returns within 45 days.")
    workspace.put("shop/bad.pdf", "no")
    workspace.open().sync()
    embedded = workspace.embedder.embedded
    again = workspace.open()
    assert again.sync() == 1
    assert workspace.embedder.embedded == embedded
    assert found(again, "returns days") == ["Returns within 45 days."]
    assert file_of(again, "bad.pdf") is not None


def test_changes_while_it_was_closed_are_indexed_at_the_next_start(workspace: Workspace) -> None:
    old = workspace.put("shop/old.md", "melon")
    workspace.put("shop/kept.md", "fig")
    workspace.open().sync()
    old.unlink()
    workspace.put("shop/new.md", "plum")
    again = workspace.open()
    assert again.sync() == 2
    assert workspace.embedder.embedded == 3
    assert (found(again, "melon"), found(again, "fig"), found(again, "plum")) == ([], ["fig"], ["plum"])


def test_another_embedder_rebuilds(workspace: Workspace) -> None:
    workspace.put("shop/a.md", "fig")
    workspace.open().sync()

    class Other(WordEmbedder):
        fingerprint = "words-2"
        dimension = 64

    workspace.embedder = Other()
    base = workspace.open()
    assert base.sync() == 2
    assert workspace.embedder.embedded == 1
    assert found(base, "fig") == ["fig"]


def test_another_chunk_size_rebuilds(workspace: Workspace) -> None:
    workspace.put("shop/a.txt", " ".join(f"Sentence {number} is here." for number in range(40)))
    base = workspace.open()
    base.sync()
    before = base.status().folders[0].files[0].chunks
    base = workspace.open(SETTINGS.model_copy(update={"chunk_tokens": 40}))
    base.sync()
    assert base.status().folders[0].files[0].chunks > before


def test_a_ruined_index_is_rebuilt(workspace: Workspace) -> None:
    workspace.put("shop/a.md", "fig")
    workspace.open().sync()
    for path in workspace.index.rglob("*"):
        if path.is_file():
            path.write_bytes(b"ruin")
    base = workspace.open()
    base.sync()
    assert found(base, "fig") == ["fig"]


def test_an_index_that_cannot_be_written_says_so_and_goes_on_later(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: IndexStore, files: object, segments: object) -> None:
        raise OSError(28, "No space left on device")

    workspace.put("shop/a.md", "fig")
    base = workspace.open()
    base.sync()
    workspace.put("shop/b.md", "plum")
    with monkeypatch.context() as patched:
        patched.setattr(IndexStore, "stage", full)
        assert base.sync() == 1
    assert found(base, "fig") == ["fig"]
    assert "No space left on device" in base.status().problem
    assert base.status().busy
    assert base.sync() == 2
    assert (base.status().problem, base.status().busy) == ("", False)
    assert found(base, "plum") == ["plum"]


def test_a_root_that_vanishes_keeps_the_index(workspace: Workspace) -> None:
    workspace.put("shop/a.md", "fig")
    base = workspace.open()
    base.sync()
    shutil.rmtree(workspace.root)
    assert base.sync() == 1
    assert found(base, "fig") == ["fig"]


def test_the_first_import_is_searchable_in_steps(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updater, "FIRST_STEP_S", 0.05)
    workspace.embedder = SlowEmbedder()
    base = workspace.open()
    steps: dict[int, int] = {}

    def look() -> None:
        status = base.status()
        steps[status.generation] = sum(file.state is FileState.INDEXED for file in status.folders[0].files)

    for number in range(600):
        workspace.put(f"shop/{number}.md", f"text {number}")
    base.subscribe(look)
    base.sync()
    assert len(steps) > 2
    assert list(steps.values()) == sorted(steps.values())
    assert steps[max(steps)] == 600
    assert not base.status().busy


async def test_a_search_before_the_first_index_counts_the_unread_files(workspace: Workspace) -> None:
    """The server takes requests as soon as it has started; its first index takes a moment more."""
    workspace.put("shop/one.md", "red lamps")
    workspace.put("shop/two.md", "blue lamps")
    workspace.put("office/three.md", "chairs")
    free = threading.Event()

    class BlockedEmbedder(WordEmbedder):
        def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
            assert free.wait(DEADLINE)
            return super().embed(texts, role)

    workspace.embedder = BlockedEmbedder()
    base = workspace.open()
    await base.start()
    try:
        assert [base.search("", [folder]).unread for folder in ("shop", "office", "none")] == [2, 1, 0]
        assert base.search("", ["shop", "office"]).unread == 3
        free.set()
        wait(lambda: not base.status().busy, "the first index")
        assert base.search("red lamps", ["shop", "office"]).unread == 0
    finally:
        free.set()
        await base.close()
    again = workspace.open()
    await again.start()
    assert again.search("red lamps", ["shop"]).unread == 0, "what was indexed before does not wait"
    await again.close()


def test_a_burst_is_one_generation_with_its_progress(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.retrieval.updating.progress.REPORT_INTERVAL_S", 0.0)
    workspace.put("shop/first.md", "fig")
    base = workspace.open()
    base.sync()
    for number in range(300):
        workspace.put(f"shop/{number}.md", f"text {number}")
    told = []
    base.subscribe(lambda: told.append((base.status().generation, base.status().progress)))
    assert base.sync() == 2
    progress = [one for _, one in told if one is not None]
    assert len(progress) >= 3
    assert all(0 < one.files < one.of_files and one.left_s is not None for one in progress)
    assert {one.of_files for one in progress} <= {300, 301}  # the first file may be read again
    assert [one.files for one in progress] == sorted(one.files for one in progress)
    assert told[-1] == (2, None)


def test_what_is_saved_during_a_long_import_is_found_before_it_ends(workspace: Workspace) -> None:
    workspace.put("shop/first.md", "fig")
    base = workspace.open()
    base.sync()
    for number in range(300):
        workspace.put(f"shop/{number}.md", f"text {number}")
    seen: list[list[str]] = []

    def look() -> None:
        status = base.status()
        if status.progress is not None and not seen:
            seen.append([])
            base.save("shop", "urgent.md", b"melon")
            base.delete("shop", "first.md")
            seen.append(found(base, "fig"))
        if status.generation == 2:
            seen.append(found(base, "melon"))

    base.subscribe(look)
    base.sync()
    assert seen[1] == []  # gone at once
    assert seen[2] == ["melon"]  # found in a generation of its own
    assert base.status().generation == 3
    assert len(base.status().folders[0].files) == 301
    assert not base.status().busy
    base.check_integrity()


# ── generations ──────────────────────────────────────────────────────────────────────────────────


def test_roll_back_and_follow_again(workspace: Workspace) -> None:
    workspace.put("shop/a.md", "melon")
    base = workspace.open()
    base.sync()
    workspace.put("shop/a.md", "plum")
    workspace.put("shop/b.md", "fig")
    base.sync()
    assert base.roll_back(1) == 3
    assert (found(base, "melon"), found(base, "plum"), found(base, "fig")) == (["melon"], [], [])
    workspace.put("shop/c.md", "pear")
    base.sync()
    status = base.status()
    assert (status.generation, status.held, status.pending) == (3, 1, 3)
    assert found(base, "pear") == []
    embedded = workspace.embedder.embedded
    base.follow()
    base.sync()
    assert workspace.embedder.embedded == embedded + 1  # what is new since; the rest is taken up again
    assert (found(base, "plum"), found(base, "pear"), found(base, "melon")) == (["plum"], ["pear"], [])
    assert base.status().held is None
    assert [made.cause for made in base.history()] == ["files", "rollback:1", "files", "files"]
    with pytest.raises(Conflict):
        base.follow()
    with pytest.raises(NotFound, match="generation 99 is not kept"):
        base.roll_back(99)


def test_a_held_generation_stays_held_after_a_restart_and_without_deleted_files(workspace: Workspace) -> None:
    workspace.put("shop/a.md", "melon")
    workspace.put("shop/b.md", "fig")
    base = workspace.open()
    base.sync()
    workspace.put("shop/c.md", "plum")
    base.sync()
    base.roll_back(1)
    base.delete("shop", "b.md")
    again = workspace.open()
    again.sync()
    assert again.status().held == 1
    assert (found(again, "melon"), found(again, "fig"), found(again, "plum")) == (["melon"], [], [])


def test_a_file_that_is_there_again_is_found_again(workspace: Workspace) -> None:
    workspace.put("shop/a.md", "melon")
    workspace.put("shop/b.md", "fig")
    base = workspace.open()
    base.sync()
    base.roll_back(1)
    base.delete("shop", "a.md")
    base.follow()
    workspace.put("shop/a.md", "melon")
    base.sync()
    assert found(base, "melon") == ["melon"]
    away = (workspace.root / "shop" / "b.md").rename(workspace.root.parent / "away.md")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(IndexStore, "publish", lambda *given: (_ for _ in ()).throw(OSError(28, "full")))
        base.sync()
    assert found(base, "fig") == []
    away.rename(workspace.root / "shop" / "b.md")
    base.sync()
    assert found(base, "fig") == ["fig"]


def test_a_rebuild_reads_everything_again_while_the_old_index_serves(workspace: Workspace) -> None:
    workspace.put("shop/a.md", "melon")
    base = workspace.open()
    base.sync()
    embedded, during = workspace.embedder.embedded, []
    base.subscribe(lambda: during.append((base.status().building, found(base, "melon"))))
    base.rebuild()
    for again in (base.rebuild, lambda: base.roll_back(1)):
        with pytest.raises(Conflict, match=r"being (re)?built"):
            again()
    base.sync()
    assert all(texts == ["melon"] for _, texts in during)
    assert workspace.embedder.embedded >= embedded + 1
    assert (base.status().building, base.status().generation) == (False, 2)
    assert found(workspace.open(), "melon") == []  # not opened yet
    again = workspace.open()
    assert again.sync() == 2


def test_another_embedder_builds_a_new_index_while_words_still_find(workspace: Workspace, monkeypatch) -> None:
    workspace.put("shop/a.md", "fig and melon")
    workspace.open().sync()

    class Other(WordEmbedder):
        fingerprint = "words-2"
        dimension = 64

    workspace.embedder = Other()
    base = workspace.open()
    base._updater.open()
    assert base.status().building
    assert found(base, "fig melon") == ["fig and melon"]
    assert workspace.embedder.embedded == 0
    assert base.sync() == 2
    assert not base.status().building
    assert found(base, "fig melon") == ["fig and melon"]


# ── uploads ──────────────────────────────────────────────────────────────────────────────────────


def test_an_upload_is_shown_at_once_and_found_after_the_sync(workspace: Workspace) -> None:
    base = workspace.open()
    status = base.save("shop", "../배송 안내.MD", "배송비는 무료입니다.".encode())
    assert (status.file, status.state, status.bytes) == ("배송 안내.md", FileState.INDEXING, 29)
    assert file_of(base, "배송 안내.md") == status
    assert base.status().busy
    base.sync()
    indexed = file_of(base, "배송 안내.md")
    assert indexed is not None
    assert (indexed.state, indexed.chunks) == (FileState.INDEXED, 1)
    assert abs(indexed.changed_at - time.time()) < 60
    assert not base.status().busy
    assert found(base, "배송비") == ["배송비는 무료입니다."]


def test_a_new_upload_is_unread_until_the_sync(workspace: Workspace) -> None:
    base = workspace.open()
    base.save("shop", "a.md", b"red lamps")
    base.sync()
    assert base.search("red lamps", ["shop"]).unread == 0
    base.save("shop", "a.md", b"red lamps and green ones")
    found = base.search("red lamps", ["shop"])
    assert (found.passages[0].text, found.unread) == ("red lamps", 1)
    base.sync()
    assert base.search("red lamps", ["shop"]).unread == 0


def test_the_same_name_replaces(workspace: Workspace) -> None:
    base = workspace.open()
    base.save("shop", "a.md", b"melon")
    base.sync()
    status = base.save("shop", "a.md", b"plum")
    assert file_of(base, "a.md") == FileStatus("a.md", FileState.INDEXING, 1, 4, "", status.changed_at)
    assert found(base, "melon") == ["melon"]
    base.sync()
    assert (found(base, "melon"), found(base, "plum")) == ([], ["plum"])


def test_the_same_bytes_again_are_settled_without_embedding(workspace: Workspace) -> None:
    base = workspace.open()
    base.save("shop", "a.md", b"melon")
    base.sync()
    base.save("shop", "a.md", b"melon")
    assert base.sync() == 1
    assert workspace.embedder.embedded == 1
    assert not base.status().busy


def test_a_deleted_file_leaves_the_list_and_the_answers_at_once(workspace: Workspace) -> None:
    base = workspace.open()
    base.save("shop", "a.md", b"melon")
    base.save("shop", "b.md", b"melon and pear")
    base.sync()
    assert sorted(found(base, "melon")) == ["melon", "melon and pear"]
    base.delete("shop", "a.md")
    base.delete("shop", "b.md")
    assert file_of(base, "a.md") is None
    assert found(base, "melon") == []
    base.sync()
    assert base.search("melon", ["shop", "nowhere"]).folders == ()
    assert found(base, "melon") == []
    assert [one.name for one in base.status().folders] == ["shop"]
    with pytest.raises(NotFound):
        base.delete("shop", "a.md")


def test_bad_uploads_are_refused(workspace: Workspace) -> None:
    base = workspace.open()
    for folder, name, data in (("..", "a.md", b"x"), ("shop", "a.exe", b"x"), ("shop", "a.md", b"")):
        with pytest.raises(InvalidInput):
            base.save(folder, name, data)
    assert base.status().folders == ()


def test_a_file_that_cannot_be_read_shows_why(workspace: Workspace) -> None:
    base = workspace.open()
    base.save("shop", "scan.pdf", b"not a pdf at all")
    base.sync()
    status = file_of(base, "scan.pdf")
    assert status is not None
    assert (status.state, status.chunks) == (FileState.FAILED, 0)
    assert "not a PDF" in status.reason


def test_a_file_beside_the_folders_is_reported(workspace: Workspace) -> None:
    workspace.put("loose.md", "fig")
    base = workspace.open()
    base.sync()
    status = file_of(base, "loose.md", folder="")
    assert status is not None
    assert (status.state, "move it into a folder" in status.reason) == (FileState.UNSUPPORTED, True)


def test_subscribers_are_notified_of_changes_only(workspace: Workspace) -> None:
    base = workspace.open()
    calls: list[int] = []
    base.subscribe(lambda: calls.append(base.status().generation))
    workspace.put("shop/a.md", "fig")
    base.sync()
    assert calls[-1] == 1
    heard = len(calls)
    base.sync()
    base.sync()
    assert len(calls) == heard
    base.save("shop", "b.md", b"plum")
    assert len(calls) == heard + 1


def test_each_folder_is_relevant_by_itself(workspace: Workspace) -> None:
    workspace.put("shop/a.md", "A melon costs four coins.")
    workspace.put("ships/a.md", "Anchors are heavy.")
    (workspace.root / "empty").mkdir()
    base = workspace.open()
    base.sync()
    found = base.relevance("What does a melon cost?", ["shop", "ships", "empty", "gone"])
    assert found.keys() == {"shop", "ships"}
    assert found["shop"] > 0.5 > found["ships"]
    assert base.relevance("What does a melon cost?", ["shop"])["shop"] == found["shop"]
    assert base.relevance("Thank you!", ["shop"]) == {}


# ── the watcher ──────────────────────────────────────────────────────────────────────────────────


async def test_changes_on_disk_are_seen(workspace: Workspace, live: KnowledgeBase) -> None:
    path = workspace.put("shop/deep/a.md", "melon")
    wait(lambda: found(live, "melon") == ["melon"], "the new file is not found")
    path.write_text("plum")
    wait(lambda: found(live, "plum") == ["plum"] and not found(live, "melon"), "the change is not seen")
    path.rename(workspace.root / "shop" / "b.md")
    wait(lambda: file_of(live, "b.md") is not None and file_of(live, "deep/a.md") is None, "the new name is not seen")
    assert live.search("plum", ["shop"]).passages[0].file == "b.md"
    (workspace.root / "shop").rename(workspace.root / "store")
    wait(lambda: found(live, "plum", "store") == ["plum"], "the folder's new name is not seen")
    shutil.rmtree(workspace.root / "store")
    wait(lambda: found(live, "plum", "store") == [], "the deletion is not seen")


def test_no_search_is_without_a_file_that_is_moved(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        workspace.put(f"shop/{number}.md", f"melon {number}")
    base = workspace.open()
    base.sync()
    real, during = IndexStore.publish, []

    def look(self: IndexStore, *given: object) -> object:
        during.append(sorted(found(base, "melon")))
        return real(self, *given)

    monkeypatch.setattr(IndexStore, "publish", look)
    for more in (0, 50):
        (workspace.root / "shop" / f"{more}.md").unlink(missing_ok=True)
        workspace.put(f"shop/{more}.md", "fig")
        (workspace.root / "shop" / "1.md").rename(workspace.root / "shop" / f"moved{more}.md")
        for number in range(100, 100 + more):
            workspace.put(f"shop/{number}.md", f"text {number}")
        base.sync()
        assert "melon 1" in during[-1]
        assert found(base, "melon") == ["melon 1"]
        (workspace.root / "shop" / f"moved{more}.md").rename(workspace.root / "shop" / "1.md")
        base.sync()


async def test_an_editors_save_by_rename_is_seen(workspace: Workspace, live: KnowledgeBase) -> None:
    workspace.put("shop/a.md", "melon")
    wait(lambda: found(live, "melon") == ["melon"], "the file is not found")
    workspace.put("shop/.a.md.swp", "plum")
    os.replace(workspace.root / "shop" / ".a.md.swp", workspace.root / "shop" / "a.md")
    wait(lambda: found(live, "plum") == ["plum"], "the saved file is not found")


def write_slowly(path: Path) -> None:
    with path.open("a") as file:
        for number in range(12):
            file.write(f"fig{number}\n")
            file.flush()
            time.sleep(0.04)


async def test_a_file_written_slowly_ends_up_whole(workspace: Workspace, live: KnowledgeBase) -> None:
    write_slowly(workspace.put("shop/a.csv", "fruit\n"))
    wait(lambda: (status := file_of(live, "a.csv")) is not None and status.chunks == 12, "rows are missing")
    assert found(live, "fig11") == ["fruit: fig11"]


async def test_an_upload_needs_no_watcher(workspace: Workspace, live: KnowledgeBase) -> None:
    live.save("shop", "a.md", b"melon")
    wait(lambda: found(live, "melon") == ["melon"] and not live.status().busy, "the upload is not found")


async def test_the_root_may_come_back(workspace: Workspace, live: KnowledgeBase) -> None:
    workspace.put("shop/a.md", "melon")
    wait(lambda: found(live, "melon") == ["melon"], "the file is not found")
    shutil.rmtree(workspace.root)
    workspace.put("shop/b.md", "plum")
    live.save("shop", "c.md", b"fig")
    wait(lambda: found(live, "plum") == ["plum"] and not found(live, "melon"), "the new folder is not seen")


async def test_a_failing_sync_does_not_end_the_thread(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    base = workspace.open()
    real = updater.scan
    failures = iter([RuntimeError("a bug")])

    def fail_once(root: Path) -> object:
        for failure in failures:
            raise failure
        return real(root)

    monkeypatch.setattr(updater, "scan", fail_once)
    monkeypatch.setattr(module, "RESCAN_S", 0.05)
    workspace.put("shop/a.md", "melon")
    await base.start()
    try:
        wait(lambda: found(base, "melon") == ["melon"], "no sync after the failed one")
    finally:
        await base.close()


async def test_closing_during_a_long_import_is_quick_and_loses_nothing(workspace: Workspace) -> None:
    workspace.embedder = SlowEmbedder(0.2)
    workspace.put("shop/big.csv", "n\n" + "".join(f"row{number}\n" for number in range(20_000)))
    base = workspace.open()
    await base.start()
    wait(lambda: workspace.embedder.embedded > 0, "nothing is embedded")
    await base.close()
    assert workspace.embedder.embedded < 10_000  # it did not wait for the rest
    assert base.status().generation == 0


async def test_it_can_be_started_again(workspace: Workspace) -> None:
    base = workspace.open()
    for text in ("melon", "plum"):
        await base.start()
        workspace.put("shop/a.md", text)
        wait(lambda text=text: found(base, text) == [text], f"{text} is not found")
        await base.close()


# ── one generation or the other ──────────────────────────────────────────────────────────────────


def test_a_search_never_sees_a_mix(workspace: Workspace) -> None:
    """Two files always change together; every search must see both in the same version."""

    def write(version: int) -> None:
        for name in ("a.md", "b.md"):
            workspace.put(f"shop/{name}", f"fig {name[0]} version{version}")

    base = workspace.open()
    write(0)
    base.sync()
    done = threading.Event()
    mixes: list[list[str]] = []
    seen: set[str] = set()

    def read() -> None:
        while not done.is_set():
            texts = [passage.text.split()[-1] for passage in base.search("fig", ["shop"]).passages]
            seen.update(texts)
            if len(texts) != 2 or len(set(texts)) != 1:
                mixes.append(texts)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for version in range(1, 15):
            write(version)
            base.sync()
            wait(lambda version=version: f"version{version}" in seen, "no reader sees the newest version")
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert mixes == []
    assert len(seen) >= 14
    assert [passage.text for passage in base.search("fig", ["shop"]).passages] == ["fig a version14", "fig b version14"]


def test_syncs_saves_and_searches_from_many_threads(workspace: Workspace) -> None:
    base = workspace.open()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                base.save("shop", f"{number}.md", f"fig {number} {turn}".encode())
                base.sync()
                base.search("fig", ["shop"])
                base.status()
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    base.sync()
    assert failures == []
    assert sorted(file.file for file in base.status().folders[0].files) == ["0.md", "1.md", "2.md", "3.md"]
    assert all(file.state is FileState.INDEXED for file in base.status().folders[0].files)
    assert not base.status().busy
