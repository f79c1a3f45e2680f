"""The adapters in memory: loads and unloads them beside running answers.

Any thread may ask for one. It is read on a thread of its own, and between two steps the model thread copies it into the
LoRA stacks, or clears what was dropped. Shares the engine's lock. Knows nothing of rows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from server.config import EngineSettings
from server.engine.adapters.folders import AdapterFolder
from server.engine.adapters.installing import Installation
from server.engine.adapters.loader import AdapterLoader, LoadResult
from server.engine.adapters.lora_layers import LoraBank
from server.engine.adapters.reading import AdapterTarget
from server.engine.adapters.slots import Slot, SlotState, SlotTable
from server.errors import AdapterError, AdapterInUse, AdapterInvalid

log = logging.getLogger("tailor.engine")


class _LoadFailed(Exception):
    def __init__(self, slot: Slot, error: AdapterError) -> None:
        super().__init__(str(error))
        self.slot, self.error = slot, error


class AdapterManager:
    """`clear_dropped` and `install` are for the model thread, all else for any; who reads `slots` holds `changed`."""

    def __init__(
        self, bank: LoraBank, target: AdapterTarget, settings: EngineSettings, changed: threading.Condition
    ) -> None:
        self.slots = SlotTable(settings.max_loras, settings.adapter_bytes)
        self._changed = changed
        self._bank = bank
        self._loader = AdapterLoader(target, bank.pack, self._on_result)
        self._results: list[LoadResult] = []
        self._installing: tuple[Slot, Installation] | None = None

    # ── for any thread ───────────────────────────────────────────────────────────────────────────

    def load(self, folder: AdapterFolder, size: int) -> Future[None]:
        """Done when the adapter of `size` bytes is in a slot. Raises AdapterInUse at once when no slot can be
        freed, AdapterInvalid when it could never fit."""
        done: Future[None] = Future()
        with self._changed:
            now = time.monotonic()
            slot = self.slots.reserve(folder, size, now)
            if slot is None:
                used = ", ".join(sorted(f"{other.folder.name}@{other.folder.version}" for other in self.slots))
                raise AdapterInUse(
                    f"no adapter slot can be freed, running answers use them ({used}): wait for one to "
                    "end, or raise engine.max_loras or engine.adapter_bytes"
                )
            if slot.state is SlotState.LOADED:
                done.set_result(None)
                return done
            slot.waiters.append(done)
            if not slot.reading:
                slot.reading = True
                self.read(slot)
        return done

    def unload(self, matches: Callable[[AdapterFolder], bool]) -> tuple[int, int]:
        """Drops the matching slots that nobody uses: (how many, how many stay because they are in use)."""
        with self._changed:
            matching = [slot for slot in self.slots if matches(slot.folder)]
            free = [slot for slot in matching if not slot.users and slot.state is SlotState.LOADED]
            for slot in free:
                self.slots.drop(slot)
            self._changed.notify()
            return len(free), len(matching) - len(free)

    def loaded(self) -> list[tuple[AdapterFolder, SlotState, int, float]]:
        """(folder, state, rows that use it, last use by the monotonic clock) of each slot."""
        with self._changed:
            return [(slot.folder, slot.state, slot.users, slot.last_used) for slot in self.slots]

    def has(self, folder: AdapterFolder) -> bool:
        """Whether exactly these files are in a slot, or being loaded."""
        with self._changed:
            return self.slots.find(folder) is not None

    def free_slots(self) -> int:
        with self._changed:
            return self.slots.capacity - len(self.slots)

    def read(self, slot: Slot) -> None:
        """Begins to read the slot's files. The caller has set `slot.reading`."""
        self._loader.start(slot)

    def close(self) -> None:
        """Waits for the file that is being read."""
        self._loader.close()

    # ── between steps ────────────────────────────────────────────────────────────────────────────

    @property
    def has_pending(self) -> bool:
        """Whether there is something to clear or to install. The caller holds the lock."""
        return bool(self._results or self._installing or self.slots.dropped)

    def clear_dropped(self) -> list[int]:
        """Zeroes the weights of dropped slots; the ids of their loads."""
        with self._changed:
            dropped, self.slots.dropped = self.slots.dropped, []
            written = {slot.stack_index for slot in self.slots if slot.state is SlotState.LOADED}  # reused since
            if self._installing is not None:
                written.add(self._installing[0].stack_index)
        for stack_index in {slot.stack_index for slot in dropped} - written:
            self._bank.clear(stack_index)
        return [slot.id for slot in dropped]

    def install(self, *, beside_answers: bool) -> Iterator[tuple[Slot, AdapterError]]:
        """Copies those that were read into the stacks; beside answers one a step, or a part of it. Yields each load
        that failed, and why, as it does: the caller ends it, whatever becomes of the next."""
        while self._installing or self._results:
            try:
                done = self._advance(beside_answers=beside_answers)
            except _LoadFailed as failure:
                yield failure.slot, failure.error
                done = True
            if beside_answers or not done:
                return

    def _advance(self, *, beside_answers: bool) -> bool:
        """Whether the load that is at it, or the next one, is in place. Raises _LoadFailed."""
        if self._installing is None:
            with self._changed:
                slot, result = self._results.pop(0)
            if isinstance(result, AdapterError):
                raise _LoadFailed(slot, result)
            self._installing = slot, Installation(self._bank, slot.stack_index, result)
        slot, installation = self._installing
        try:
            if not installation.advance(beside_answers=beside_answers):
                return False
        except RuntimeError as error:  # a device without room for it, most of all
            self._installing = None
            log.error("installing an adapter failed", exc_info=error)
            refused = AdapterInvalid(f"the adapter {slot.folder.name} cannot be put in: {error}")
            raise _LoadFailed(slot, refused) from error
        self._installing = None
        with self._changed:
            self.slots.mark_loaded(slot)
        log.info("adapter %s@%s is loaded", slot.folder.name, slot.folder.version)
        return True

    def _on_result(self, result: LoadResult) -> None:
        """On the reader's thread."""
        with self._changed:
            self._results.append(result)
            self._changed.notify()
