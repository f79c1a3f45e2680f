"""Updates the index from the files, and has the generation that searches use.

A change becomes one generation, however many files it has; what changes while a long import is under way is indexed
first, as a generation of its own. Searches miss deleted files at once. Knows nothing of watching or of threads beyond
its locks.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final

from server.config import RetrievalSettings
from server.errors import Conflict, StorageError
from server.retrieval.index.catalog import GenerationRecord
from server.retrieval.index.devices import FolderDevices
from server.retrieval.index.directory import IndexDirectory, OpenIndex, RetiredIndex
from server.retrieval.index.files import FileKey
from server.retrieval.index.generation import Generation
from server.retrieval.updating.absence import without_absent
from server.retrieval.updating.indexer import Indexer, IndexingResult, IndexingStopped, Plan
from server.retrieval.updating.merging import Merger
from server.retrieval.updating.pending import LONG_IMPORT_FILES, FolderScan, PendingUpdate, TakeChanges
from server.retrieval.updating.progress import UpdateProgress
from server.retrieval.updating.purging import Purger
from server.retrieval.updating.reader import Reader
from server.retrieval.updating.scanner import scan, scan_paths
from server.retrieval.updating.status import FileStatus, KnowledgeStatus, PendingFile
from server.types import Embedder, Passage

log = logging.getLogger("tailor.retrieval")

ATTEMPTS: Final = 3  # at a file that changes while it is read
STORE_CHUNKS: Final = 1024  # chunks of a long import that are made durable together
URGENT_BYTES: Final = 1024 * 1024  # of a changed file that goes before a long import
FIRST_STEP_S: Final = 2.0  # the first import of all becomes searchable after this, then after twice as long, …
_HELD_MARK: Final = "held"


class IndexUpdater:
    """Safe from any thread. Only `sync`, `roll_back` and `merge_segments` take long."""

    def __init__(self, root: Path, directory: IndexDirectory, embedder: Embedder, settings: RetrievalSettings) -> None:
        self._root = root
        self._directory = directory
        self.devices = FolderDevices(root, directory.folder)
        self._embedder = embedder
        self._settings = settings
        self._reader = Reader(settings.parse_seconds, settings.parse_mb)
        self._urgent_reader = Reader(settings.parse_seconds, settings.parse_mb)  # while the other is at a large file
        self._serving: OpenIndex | None = None  # the index that serves
        self._building: OpenIndex | None = None  # the one that is to replace it
        self._generations: dict[str, Generation] = {}  # the newest of each, by the index's name
        self._retired = RetiredIndex(directory)
        self._interrupted = threading.Event()

        self._sync_lock = threading.Lock()  # one sync at a time
        self._publish_lock = threading.RLock()  # one change of the newest generations at a time; before the next
        self._state_lock = threading.Lock()  # which index serves, and its generation
        self.progress = UpdateProgress()
        self._merger = Merger(self._publish_lock, lambda index: index.name in self._generations, self._set_generation)
        self.purger = Purger(
            root, self._indexes, lambda index: self._generations[index.name], self._set_generation,
            (self._merger.lock, self._publish_lock),
        )  # fmt: skip

    # ── life ─────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Makes the root and opens the last generation; does nothing the second time."""
        with self._publish_lock:
            if self._serving is not None:
                return
            self._interrupted.clear()
            self._reader.open()
            self._urgent_reader.open()
            self._root.mkdir(parents=True, exist_ok=True)
            serving, building = self._directory.open()
            for index in filter(None, (serving, building)):
                self._generations[index.name] = index.store.open()
            with self._state_lock:
                self._serving, self._building = serving, building
            if building is not None:
                log.info("the index is rebuilt for other settings; the last one serves until it is complete")

    def list_pending(self) -> None:
        """Before the first index is built its files count as pending, so that no search takes them for missing."""
        index, started = self._require_open(), time.monotonic()
        if not self._generations[index.name].files:
            plan = self._plan(index, self._scan(None))
            self.progress.set_pending(started, (file for file in plan.to_read if file.key in plan.changed), None)

    def close(self) -> None:
        self._reader.close()
        self._urgent_reader.close()
        with self._publish_lock:
            self._retired.close()
            for index in filter(None, (self._serving, self._building)):
                index.store.close()
            self._serving = self._building = None

    def interrupt(self) -> None:
        """A sync that is under way ends soon; what it has stored is found by the next."""
        self._interrupted.set()
        self._reader.close()
        self._urgent_reader.close()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def is_open(self) -> bool:
        return self._serving is not None

    def serving(self) -> tuple[Generation, frozenset[FileKey], bool]:
        """The generation to search, files in it that are deleted, and whether its vectors are of this embedder."""
        with self._state_lock:
            if self._serving is None:
                return Generation.empty(), frozenset(), False
            generation = self._generations[self._serving.name]
            same = self._serving.build_settings.get("embedder") == self._embedder.fingerprint
        return generation, self.progress.deleted(), same

    def passage(self, chunk_id: str) -> Passage | None:
        index = self._serving
        found = index.store.passage(chunk_id) if index is not None else None
        return None if found is not None and FileKey(found.folder, found.file) in self.progress.deleted() else found

    def history(self) -> list[GenerationRecord]:
        return self._serving.store.history() if self._serving is not None else []

    def status(self) -> KnowledgeStatus:
        generation, _, _ = self.serving()
        progress, held = self.progress, self._serving.store.get_mark(_HELD_MARK) if self._serving is not None else None
        return KnowledgeStatus(
            generation.number, progress.busy(), progress.folder_statuses(generation), progress.import_progress,
            int(held) if held else None, progress.differing if held else 0, self._building is not None,
            progress.problem, progress.missing,
        )  # fmt: skip

    def check_integrity(self) -> None:
        with self._publish_lock:
            for index in self._indexes():
                index.store.check_integrity()
                self._generations[index.name].check_integrity()

    # ── changes by the user ──────────────────────────────────────────────────────────────────────

    def file_saved(self, key: FileKey, size: int, mtime_ns: int) -> FileStatus:
        pending = PendingFile(size, mtime_ns, time.monotonic())
        self.progress.add_pending(key, pending)
        return pending.status(key.file)

    def file_deleted(self, key: FileKey) -> None:
        """A file has been deleted here; where the index is held at a generation, it is removed from that, too."""
        self.progress.mark_deleted([key])
        with self._publish_lock:
            index = self._serving
            if index is not None and index.store.get_mark(_HELD_MARK) is not None:
                self._set_generation(index, index.store.publish(self._generations[index.name], (), [key], "files"))
        self.progress.notify()

    def _indexes(self) -> list[OpenIndex]:
        return [index for index in (self._serving, self._building) if index is not None]

    def roll_back(self, number: int) -> int:
        with self._publish_lock:
            index = self._require_open()
            if self._building is not None:
                raise Conflict("the index is being rebuilt: go back once that is done")
            current, target = self._generations[index.name], index.store.generation(number)
            new_versions = [version for version in target.versions.values() if version.id not in current.versions]
            removed = current.files.keys() - target.files.keys()
            index.store.set_mark(_HELD_MARK, str(number))
            if new_versions or removed:
                self._set_generation(index, index.store.publish(current, new_versions, removed, f"rollback:{number}"))
            self.progress.clear_deleted()
            result = self._generations[index.name].number
        self.progress.notify()
        return result

    def follow(self) -> bool:
        """Lets the index follow the files again; False where it does already."""
        with self._publish_lock:
            store = self._require_open().store
            if store.get_mark(_HELD_MARK) is None:
                return False
            store.set_mark(_HELD_MARK, None)
        self.progress.notify()
        return True

    def begin_rebuild(self) -> bool:
        """Begins an index that is to replace the serving one; False where there is one already."""
        with self._publish_lock:
            serving = self._require_open()
            if self._building is not None:
                return False
            building = self._directory.open_build(serving, fresh=True)
            self._generations[building.name] = building.store.open()
            serving.store.set_mark(_HELD_MARK, None)
            with self._state_lock:
                self._building = building
        self.progress.notify()
        return True

    # ── sync with the disk ───────────────────────────────────────────────────────────────────────

    def sync(self, paths: set[Path] | None, take_changes: TakeChanges) -> None:
        """Indexes what has changed: of `paths`, or of everything. `take_changes` gives what else has changed since its
        last call. Blocks until no file is pending, or until `interrupt`."""
        with self._sync_lock:
            try:
                for attempt in range(ATTEMPTS):
                    if attempt and self._interrupted.wait(self._settings.debounce_ms / 1000):
                        return
                    if self._sync_once(paths, take_changes):
                        self.purger.purge_marked()
                        break
                    paths = None
            except (OSError, sqlite3.Error, StorageError) as error:
                self.progress.set_problem(f"the index cannot be written: {error}")
                log.error("the index cannot be written; it is tried again: %s", error)
            else:
                self.progress.set_problem("")
        self._retired.remove_when_due()

    def prestart_reader(self) -> None:
        self._reader.prestart(key.file for key in self.serving()[0].files)

    def _sync_once(self, paths: set[Path] | None, take_changes: TakeChanges) -> bool:
        """False: some files were changing, and need another scan."""
        if not self._root.is_dir():
            log.warning("the knowledge folder %s is not there: the index stays as it is", self._root)
            self.progress.set_missing({"": self.devices.away("") or f"{self._root} is not there"})
            return True
        index = self._building or self._require_open()
        if index.store.get_mark(_HELD_MARK) is not None:
            plan = self._plan(index, self._scan(None))
            self.progress.set_differing(len(plan.changed) + len(plan.rejected) + len(plan.removed))
            self.progress.set_pending(time.monotonic(), (), None)
            return True
        started = time.monotonic()
        scanned = self._scan(paths if self._building is None else None)
        plan = self._plan(index, scanned)
        self.progress.mark_present(scanned.found.keys(), started)
        self._hide_removed(plan, started)
        self.progress.set_pending(started, (file for file in plan.to_read if file.key in plan.changed), scanned.within)
        update = PendingUpdate(
            index, deque(plan.to_read), plan.removed, files=len(plan.to_read), bytes=plan.bytes, started=started
        )
        update.result.prepared += plan.rejected
        try:
            complete = self._index(update, take_changes)
            retry = update.result.retry
            if complete:
                self._publish(update)
        except (OSError, sqlite3.Error, StorageError):
            self.progress.mark_deleted(plan.removed, started)  # searches must miss them all the same
            raise
        if complete:
            if scanned.within is None and not retry:
                index.store.delete_unpublished()
                if index is self._building and not self.progress.missing:
                    self._swap_in(index)
            self.progress.set_pending(started, (file for file in retry if file.key in plan.changed), scanned.within)
        self.progress.report_import(None)
        return not retry or not complete

    def _hide_removed(self, plan: Plan, started: float) -> None:
        """Before a long import, searches miss removed files at once. A file that was moved is not one of them: it has
        its new name in the next generation, and until then its old one, so that no search is without it."""
        if len(plan.to_read) >= LONG_IMPORT_FILES:
            moved = {(file.bytes, file.mtime_ns) for file in plan.to_read}
            files = self._generations[self._require_open().name].files
            stats = {key: (one.record.bytes, one.record.mtime_ns) for key in plan.removed if (one := files.get(key))}
            self.progress.mark_deleted([key for key, stat in stats.items() if stat not in moved], started)

    def _scan(self, paths: set[Path] | None) -> FolderScan:
        """Scans those paths, or everything."""
        scanned = scan_paths(self._root, paths) if paths is not None else None
        if scanned is not None:
            return FolderScan(*scanned)
        found, self.progress.folders = scan(self._root)
        return FolderScan(found, None)

    def _plan(self, index: OpenIndex, scanned: FolderScan) -> Plan:
        plan = self._indexer(index).plan(self._generations[index.name], scanned.found, scanned.within)
        indexed = {key.folder for key in self._generations[self._require_open().name].files}
        return without_absent(plan, scanned, indexed, self.devices, self.progress)

    def _indexer(self, index: OpenIndex) -> Indexer:
        return Indexer(index.store, self._embedder, self._settings.chunk_tokens, self._reader)

    def _index(self, update: PendingUpdate, take_changes: TakeChanges | None) -> bool:
        """Indexes the whole queue, and stores it in between; False when it was interrupted. What changes meanwhile goes
        first, in the middle of a large file too; `take_changes` is None where this is what goes first."""

        def pause() -> None:
            if self._interrupted.is_set():
                raise IndexingStopped
            if take_changes is not None:
                self.progress.report_import(update.progress(indexer.unfinished_bytes))
                self._index_urgent(update, take_changes)

        reader = self._urgent_reader if take_changes is None else self._reader
        indexer = Indexer(update.index.store, self._embedder, self._settings.chunk_tokens, reader, pause)
        step, due = FIRST_STEP_S, update.started + FIRST_STEP_S
        first = not self._generations[update.index.name].files and update.index is self._serving
        try:
            while update.queue:
                indexer.index_batch(self._generations[update.index.name], update.queue, update.result)
                if sum(len(one.chunks) for one in update.result.prepared) >= STORE_CHUNKS:
                    indexer.store(update.result)
                if update.queue:
                    pause()
                if first and time.monotonic() >= due:
                    self._publish(update, indexer)
                    step *= 2
                    due = time.monotonic() + step
            indexer.store(update.result)
        except IndexingStopped:
            self._indexer(update.index).store(update.result)  # without a pause, which would stop it again
            return False
        return True

    def _index_urgent(self, update: PendingUpdate, take_changes: TakeChanges) -> None:
        """Indexes what has changed since a long import began: a few files at once, many with the others."""
        paths = take_changes()
        if paths is not None and not paths:
            return
        started = time.monotonic()
        scanned = self._scan(paths)
        plan = self._plan(update.index, scanned)
        fresh = [file for file in plan.to_read if not update.includes(file)]
        removed = plan.removed - update.removed  # a file that was moved leaves when it has its new name
        keys = {file.key for file in fresh} | removed
        keys |= {key for key in update.result.in_hand if key not in scanned.found and scanned.covers(key)}
        update.discard(keys)
        few = len(fresh) <= LONG_IMPORT_FILES and update.index is self._serving
        urgent_files = [file for file in fresh if few and file.bytes <= URGENT_BYTES]
        update.add([file for file in fresh if file not in urgent_files], frozenset() if few else removed)
        if not few:
            self._hide_removed(plan, started)
            return
        urgent = PendingUpdate(update.index, deque(urgent_files), removed, started=started)
        urgent.result.prepared += plan.rejected
        self._index(urgent, None)
        self._publish(urgent)
        update.queue.extend(urgent.result.retry)

    def _publish(self, update: PendingUpdate, indexer: Indexer | None = None) -> None:
        """Makes a generation of what has been indexed so far, if that changes anything."""
        (indexer or self._indexer(update.index)).store(update.result)
        result, update.result = update.result, IndexingResult(retry=update.result.retry)
        with self._publish_lock:
            generation = self._generations[update.index.name]
            if update.index.store.get_mark(_HELD_MARK) is not None:
                return  # it was rolled back to another one meanwhile
            removed = {key for key in update.removed | result.vanished if key in generation.files}
            changes = bool(result.new_versions or removed)
            if changes:
                generation = update.index.store.publish(generation, result.new_versions, removed, "files")
                log.info("generation %d: %d files, %d chunks", generation.number, len(generation.files),
                         generation.chunks)  # fmt: skip
            if result.touched:
                generation = update.index.store.touch(generation, result.touched)
            self._set_generation(update.index, generation)
        if update.index is self._serving:
            keys = {version.key for version in result.new_versions} | result.touched.keys() | result.vanished
            if self.progress.mark_indexed(keys, update.removed, update.started) or changes:
                self.progress.notify()
        update.removed = frozenset()

    def _swap_in(self, index: OpenIndex) -> None:
        """The index that was built serves from now on."""
        with self._publish_lock:
            self._directory.set_current(index)
            with self._state_lock:
                old, self._serving, self._building = self._serving, index, None
            if old is not None:
                self._generations.pop(old.name, None)
            self._retired.retire(old)
        log.info("the rebuilt index serves now")

    def merge_segments(self) -> bool:
        """Merges some segments, if that is worth it; returns whether it was."""
        return self._merger.merge(lambda: self._building or self._serving)

    def _require_open(self) -> OpenIndex:
        if self._serving is None:
            raise RuntimeError("the knowledge is not open")
        return self._serving

    def _set_generation(self, index: OpenIndex, generation: Generation) -> None:
        with self._state_lock:
            self._generations[index.name] = generation
