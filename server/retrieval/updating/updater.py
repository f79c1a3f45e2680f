"""Keeps the generation that searches use, and brings it in step with the files.

A change becomes one generation, however many files it has; what changes while a long import is under way goes first, as
a generation of its own. Files that are gone are missed by searches at once. Knows nothing of watching or of threads
beyond its locks.
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
from server.errors import Conflict
from server.retrieval.index.catalog import Made
from server.retrieval.index.directory import Held, IndexHome
from server.retrieval.index.files import FileKey
from server.retrieval.index.generation import Generation
from server.retrieval.updating.indexer import Indexer, Plan, Stopped, Taken
from server.retrieval.updating.pending import LONG, Changed, Seen, Work
from server.retrieval.updating.progress import Board
from server.retrieval.updating.reader import Reader
from server.retrieval.updating.scanner import look, scan
from server.retrieval.updating.status import FileStatus, KnowledgeStatus, Waiting
from server.types import Embedder, Passage

log = logging.getLogger("tailor.retrieval")

ATTEMPTS: Final = 3        # at a file that changes while it is read
STORED: Final = 1024       # chunks of a long import that are made durable together
FIRST_STEP_S: Final = 2.0  # the first import of all becomes searchable after this, then after twice as long, …
GRACE_S: Final = 60.0      # that an index which no longer serves stays for those who still read it
_HELD: Final = "held"


class Keeper:
    """Safe from any thread. Only `sync`, `roll_back` and `merge_some` take long."""

    def __init__(self, root: Path, home: IndexHome, embedder: Embedder, settings: RetrievalSettings) -> None:
        self._root = root
        self._home = home
        self._embedder = embedder
        self._settings = settings
        self._reader = Reader(settings.parse_seconds, settings.parse_mb)
        self._held: Held | None = None        # the index that serves
        self._beside: Held | None = None      # the one that is to take its place
        self._generations: dict[str, Generation] = {}   # the newest of each, by the index's name
        self._retired: Held | None = None     # one that has served, until nobody can be reading it
        self._cleared_at: float | None = None
        self._interrupted = threading.Event()

        self._sync_lock = threading.Lock()       # one sync at a time
        self._merge_lock = threading.Lock()      # one merge at a time
        self._publish_lock = threading.RLock()   # one change of the newest generations at a time; before the next
        self._state_lock = threading.Lock()      # which index serves, and its generation
        self.board = Board()

    # ── life ─────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Makes the root and takes up the last generation; does nothing the second time."""
        with self._publish_lock:
            if self._held is not None:
                return
            self._interrupted.clear()
            self._reader.open()
            self._root.mkdir(parents=True, exist_ok=True)
            serving, beside = self._home.open()
            for held in filter(None, (serving, beside)):
                self._generations[held.name] = held.store.open()
            with self._state_lock:
                self._held, self._beside = serving, beside
            if beside is not None:
                log.info("the index is made anew for other settings; the last one answers until it is whole")

    def foresee(self) -> None:
        """Before anything is indexed, files are known to wait: nobody who asks at once is to take them for missing."""
        held, began = self._require(), time.monotonic()
        if not self._generations[held.name].files:
            plan = self._plan(held, self._look(None))
            self.board.await_(began, (file for file in plan.to_read if file.key in plan.news), None)

    def close(self) -> None:
        self._reader.close()
        with self._publish_lock:
            for held in filter(None, (self._held, self._beside)):
                held.store.close()
            self._held = self._beside = None

    def interrupt(self) -> None:
        """A sync that is under way ends soon; what it has stored is found by the next."""
        self._interrupted.set()
        self._reader.close()

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    def serving(self) -> tuple[Generation, frozenset[FileKey], bool]:
        """The generation to search, files in it that are gone, and whether its vectors are of this embedder."""
        with self._state_lock:
            if self._held is None:
                return Generation.empty(), frozenset(), False
            generation = self._generations[self._held.name]
            same = self._held.made_by.get("embedder") == self._embedder.fingerprint
        return generation, self.board.gone(), same

    def passage(self, chunk_id: str) -> Passage | None:
        held = self._held
        found = held.store.passage(chunk_id) if held is not None else None
        return None if found is not None and FileKey(found.folder, found.file) in self.board.gone() else found

    def history(self) -> list[Made]:
        held = self._held
        return held.store.history() if held is not None else []

    def status(self) -> KnowledgeStatus:
        generation, _, _ = self.serving()
        board, at = self.board, self._held.store.marked(_HELD) if self._held is not None else None
        return KnowledgeStatus(
            generation.number, board.busy(), board.files(generation), board.progress, int(at) if at else None,
            board.pending if at else 0, self._beside is not None, board.problem,
        )  # fmt: skip

    def check_integrity(self) -> None:
        with self._publish_lock:
            for held in filter(None, (self._held, self._beside)):
                held.store.check_integrity()
                self._generations[held.name].check_integrity()

    # ── what others tell ─────────────────────────────────────────────────────────────────────────

    def expect(self, key: FileKey, size: int, mtime_ns: int) -> FileStatus:
        """A file has been saved here."""
        waiting = Waiting(size, mtime_ns, time.monotonic())
        self.board.expect(key, waiting)
        return waiting.status(key.file)

    def hide(self, key: FileKey) -> None:
        """A file has been deleted here; where the index is held at a generation, it goes from that, too."""
        self.board.miss([key])
        with self._publish_lock:
            held = self._held
            if held is not None and held.store.marked(_HELD) is not None:
                self._set(held, held.store.publish(self._generations[held.name], (), [key], "files"))
        self.board.tell()

    def roll_back(self, number: int) -> int:
        with self._publish_lock:
            held = self._require()
            if self._beside is not None:
                raise Conflict("the index is being rebuilt: go back once that is done")
            current, target = self._generations[held.name], held.store.generation(number)
            born = [version for version in target.versions.values() if version.id not in current.versions]
            dropped = current.files.keys() - target.files.keys()
            held.store.mark(_HELD, str(number))
            if born or dropped:
                self._set(held, held.store.publish(current, born, dropped, f"rollback:{number}"))
            self.board.forget_gone()
            result = self._generations[held.name].number
        self.board.tell()
        return result

    def let_go(self) -> bool:
        """Follows the files again; False where it did."""
        with self._publish_lock:
            store = self._require().store
            if store.marked(_HELD) is None:
                return False
            store.mark(_HELD, None)
        self.board.tell()
        return True

    def begin_anew(self) -> bool:
        """Begins an index beside the one that serves; False where there is one."""
        with self._publish_lock:
            serving = self._require()
            if self._beside is not None:
                return False
            beside = self._home.beside(serving, anew=True)
            self._generations[beside.name] = beside.store.open()
            serving.store.mark(_HELD, None)
            with self._state_lock:
                self._beside = beside
        self.board.tell()
        return True

    # ── in step with the disk ────────────────────────────────────────────────────────────────────

    def sync(self, paths: set[Path] | None, changed: Changed) -> None:
        """Takes in what has changed: of `paths`, or of everything. `changed` gives what else has changed since it was
        asked last. Blocks until no file waits, or until `interrupt`."""
        with self._sync_lock:
            try:
                for attempt in range(ATTEMPTS):
                    if attempt and self._interrupted.wait(self._settings.debounce_ms / 1000):
                        return
                    if self._round(paths, changed):
                        break
                    paths = None
            except (OSError, sqlite3.Error) as error:
                self.board.trouble(f"the index cannot be written: {error}")
                log.error("the index cannot be written; it is tried again: %s", error)
            else:
                self.board.trouble("")
        if self._cleared_at is not None and time.monotonic() > self._cleared_at:
            self._cleared_at = None
            if self._retired is not None:
                self._retired.store.close()
            self._home.clear()

    def make_ready(self) -> None:
        """For the next file of the kinds that are here already."""
        self._reader.expect(key.file for key in self.serving()[0].files)

    def _round(self, paths: set[Path] | None, changed: Changed) -> bool:
        """False: some files were changing, and need another look."""
        if not self._root.is_dir():
            log.warning("the knowledge folder %s is not there: the index stays as it is", self._root)
            return True
        held = self._beside or self._require()
        if held.store.marked(_HELD) is not None:
            plan = self._plan(held, self._look(None))
            self.board.differ(len(plan.news) + len(plan.told) + len(plan.dropped))
            self.board.await_(time.monotonic(), (), None)
            return True
        began = time.monotonic()
        seen = self._look(paths if self._beside is None else None)
        plan = self._plan(held, seen)
        self.board.seen(seen.found.keys(), began)
        self._miss_long(plan, began)
        self.board.await_(began, (file for file in plan.to_read if file.key in plan.news), seen.within)
        work = Work(held, deque(plan.to_read), plan.dropped, files=len(plan.to_read), bytes=plan.bytes, began=began)
        work.taken.cut += plan.told
        try:
            whole = self._take(work, changed)
            retry = work.taken.retry
            if whole:
                self._publish(work)
        except (OSError, sqlite3.Error):
            self.board.miss(plan.dropped, began)  # the index cannot take it in, and it must be missed all the same
            raise
        if whole:
            if seen.within is None and not retry:
                held.store.forget_unborn()
                if held is self._beside:
                    self._swap(held)
            self.board.await_(began, (file for file in retry if file.key in plan.news), seen.within)
        self.board.say(None)
        return not retry or not whole

    def _miss_long(self, plan: Plan, began: float) -> None:
        """What is gone is missed at once where the next generation takes long. A file that was moved is not: it has
        its new name in that generation, and until then its old one, so that no search is without it."""
        if len(plan.to_read) >= LONG:
            moved = {(file.bytes, file.mtime_ns) for file in plan.to_read}
            files = self._generations[self._require().name].files
            gone = [key for key in plan.dropped if key in files]
            about = {key: (files[key].record.bytes, files[key].record.mtime_ns) for key in gone}
            self.board.miss([key for key in gone if about[key] not in moved], began)

    def _look(self, paths: set[Path] | None) -> Seen:
        """At those paths, or at everything."""
        looked = look(self._root, paths) if paths is not None else None
        if looked is not None:
            return Seen(*looked)
        found, self.board.folders = scan(self._root)
        return Seen(found, None)

    def _plan(self, held: Held, seen: Seen) -> Plan:
        return self._indexer(held).plan(self._generations[held.name], seen.found, seen.within)

    def _indexer(self, held: Held) -> Indexer:
        return Indexer(held.store, self._embedder, self._settings.chunk_tokens, self._reader)

    def _take(self, work: Work, changed: Changed) -> bool:
        """Reads it all, and stores it now and then; False when it was interrupted."""
        indexer, step = self._indexer(work.held), FIRST_STEP_S
        due = work.began + step
        first = not self._generations[work.held.name].files and work.held is self._held
        while work.waiting:
            try:
                indexer.take(self._generations[work.held.name], work.waiting, work.taken, self._interrupted.is_set)
            except Stopped:
                indexer.store(work.taken)
                return False
            if sum(len(one.chunks) for one in work.taken.cut) >= STORED:
                indexer.store(work.taken)
            if work.waiting:
                self.board.say(work.progress())
                self._take_first(work, changed)
            if first and time.monotonic() >= due:
                self._publish(work)
                step *= 2
                due = time.monotonic() + step
        return True

    def _take_first(self, work: Work, changed: Changed) -> None:
        """What has changed since a long import began: a few files at once, many with the others."""
        paths = changed()
        if paths is not None and not paths:
            return
        began = time.monotonic()
        plan = self._plan(work.held, self._look(paths))
        fresh = [file for file in plan.to_read if not work.knows(file)]
        keys = {file.key for file in fresh} | plan.dropped
        work.leave_out(keys)
        if len(fresh) > LONG or work.held is not self._held:
            self._miss_long(plan, began)
            work.add(fresh, plan.dropped)
            return
        small = Work(work.held, deque(fresh), plan.dropped, began=began)
        small.taken.cut += plan.told
        self._take(small, lambda: set())
        self._publish(small)
        work.waiting.extend(small.taken.retry)

    def _publish(self, work: Work) -> None:
        """Makes a generation of what has been taken so far, if that changes anything."""
        self._indexer(work.held).store(work.taken)
        taken, work.taken = work.taken, Taken(retry=work.taken.retry)
        with self._publish_lock:
            generation = self._generations[work.held.name]
            if work.held.store.marked(_HELD) is not None:
                return  # it was gone back to another one meanwhile
            dropped = {key for key in work.dropped | taken.vanished if key in generation.files}
            changes = bool(taken.born or dropped)
            if changes:
                generation = work.held.store.publish(generation, taken.born, dropped, "files")
                log.info("generation %d: %d files, %d chunks", generation.number, len(generation.files),
                         generation.chunks)  # fmt: skip
            if taken.touched:
                generation = work.held.store.touch(generation, taken.touched)
            self._set(work.held, generation)
        if work.held is self._held:
            keys = {version.key for version in taken.born} | taken.touched.keys() | taken.vanished
            if self.board.taken(keys, work.dropped, work.began) or changes:
                self.board.tell()
        work.dropped = frozenset()

    def _swap(self, held: Held) -> None:
        """The index that was built beside serves from now on."""
        with self._publish_lock:
            self._home.serve(held)
            with self._state_lock:
                old, self._held, self._beside = self._held, held, None
            if old is not None:
                self._generations.pop(old.name, None)
            self._retired = old
            self._cleared_at = time.monotonic() + GRACE_S
        log.info("the index that was made anew serves now")

    # ── merging ──────────────────────────────────────────────────────────────────────────────────

    def merge_some(self) -> bool:
        """Makes one segment of some, if that is worth it; whether it was."""
        with self._merge_lock:
            held = self._beside or self._held
            numbers = held.store.crowded() if held is not None else []
            if held is None or not numbers:
                return False
            merged = held.store.merged(numbers)
            with self._publish_lock:
                if held.name in self._generations:
                    self._set(held, held.store.take_up(merged))
        return True

    def _require(self) -> Held:
        if self._held is None:
            raise RuntimeError("the knowledge is not open")
        return self._held

    def _set(self, held: Held, generation: Generation) -> None:
        with self._state_lock:
            self._generations[held.name] = generation
