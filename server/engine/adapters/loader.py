"""Reads adapters in a thread of its own, so that no running answer waits for a disk, or for the processor.

Knows nothing of rows or of where the weights go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from server.background import background_worker
from server.engine.adapters.folders import AdapterFolder
from server.engine.adapters.lora_layers import PackedLora
from server.engine.adapters.reading import AdapterTarget, LoraPair, read_adapter
from server.engine.adapters.slots import Slot
from server.errors import AdapterError, AdapterInvalid

log = logging.getLogger("tailor.engine")

LoadResult = tuple[Slot, Mapping[str, PackedLora] | AdapterError]


class AdapterLoader:
    """`pack` brings what was read into the layout of the stacks, on the reader's thread; `on_result` is called there
    with each result."""

    def __init__(
        self,
        target: AdapterTarget,
        pack: Callable[[Mapping[str, LoraPair]], Mapping[str, PackedLora]],
        on_result: Callable[[LoadResult], None],
    ) -> None:
        self._target = target
        self._pack = pack
        self._on_result = on_result
        self._reader = background_worker("tailor-adapters")

    def start(self, slot: Slot) -> None:
        self._reader.submit(self._load, slot)

    def close(self) -> None:
        self._reader.shutdown(wait=True, cancel_futures=True)

    def _load(self, slot: Slot) -> None:
        self._on_result((slot, self._read(slot.folder)))

    def _read(self, folder: AdapterFolder) -> Mapping[str, PackedLora] | AdapterError:
        try:
            return self._pack(read_adapter(folder.path, self._target)[1])
        except AdapterInvalid as error:
            return error
        except Exception as error:  # edge of the thread's work: a row must never wait for ever
            log.error("reading an adapter failed", exc_info=error)
            return AdapterInvalid(f"the adapter {folder.name} cannot be read: {error}")
