"""What every engine can do; the local one and, later, remote ones.

Safe to call from the event loop: nothing here computes on the caller's thread.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from typing import Protocol

from server.engine.stats import EngineStats
from server.types import (
    AdapterInfo,
    ChatTokenizer,
    EngineHealth,
    GenerationEvent,
    GenerationRequest,
    ModelCard,
)


class Engine(Protocol):
    @property
    def tokenizer(self) -> ChatTokenizer: ...

    @property
    def model(self) -> ModelCard: ...

    def announce_request(self) -> AbstractContextManager[None]:
        """Announces a request that is being prepared: an engine with nothing to do waits a moment for it before it
        begins with others. Open it early, close it when the first event has come."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """Events of one row: any number of Queued and TokenDelta, then one GenerationDone. A row that is
        preempted for older ones waits again, so that Queued may come after text, which continues where it was.

        The adapter is loaded on first use and kept while the row runs. Closing the iterator, or
        cancelling the task that reads it, frees the row before the model's next step.

        Raises InvalidInput (prompt over the context, broken constraint), AdapterNotFound,
        AdapterInvalid, AdapterInUse (no slot can be freed), EngineBusy, EngineDown.
        """

    async def load_adapter(self, name: str) -> AdapterInfo:
        """Loads `name` (its newest valid version) or `name@version`; a version that is loaded stays
        for the rows that use it and is replaced for new ones. Returns at once if it is loaded."""

    async def unload_adapter(self, name: str) -> None:
        """Frees the slot once no row uses it; new requests wait for nothing and load it afresh.

        Raises AdapterNotFound when it is not loaded, AdapterInUse when rows use it now.
        """

    def adapters(self) -> tuple[AdapterInfo, ...]:
        """Every adapter of the folder, newest version of each and any other that is loaded."""

    async def refresh_adapters(self) -> None:
        """Brings the list in step with the folder: new valid adapters are loaded while slots are free,
        and those whose folder is gone leave when no row uses them."""

    def health(self) -> EngineHealth: ...

    def stats(self) -> EngineStats: ...

    async def start(self) -> None: ...

    async def close(self) -> None:
        """Stops after the current step; rows that still run fail with EngineDown."""
