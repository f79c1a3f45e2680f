"""What the engine knows of the adapters folder: which versions fit the model, and how each is shown.

Checks are cached by the files' signature, so each version is read once, in a worker thread. Knows
nothing of rows; asks the manager what is loaded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from server.engine.adapters.folders import AdapterCatalogue, AdapterFolder
from server.engine.adapters.manager import AdapterManager
from server.engine.adapters.reading import AdapterFacts, AdapterTarget, check_adapter
from server.engine.adapters.slots import SlotState
from server.errors import AdapterInvalid
from server.types import AdapterInfo, AdapterState

log = logging.getLogger("tailor.engine")

_UNCHECKED = "not checked yet"


class ResolvedAdapter(NamedTuple):
    """A version that fits, and the bytes of its tensors in memory."""

    folder: AdapterFolder
    bytes: int


class AdapterRegistry:
    """Safe from any thread. `infos` and `info` never read an adapter; `resolve` and `scan` may."""

    def __init__(self, catalogue: AdapterCatalogue, target: AdapterTarget, manager: AdapterManager) -> None:
        self._catalogue = catalogue
        self._target = target
        self._manager = manager
        self._lock = threading.Lock()
        self._checked: dict[object, AdapterFacts | AdapterInvalid] = {}  # by a folder's key
        self._seen: set[object] = set()
        self._checker = ThreadPoolExecutor(1, "tailor-adapter-check")

    def resolve(self, spec: str) -> ResolvedAdapter:
        """The newest valid version that `name` or `name@version` can mean. Blocks for a version never seen.

        Raises AdapterNotFound, AdapterInvalid (with the newest one's reason; AdapterForeign for another base).
        """
        faults: list[AdapterInvalid] = []
        for folder in self._catalogue.find(spec):
            result = self._check(folder)
            if not isinstance(result, AdapterInvalid):
                return ResolvedAdapter(folder, result.bytes)
            faults.append(result)
        raise type(faults[0])(str(faults[0]))

    def close(self) -> None:
        self._checker.shutdown(wait=True, cancel_futures=True)

    def scan(self) -> list[ResolvedAdapter]:
        """Checks what is new in the folder, and gives the newest valid version of each new adapter. Blocks."""
        folders = self._catalogue.folders()
        fresh = {folder.key for folder in folders} - self._seen
        newest: dict[str, ResolvedAdapter] = {}
        for folder in folders:
            result = self._check(folder)
            if not isinstance(result, AdapterInvalid):
                newest.setdefault(folder.name, ResolvedAdapter(folder, result.bytes))
        self._seen = {folder.key for folder in folders}
        with self._lock:
            known = {folder.key for folder, *_ in self._manager.loaded()} | self._seen
            self._checked = {key: result for key, result in self._checked.items() if key in known}
        return [found for found in newest.values() if found.folder.key in fresh]

    def drop_superseded(self, by: Iterable[AdapterFolder] = ()) -> None:
        """Frees the unused slots of files that are gone or changed, and of versions older than those in `by`."""
        order = {folder.key: position for position, folder in enumerate(self._catalogue.folders())}
        newest = {folder.name: order.get(folder.key, len(order)) for folder in by}

        def superseded(folder: AdapterFolder) -> bool:
            return folder.key not in order or order[folder.key] > newest.get(folder.name, len(order))

        self._manager.unload(superseded)

    # ── showing ──────────────────────────────────────────────────────────────────────────────────

    def infos(self) -> tuple[AdapterInfo, ...]:
        """The newest version of each adapter, the newest valid one, and any other that is loaded."""
        slots = self._manager.loaded()
        loaded = {folder.key for folder, *_ in slots}
        shown: dict[object, AdapterFolder] = {}
        newest: set[str] = set()
        valid: set[str] = set()
        for folder in self._catalogue.folders():
            known = self._known(folder)
            works = known is not None and not isinstance(known, AdapterInvalid)
            if folder.name not in newest or folder.key in loaded or (works and folder.name not in valid):
                shown[folder.key] = folder
            newest.add(folder.name)
            if works:
                valid.add(folder.name)
        for folder, *_ in slots:
            shown.setdefault(folder.key, folder)
        return tuple(self._info(folder, slots) for folder in shown.values())

    def info(self, folder: AdapterFolder) -> AdapterInfo:
        return self._info(folder, self._manager.loaded())

    def _info(self, folder: AdapterFolder, slots: Iterable[tuple[AdapterFolder, SlotState, int, float]]) -> AdapterInfo:
        known = self._known(folder)
        if isinstance(known, AdapterInvalid):
            return AdapterInfo(folder.name, folder.version, AdapterState.INVALID, str(known))
        if known is None:
            self._checker.submit(self._check, folder)
            return AdapterInfo(folder.name, folder.version, AdapterState.AVAILABLE, _UNCHECKED)
        state, users, last_used = AdapterState.AVAILABLE, 0, None
        for other, slot_state, slot_users, slot_last_used in slots:
            if other.key == folder.key:
                state = AdapterState.LOADED if slot_state is SlotState.LOADED else AdapterState.LOADING
                users, last_used = slot_users, time.time() - (time.monotonic() - slot_last_used)
        size = known.bytes if state is AdapterState.LOADED else 0
        return AdapterInfo(
            folder.name, folder.version, state, "", known.rank, known.modules, size, users, last_used, known.description
        )

    # ── checking ─────────────────────────────────────────────────────────────────────────────────

    def _known(self, folder: AdapterFolder) -> AdapterFacts | AdapterInvalid | None:
        if folder.problem:
            return AdapterInvalid(f"the adapter '{folder.name}' cannot be used: {folder.problem}")
        with self._lock:
            return self._checked.get(folder.key)

    def _check(self, folder: AdapterFolder) -> AdapterFacts | AdapterInvalid:
        known = self._known(folder)
        if known is not None:
            return known
        result: AdapterFacts | AdapterInvalid
        try:
            result = check_adapter(folder.path, self._target)
        except AdapterInvalid as error:
            result = error
        with self._lock:
            self._checked[folder.key] = result
        return result
