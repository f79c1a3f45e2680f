"""The knowledge of the server: folders on disk, kept searchable.

One background thread syncs the index with the disk, woken by a watcher, by an upload and now and then by itself (a
network share sends no events); another merges the segments that many small changes leave behind. A generation is
swapped by one reference: a search takes it once and sees nothing else. Knows nothing of prompts, domains or HTTP.
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
from server.relations import Reader
from server.retrieval.access import USERS_FILE
from server.retrieval.index.catalog import GenerationRecord
from server.retrieval.index.chunker import CHUNKER_VERSION
from server.retrieval.index.directory import BuildSettings, IndexDirectory
from server.retrieval.index.files import FileKey
from server.retrieval.index.generation import Generation
from server.retrieval.search.reranker import Reranker
from server.retrieval.search.results import SearchResult
from server.retrieval.search.scoring import Floats
from server.retrieval.search.searcher import Searcher, SearchFilter
from server.retrieval.updating import uploads
from server.retrieval.updating.scanner import is_ignored
from server.retrieval.updating.status import FileStatus, KnowledgeStatus
from server.retrieval.updating.updater import IndexUpdater
from server.types import Embedder, Passage

log = logging.getLogger("tailor.retrieval")

FIRST_RESCAN_S: Final = 1.0  # covers what happened while the watcher came up
RESCAN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class PassageContext:
    """A passage and what stands before and after it in its file. `is_current`: the file still has it as it is; else
    it has no context."""

    passage: Passage
    before: tuple[Passage, ...] = ()
    after: tuple[Passage, ...] = ()
    is_current: bool = False


@dataclass(frozen=True, slots=True)
class FileDeletion:
    """`purged`: generations that were dropped with the file. `held_by`: those that have it until so many newer ones
    (`kept_generations`) are there."""

    file: str
    purged: tuple[int, ...]
    held_by: tuple[int, ...]
    kept_generations: int


class KnowledgeBase:
    """Every method may be called from any thread; those that read or write block: call them off the loop."""

    def __init__(self, root: Path, index_dir: Path, embedder: Embedder, settings: RetrievalSettings) -> None:
        self._root = root.resolve()
        self._embedder = embedder
        self._settings = settings
        self._reranker = Reranker(settings.reranker) if settings.reranker else None
        build_settings: BuildSettings = {
            "embedder": embedder.fingerprint, "chunker": CHUNKER_VERSION, "chunk_tokens": settings.chunk_tokens,
        }  # fmt: skip
        directory = IndexDirectory(index_dir, build_settings, settings.generations)
        self._updater = IndexUpdater(self._root, directory, embedder, settings)
        self._stop = threading.Event()
        self._sync_wanted = threading.Event()
        self._merge_wanted = threading.Event()
        self._paths_lock = threading.Lock()
        self._changed_paths: set[Path] | None = None  # what the watcher saw change; None: scan everything
        self._threads: list[threading.Thread] = []

    # ── life ─────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Opens the last generation and starts no thread: for programs that only read, or roll back."""
        self._updater.open()

    async def start(self) -> None:
        """Opens the last generation, so that searches work at once; sync and watch go on behind."""
        await asyncio.to_thread(self._updater.open)
        try:
            await asyncio.to_thread(self._updater.list_pending)
        except Exception:  # edge of the thread it ran in: the sync thread scans again, and the status shows its error
            log.exception("the knowledge folders could not be scanned")
        self._stop.clear()
        self._request_sync(None)
        for name, loop in (
            ("knowledge-watch", self._watch_loop),
            ("knowledge-sync", self._sync_loop),
            ("knowledge-merge", self._merge_loop),
        ):
            thread = threading.Thread(target=loop, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    async def close(self) -> None:
        """Ends the threads; what was not yet indexed is found by the next start."""
        self._stop.set()
        self._updater.interrupt()
        self._sync_wanted.set()
        self._merge_wanted.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._threads.clear()
        await asyncio.to_thread(self._updater.close)

    @property
    def is_open(self) -> bool:
        return self._updater.is_open()

    def subscribe(self, callback: Callable[[], None]) -> None:
        """`callback` runs after each change of the status, on whatever thread changed it; it must not block."""
        self._updater.progress.subscribe(callback)

    # ── search ───────────────────────────────────────────────────────────────────────────────────

    def search(
        self,
        query: str,
        folders: Sequence[str],
        *,
        previous_query: str = "",
        filters: SearchFilter | None = None,
        traced: bool = False,
    ) -> SearchResult:
        """Passages of `folders`, best first. `previous_query` is the user's previous message: it gives a
        follow-up ("and for children?") its subject. A file that was deleted here is not found any more."""
        generation, searcher = self._searcher(folders, filters)
        with_chunks = tuple(folder for folder in folders if generation.has_chunks(folder))
        unread = self._updater.progress.unread(folders)
        passages, trace = searcher.search(query, previous_query, traced=traced)
        return SearchResult(passages, generation.number, with_chunks, unread, trace)

    def relevance(self, query: str, folders: Sequence[str]) -> dict[str, float]:
        """How likely each of these folders answers: its best passage. A folder without passages is missing."""
        found = {folder: self._searcher([folder], None)[1].relevance(query) for folder in dict.fromkeys(folders)}
        return {folder: likelihood for folder, likelihood in found.items() if likelihood is not None}

    def evidence(self, query: str, folders: Sequence[str], count: int) -> list[tuple[Floats, Passage]]:
        """The best passages, whether the gate lets them through or not, each with what the gate knows of it: the
        columns of `Features`."""
        return self._searcher(folders, None)[1].evidence(query, count)

    def _searcher(self, folders: Sequence[str], filters: SearchFilter | None) -> tuple[Generation, Searcher]:
        generation, deleted, dense = self._updater.serving()
        return generation, Searcher(
            generation, folders, self._embedder, self._settings, deleted=deleted, filters=filters, dense=dense,
            reranker=self._reranker, reader=self._embedder if isinstance(self._embedder, Reader) else None,
        )  # fmt: skip

    def passage(self, chunk_id: str) -> Passage | None:
        """A passage that an answer has cited, as long as a kept generation has it."""
        return self._updater.passage(chunk_id)

    def passage_context(self, chunk_id: str, reach: int) -> PassageContext | None:
        """The passage with `reach` passages of its file on each side."""
        passage = self.passage(chunk_id)
        if passage is None:
            return None
        generation, _, _ = self._updater.serving()
        key = FileKey(passage.folder, passage.file)
        version = generation.files.get(key)
        if version is None:
            return PassageContext(passage)
        passages: list[Passage] = []
        found_at: int | None = None
        for position in range(version.chunks):
            if (chunk := generation.read(version.id, position)) is None:
                break  # its generation has just been pruned
            passages.append(chunk.passage(key, 0.0))
            if chunk.id == chunk_id:
                found_at = position
            if found_at is not None and position == found_at + reach:
                break
        if found_at is None:
            return PassageContext(passage)
        before, after = passages[max(0, found_at - reach) : found_at], passages[found_at + 1 :]
        return PassageContext(passages[found_at], tuple(before), tuple(after), is_current=True)

    def status(self) -> KnowledgeStatus:
        return self._updater.status()

    def folders(self) -> tuple[str, ...]:
        """Those on the disk, as of the last scan."""
        return self._updater.progress.folders

    # ── files ────────────────────────────────────────────────────────────────────────────────────

    def check_folder(self, folder: str) -> None:
        """Raises InvalidInput for a name that no folder can have."""
        uploads.folder_path(self._root, folder)

    def save(self, folder: str, filename: str, data: bytes) -> FileStatus:
        """Stores an upload under a safe name; the same name replaces. Raises InvalidInput, Conflict."""
        if reason := self._updater.devices.away(folder):
            raise Conflict(f"nothing can be stored in '{folder}': {reason}")
        path = uploads.write(self._root, folder, filename, data)
        stat = path.stat()
        status = self._updater.file_saved(FileKey(path.parent.name, path.name), stat.st_size, stat.st_mtime_ns)
        self._request_sync({path})
        return status

    def delete(self, folder: str, file: str, *, purge: bool = False) -> FileDeletion:
        """Deletes a file; searches find it no more from now on. Generations that are kept for going back still have it,
        unless `purge` drops them, with its passages and vectors. Raises NotFound."""
        key = FileKey(folder, file)

        def remove() -> None:
            uploads.remove(self._root, folder, file)
            self._updater.file_deleted(key)

        purged: tuple[int, ...] = ()
        if purge:
            purged = self._updater.purger.delete(key, remove)
        else:
            remove()
        self._request_sync({self._root / folder / file})
        return FileDeletion(file, purged, self._updater.purger.generations_with(key), self._settings.generations)

    # ── generations ──────────────────────────────────────────────────────────────────────────────

    def history(self) -> list[GenerationRecord]:
        """The generations that are kept, newest first."""
        return self._updater.history()

    def roll_back(self, number: int) -> int:
        """Publishes generation `number` again as the newest one, and holds the index there until `follow`: the files on
        disk stay as they are. Returns the new number. Raises NotFound, Conflict."""
        if self._updater.status().building:
            raise Conflict("another index is being built, which will take this one's place: wait until it is whole")
        return self._updater.roll_back(number)

    def follow(self) -> None:
        """Lets the index follow the files again. Raises Conflict when it does already."""
        if not self._updater.follow():
            raise Conflict("the index follows the files already")
        self._request_sync(None)

    def rebuild(self) -> None:
        """Reads, chunks and embeds every file again into a new index; the current one serves until it is complete.
        Raises Conflict while a rebuild is under way."""
        if not self._updater.begin_rebuild():
            raise Conflict("the index is being rebuilt already")
        self._request_sync(None)

    def check_integrity(self) -> None:
        """Raises ValueError when the index contradicts itself."""
        self._updater.check_integrity()

    # ── sync with the disk ───────────────────────────────────────────────────────────────────────

    def sync(self) -> int:
        """Syncs the index with the disk and returns the generation's number. Blocks."""
        self._updater.open()
        self._updater.sync(None, self._take_changes)
        while self._updater.merge_segments():
            pass
        return self._updater.serving()[0].number

    def _request_sync(self, paths: set[Path] | None) -> None:
        with self._paths_lock:
            if paths is None:
                self._changed_paths = None
            elif self._changed_paths is not None:
                self._changed_paths |= paths
        self._sync_wanted.set()

    def _take_changes(self) -> set[Path] | None:
        """The paths that have changed since the last call, and forgets them; None: scan everything."""
        self._sync_wanted.clear()
        with self._paths_lock:
            paths, self._changed_paths = self._changed_paths, set()
        return paths

    def _sync_loop(self) -> None:
        pause = FIRST_RESCAN_S
        while not self._stop.is_set():
            if self._sync_wanted.wait(pause):
                next_pause = FIRST_RESCAN_S
                paths = self._take_changes()
            else:
                next_pause, paths = RESCAN_S, None
            try:
                self._updater.sync(paths, self._take_changes)
                if paths is None:
                    self._updater.prestart_reader()
            except Exception:  # edge of the thread: the next change tries again
                log.exception("the index could not be synced with the disk")
            self._merge_wanted.set()
            pause = next_pause

    def _merge_loop(self) -> None:
        while not self._stop.is_set():
            self._merge_wanted.wait()
            self._merge_wanted.clear()
            try:
                while not self._stop.is_set() and self._updater.merge_segments():
                    pass
            except Exception:  # edge of the thread: what is not merged is only slower
                log.exception("segments of the index could not be merged")

    def _watch_loop(self) -> None:
        """Wakes the sync after changes. Falls back to polling where the system gives no events."""
        polling = False
        while not self._stop.is_set():
            try:
                for changes in watch(
                    self._root,
                    watch_filter=lambda _, path: Path(path).name == USERS_FILE or not is_ignored(Path(path).name),
                    debounce=max(1, self._settings.debounce_ms),
                    step=max(1, min(50, self._settings.debounce_ms)),
                    stop_event=self._stop,
                    force_polling=polling or None,
                    raise_interrupt=False,
                    ignore_permission_denied=True,
                ):
                    paths = {Path(path) for _, path in changes}
                    self._request_sync(paths)
                    if any(path.name == USERS_FILE for path in paths):
                        self._updater.progress.notify()  # who may see the folder is part of what is shown
            except FileNotFoundError:  # it is away, as an unmounted disk is: until it is back the status says so
                self._request_sync(None)
                self._stop.wait(1)
            except (OSError, RuntimeError) as error:
                log.warning("the knowledge folder cannot be watched (%s); it is polled", error)
                polling = True
                self._stop.wait(1)
