"""The knowledge of the server: folders on disk, kept searchable.

One background thread brings the index in step with the disk, woken by a watcher, by an upload and now and then by
itself (a network share sends no events); another merges what many small changes leave behind. A generation is swapped
by one reference: a search takes it once and sees nothing else. Knows nothing of prompts, domains or HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from watchfiles import watch

from server.config import RetrievalSettings
from server.errors import Conflict
from server.retrieval import access
from server.retrieval.index.catalog import Made
from server.retrieval.index.chunker import VERSION
from server.retrieval.index.directory import IndexHome, MadeBy
from server.retrieval.index.files import FileKey
from server.retrieval.search.reranker import Reranker
from server.retrieval.search.results import SearchResult
from server.retrieval.search.searcher import Searcher, Where
from server.retrieval.updating import uploads
from server.retrieval.updating.scanner import is_ignored
from server.retrieval.updating.status import FileStatus, KnowledgeStatus
from server.retrieval.updating.updater import Keeper
from server.types import Embedder, Passage

log = logging.getLogger("tailor.retrieval")

FIRST_RESCAN_S: Final = 1.0  # covers what happened while the watcher came up
RESCAN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A passage and what stands before and after it in its file. `living`: the file still holds it as it is; else
    nothing stands around it."""

    passage: Passage
    before: tuple[Passage, ...] = ()
    after: tuple[Passage, ...] = ()
    living: bool = False


class KnowledgeBase:
    """Every method may be called from any thread; those that read or write block: call them off the loop."""

    def __init__(self, root: Path, index_dir: Path, embedder: Embedder, settings: RetrievalSettings) -> None:
        self._root = root.resolve()
        self._embedder = embedder
        self._settings = settings
        self._reranker = Reranker(settings.reranker) if settings.reranker else None
        made_by: MadeBy = {"embedder": embedder.fingerprint, "chunker": VERSION, "chunk_tokens": settings.chunk_tokens}
        self._keeper = Keeper(self._root, IndexHome(index_dir, made_by, settings.generations), embedder, settings)
        self._stop = threading.Event()
        self._wanted = threading.Event()
        self._merging = threading.Event()
        self._paths_lock = threading.Lock()
        self._paths: set[Path] | None = None   # what the watcher saw change; None: look at everything
        self._threads: list[threading.Thread] = []

    # ── life ─────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Takes up the last generation and nothing more: for programs that look, or go back to an earlier one."""
        self._keeper.open()

    async def start(self) -> None:
        """Opens the last generation, so that searches work at once; sync and watch go on behind."""
        await asyncio.to_thread(self._keeper.open)
        try:
            await asyncio.to_thread(self._keeper.foresee)
        except Exception:  # the thread below looks again, and its trouble is shown
            log.exception("the knowledge folders could not be looked at")
        self._stop.clear()
        self._look_at(None)
        for name, work in (
            ("knowledge-watch", self._watch), ("knowledge-sync", self._keep_in_step), ("knowledge-merge", self._merge),
        ):  # fmt: skip
            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    async def close(self) -> None:
        """Ends the threads; what was not yet indexed is found by the next start."""
        self._stop.set()
        self._keeper.interrupt()
        self._wanted.set()
        self._merging.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._threads.clear()
        await asyncio.to_thread(self._keeper.close)

    def subscribe(self, callback: Callable[[], None]) -> None:
        """`callback` runs after each change of the status, on whatever thread changed it; it must not block."""
        self._keeper.board.subscribe(callback)

    # ── search ───────────────────────────────────────────────────────────────────────────────────

    def search(
        self, query: str, folders: Sequence[str], *, earlier: str = "", where: Where | None = None, traced: bool = False
    ) -> SearchResult:
        """Passages of `folders`, best first. `earlier` is the user's previous message: it gives a
        follow-up ("and for children?") its subject. A file that was deleted here is missed at once."""
        generation, gone, dense = self._keeper.serving()
        searcher = Searcher(
            generation, folders, self._embedder, self._settings, gone=gone, where=where, dense=dense,
            reranker=self._reranker,
        )  # fmt: skip
        filled = tuple(folder for folder in folders if generation.holds(folder))
        unread = self._keeper.board.unread(folders)
        passages, trace = searcher.search(query, earlier, traced=traced)
        return SearchResult(passages, generation.number, filled, unread, trace)

    def passage(self, chunk_id: str) -> Passage | None:
        """What an answer has cited, as long as a kept generation holds it."""
        return self._keeper.passage(chunk_id)

    def surroundings(self, chunk_id: str, reach: int) -> Surroundings | None:
        """The passage with `reach` passages of its file on each side."""
        passage = self.passage(chunk_id)
        if passage is None:
            return None
        generation, _, _ = self._keeper.serving()
        key = FileKey(passage.folder, passage.file)
        version = generation.files.get(key)
        read: list[Passage] = []
        at: int | None = None
        for place in range(version.chunks if version is not None else 0):
            chunk = generation.read(version.id, place) if version is not None else None
            if chunk is None:
                break  # its generation has just been let go
            read.append(chunk.passage(key, 0.0))
            if chunk.id == chunk_id:
                at = place
            if at is not None and place == at + reach:
                break
        if at is None:
            return Surroundings(passage)
        return Surroundings(read[at], tuple(read[max(0, at - reach) : at]), tuple(read[at + 1 :]), living=True)

    def status(self) -> KnowledgeStatus:
        return self._keeper.status()

    def folders(self) -> tuple[str, ...]:
        """Those on the disk, as of the last look at it."""
        return self._keeper.board.folders

    # ── files ────────────────────────────────────────────────────────────────────────────────────

    def check_folder(self, folder: str) -> None:
        """Raises InvalidInput for a name that no folder can have."""
        uploads.folder_path(self._root, folder)

    def save(self, folder: str, filename: str, data: bytes) -> FileStatus:
        """Stores an upload under a safe name; the same name replaces. Raises InvalidInput."""
        path = uploads.write(self._root, folder, filename, data)
        about = path.stat()
        status = self._keeper.expect(FileKey(path.parent.name, path.name), about.st_size, about.st_mtime_ns)
        self._look_at({path})
        return status

    def delete(self, folder: str, file: str) -> None:
        """Deletes a file; searches miss it from now on. Raises NotFound."""
        uploads.remove(self._root, folder, file)
        self._keeper.hide(FileKey(folder, file))
        self._look_at({self._root / folder / file})

    # ── generations ──────────────────────────────────────────────────────────────────────────────

    def history(self) -> list[Made]:
        """The generations that are kept, newest first."""
        return self._keeper.history()

    def roll_back(self, number: int) -> int:
        """Makes what generation `number` held the newest one, and holds the index there until `follow`: the files on
        disk stay as they are. Gives the new number. Raises NotFound, Conflict."""
        if self._keeper.status().building:
            raise Conflict("another index is being built, which will take this one's place: wait until it is whole")
        return self._keeper.roll_back(number)

    def follow(self) -> None:
        """Lets the index follow the files again. Raises Conflict when it does already."""
        if not self._keeper.let_go():
            raise Conflict("the index follows the files already")
        self._look_at(None)

    def rebuild(self) -> None:
        """Reads, cuts and embeds every file anew, beside the index that goes on answering. Raises Conflict while that
        is under way."""
        if not self._keeper.begin_anew():
            raise Conflict("the index is being rebuilt already")
        self._look_at(None)

    def check_integrity(self) -> None:
        """Raises ValueError when the index contradicts itself."""
        self._keeper.check_integrity()

    # ── in step with the disk ────────────────────────────────────────────────────────────────────

    def sync(self) -> int:
        """Brings the index in step with the disk and returns the generation's number. Blocks."""
        self._keeper.open()
        self._keeper.sync(None, self._changed)
        while self._keeper.merge_some():
            pass
        return self._keeper.serving()[0].number

    def _look_at(self, paths: set[Path] | None) -> None:
        with self._paths_lock:
            if paths is None:
                self._paths = None
            elif self._paths is not None:
                self._paths |= paths
        self._wanted.set()

    def _changed(self) -> set[Path] | None:
        """What is to be looked at since the last time; nothing of it is left afterwards."""
        self._wanted.clear()
        with self._paths_lock:
            paths, self._paths = self._paths, set()
        return paths

    def _keep_in_step(self) -> None:
        pause = FIRST_RESCAN_S
        while not self._stop.is_set():
            if self._wanted.wait(pause):
                following = FIRST_RESCAN_S
                paths = self._changed()
            else:
                following, paths = RESCAN_S, None
            try:
                self._keeper.sync(paths, self._changed)
                if paths is None:
                    self._keeper.make_ready()
            except Exception:  # the thread's outermost edge: the next change tries again
                log.exception("the index could not be brought in step with the disk")
            self._merging.set()
            pause = following

    def _merge(self) -> None:
        while not self._stop.is_set():
            self._merging.wait()
            self._merging.clear()
            try:
                while not self._stop.is_set() and self._keeper.merge_some():
                    pass
            except Exception:  # the thread's outermost edge: what is not merged is only slower
                log.exception("segments of the index could not be merged")

    def _watch(self) -> None:
        """Wakes the sync after changes. Falls back to polling where the system gives no events."""
        polling = False
        while not self._stop.is_set():
            try:
                self._root.mkdir(parents=True, exist_ok=True)
                for changes in watch(
                    self._root,
                    watch_filter=lambda _, path: Path(path).name == access.FILE or not is_ignored(Path(path).name),
                    debounce=max(1, self._settings.debounce_ms),
                    step=max(1, min(50, self._settings.debounce_ms)),
                    stop_event=self._stop,
                    force_polling=polling or None,
                    raise_interrupt=False,
                    ignore_permission_denied=True,
                ):
                    paths = {Path(path) for _, path in changes}
                    self._look_at(paths)
                    if any(path.name == access.FILE for path in paths):
                        self._keeper.board.tell()  # who may see the folder is part of what is shown
            except (OSError, RuntimeError) as error:
                log.warning("the knowledge folder cannot be watched (%s); it is polled", error)
                polling = True
                self._stop.wait(1)
