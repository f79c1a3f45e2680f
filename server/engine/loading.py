"""Reads adapters in a thread of its own, so that no running answer waits for a disk.

Knows nothing of rows or of where the weights go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from server.engine.catalogue import AdapterFolder
from server.engine.lora import AdapterTarget, LoraPair, read_adapter
from server.engine.slots import Slot
from server.errors import AdapterError, AdapterInvalid

log = logging.getLogger("tailor.engine")

Pairs = Mapping[str, LoraPair]
Arrived = tuple[Slot, Pairs | AdapterError]


class AdapterLoader:
    """`finish` completes what was read with what must be computed from the base, on the reader's thread; `arrived`
    is called there with each result."""

    def __init__(
        self, target: AdapterTarget, finish: Callable[[Pairs], Pairs], arrived: Callable[[Arrived], None]
    ) -> None:
        self._target = target
        self._finish = finish
        self._arrived = arrived
        self._reader = ThreadPoolExecutor(1, "tailor-adapters")

    def start(self, slot: Slot) -> None:
        self._reader.submit(self._load, slot)

    def close(self) -> None:
        self._reader.shutdown(wait=True, cancel_futures=True)

    def _load(self, slot: Slot) -> None:
        self._arrived((slot, self._read(slot.folder)))

    def _read(self, folder: AdapterFolder) -> Pairs | AdapterError:
        try:
            return self._finish(read_adapter(folder.path, self._target)[1])
        except AdapterInvalid as error:
            return error
        except Exception as error:  # a worker's outermost edge: a row must never wait for ever
            log.error("reading an adapter failed", exc_info=error)
            return AdapterInvalid(f"the adapter {folder.name} cannot be read: {error}")
