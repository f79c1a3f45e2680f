"""The knowledge of the server: folders on disk, kept searchable.

One background thread brings the index in step with the disk, woken by a watcher, by an upload and
now and then by itself (a network share sends no events). A generation is swapped by one reference:
a search takes it once and sees nothing else. Knows nothing of prompts, domains or HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from watchfiles import watch

from server.config import RetrievalSettings
from server.retrieval import uploads
from server.retrieval.chunker import VERSION
from server.retrieval.generation import FileKey, Generation
from server.retrieval.indexer import Indexer, Step
from server.retrieval.scanner import Found, is_ignored, scan
from server.retrieval.search import Searcher
from server.retrieval.status import FileStatus, KnowledgeStatus, Waiting, assemble
from server.retrieval.storage import IndexStore
from server.types import Embedder, SearchResult

log = logging.getLogger("tailor.retrieval")

PUBLISH_S: Final = 2.0     # a long import becomes searchable in steps of this length
WRITE_SHARE: Final = 10    # … and durable in pauses of this many times the length of the last write
FIRST_RESCAN_S: Final = 1.0  # covers what happened while the watcher came up
RESCAN_S: Final = 30.0
ATTEMPTS: Final = 3        # at a file that changes while it is read


class KnowledgeBase:
    """Every method may be called from any thread; those that read or write block: call them off the loop."""

    def __init__(self, root: Path, index_dir: Path, embedder: Embedder, settings: RetrievalSettings) -> None:
        self._root = root.resolve()
        self._embedder = embedder
        self._settings = settings
        self._store = IndexStore(
            index_dir,
            {"embedder": embedder.fingerprint, "chunker": VERSION, "chunk_tokens": settings.chunk_tokens},
        )
        self._indexer = Indexer(embedder, settings.chunk_tokens)
        self._generation = Generation.build(0, embedder.dimension, ())
        self._opened = False
        self._unwritten = False
        self._next_write = 0.0

        self._sync_lock = threading.Lock()    # one sync at a time
        self._state_lock = threading.Lock()   # the five below
        self._folders: tuple[str, ...] = ()
        self._waiting: dict[FileKey, Waiting] = {}
        self._gone: dict[FileKey, float] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._told: KnowledgeStatus | None = None

        self._stop = threading.Event()
        self._wanted = threading.Event()
        self._threads: list[threading.Thread] = []

    # ── life ─────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Opens the last generation, so that searches work at once; sync and watch go on behind."""
        await asyncio.to_thread(self._open)
        self._stop.clear()
        self._wanted.set()
        for name, work in (("knowledge-watch", self._watch), ("knowledge-sync", self._keep_in_step)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    async def close(self) -> None:
        """Ends both threads; what was not yet indexed is found by the next start."""
        self._stop.set()
        self._wanted.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._threads.clear()

    def subscribe(self, callback: Callable[[], None]) -> None:
        """`callback` runs after each change of the status, on whatever thread changed it; it must not block."""
        with self._state_lock:
            self._callbacks.append(callback)

    # ── search ───────────────────────────────────────────────────────────────────────────────────

    def search(self, query: str, folders: Sequence[str], *, earlier: str = "") -> SearchResult:
        """Passages of `folders`, best first. `earlier` is the user's previous message: it gives a
        follow-up ("and for children?") its subject. A file that was deleted here is missed at once."""
        with self._state_lock:
            generation, gone = self._generation, frozenset(self._gone)
        searcher = Searcher(generation, folders, self._embedder, self._settings, gone)
        filled = tuple(folder for folder in folders if generation.span(folder)[0] < generation.span(folder)[1])
        return SearchResult(searcher.search(query, earlier), generation.number, filled)

    def status(self) -> KnowledgeStatus:
        with self._state_lock:
            return assemble(self._generation, self._folders, self._waiting, self._gone)

    # ── files ────────────────────────────────────────────────────────────────────────────────────

    def save(self, folder: str, filename: str, data: bytes) -> FileStatus:
        """Stores an upload under a safe name; the same name replaces. Raises InvalidInput."""
        path = uploads.write(self._root, folder, filename, data)
        about = path.stat()
        key = FileKey(path.parent.name, path.name)
        waiting = Waiting(about.st_size, about.st_mtime_ns, time.monotonic())
        with self._state_lock:
            self._waiting[key] = waiting
            self._gone.pop(key, None)
        self._changed()
        return waiting.status(key.file)

    def delete(self, folder: str, file: str) -> None:
        """Deletes a file; searches miss it from now on. Raises NotFound."""
        uploads.remove(self._root, folder, file)
        key = FileKey(folder, file)
        with self._state_lock:
            self._gone[key] = time.monotonic()
            self._waiting.pop(key, None)
        self._changed()

    # ── in step with the disk ────────────────────────────────────────────────────────────────────

    def sync(self) -> int:
        """Brings the index in step with the disk and returns the generation's number. Blocks."""
        with self._sync_lock:
            self._open_once()
            for attempt in range(ATTEMPTS):
                if attempt and self._stop.wait(self._settings.debounce_ms / 1000):
                    break
                if not self._sync_files():
                    break
            return self._generation.number

    def _sync_files(self) -> bool:
        """Steps until every file has had its turn. True: some were changing and need another look."""
        while self._root.is_dir():
            began = time.monotonic()
            found, folders = scan(self._root)
            plan = self._indexer.plan(self._generation, found)
            self._show(began, (file for file in plan.to_read if file.key in plan.news), folders)
            step = self._indexer.advance(
                self._generation,
                plan,
                max(self._store.next_number(), self._generation.number + 1),
                deadline=began + PUBLISH_S,
                stopping=self._stop.is_set,
            )
            self._publish(step)
            unfinished = (*step.left, *step.retry)
            self._show(began, (file for file in unfinished if file.key in plan.news), folders, done=True)
            over = not step.left or self._stop.is_set()
            self._write(at_once=over)
            if over:
                return bool(step.retry)
        log.warning("the knowledge folder %s is not there: the index stays as it is", self._root)
        return False

    def _publish(self, step: Step) -> None:
        if step.generation is None:
            if step.records:
                self._generation = self._generation.with_records(step.records)
            return
        self._generation = step.generation
        self._unwritten = True
        log.info(
            "generation %d: %d files, %d chunks",
            step.generation.number, len(step.generation.segments), len(step.generation.rows),
        )  # fmt: skip

    def _write(self, *, at_once: bool) -> None:
        """Makes the generation durable, after searches have it: a slow disk delays no answer. During a
        long import only now and then (not `at_once`), so that writing stays a small part of the work."""
        began = time.monotonic()
        if not self._unwritten or (not at_once and began < self._next_write):
            return
        try:
            self._store.write(self._generation)
            self._unwritten = False
        except (OSError, RuntimeError) as error:  # RuntimeError: how FAISS reports a full disk
            log.error("the index cannot be written; it is tried again with the next sync: %s", error)
        now = time.monotonic()
        self._next_write = now + WRITE_SHARE * (now - began)

    def _show(
        self, began: float, waiting: Iterable[Found], folders: tuple[str, ...], *, done: bool = False
    ) -> None:
        """Sets what the status says of files that wait. What was saved or deleted after the look at the
        disk (`began`) stays; deletions before it are forgotten once they are `done`."""
        now = {file.key: Waiting(file.bytes, file.mtime_ns, began) for file in waiting}
        with self._state_lock:
            self._waiting = now | {key: one for key, one in self._waiting.items() if one.since > began}
            if done:
                self._gone = {key: since for key, since in self._gone.items() if since > began}
            self._folders = folders
        self._tell()

    def _changed(self) -> None:
        """Something was saved or deleted here: no need to wait for the watcher."""
        self._wanted.set()
        self._tell()

    def _tell(self) -> None:
        """Calls the subscribers when the status is another than the one they were last called for."""
        with self._state_lock:
            status = assemble(self._generation, self._folders, self._waiting, self._gone)
            callbacks = self._callbacks[:] if status != self._told else []
            self._told = status
        for callback in callbacks:
            callback()

    def _open(self) -> None:
        """Makes the root and takes up the last generation, once."""
        with self._sync_lock:
            self._open_once()

    def _open_once(self) -> None:
        if self._opened:
            return
        self._root.mkdir(parents=True, exist_ok=True)
        generation = self._store.open(self._embedder.dimension)
        if generation is not None:
            self._generation = generation
        self._opened = True

    # ── the threads ──────────────────────────────────────────────────────────────────────────────

    def _keep_in_step(self) -> None:
        pause = FIRST_RESCAN_S
        while not self._stop.is_set():
            if self._wanted.wait(pause):
                self._wanted.clear()
                following = FIRST_RESCAN_S
            else:
                following = RESCAN_S
            try:
                self.sync()
            except Exception:  # the thread's outermost edge: the next change tries again
                log.exception("the index could not be brought in step with the disk")
            pause = following

    def _watch(self) -> None:
        """Wakes the sync after changes. Falls back to polling where the system gives no events."""
        polling = False
        while not self._stop.is_set():
            try:
                self._root.mkdir(parents=True, exist_ok=True)
                for _ in watch(
                    self._root,
                    watch_filter=lambda _, path: not is_ignored(Path(path).name),
                    debounce=max(1, self._settings.debounce_ms),
                    step=max(1, min(50, self._settings.debounce_ms)),
                    stop_event=self._stop,
                    force_polling=polling or None,
                    raise_interrupt=False,
                    ignore_permission_denied=True,
                ):
                    self._wanted.set()
            except (OSError, RuntimeError) as error:
                log.warning("the knowledge folder cannot be watched (%s); it is polled", error)
                polling = True
                self._stop.wait(1)
