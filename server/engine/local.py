"""The engine that runs in this process: asyncio in front, the model thread behind.

Resolves adapter names, checks requests, and turns a row's events into an async generator. Knows nothing of chats,
HTTP or how a step is planned.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from contextlib import AbstractContextManager

from server.config import EngineSettings, ModelSettings
from server.engine.adapters.folders import AdapterCatalogue
from server.engine.adapters.registry import AdapterRegistry, ResolvedAdapter
from server.engine.model.loading import choose_placement
from server.engine.model.tokenizer import ModelTokenizer
from server.engine.runtime import Runtime, build_runtime
from server.engine.sampling.constraint import ConstraintCompiler, GrammarMask
from server.engine.sampling.detokenize import TextStream
from server.engine.sampling.sampler import Sampler, check_sampling
from server.engine.scheduling.model_thread import ModelThread
from server.engine.scheduling.row import Emit, Row
from server.engine.stats import EngineStats
from server.errors import AdapterInUse, AdapterInvalid, AdapterNotFound, EngineBusy, EngineDown, InvalidInput
from server.types import (
    AdapterInfo,
    Constraint,
    EngineHealth,
    GenerationDone,
    GenerationEvent,
    GenerationRequest,
    ModelCard,
)

log = logging.getLogger("tailor.engine")

_COMPILE_WAIT_S = 20.0  # that a request waits for its output format to be compiled


class LocalEngine:
    """Implements `Engine` for any causal language model that transformers loads."""

    def __init__(
        self, model_path: str, settings: EngineSettings, model_settings: ModelSettings, adapters: AdapterCatalogue
    ) -> None:
        self._model_path = model_path
        self._settings = settings
        self._model_settings = model_settings
        self._catalogue = adapters
        self._thread: threading.Thread | None = None
        self._runtime: Runtime | None = None
        self._model_thread: ModelThread | None = None
        self._outbox: Outbox | None = None
        self._registry: AdapterRegistry | None = None
        self._ids = itertools.count(1)

    # ── life ─────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Loads the model on the model thread. Raises ModelError."""
        ready: Future[ModelThread] = Future()
        outbox = self._outbox = Outbox(asyncio.get_running_loop())
        self._thread = threading.Thread(target=self._serve, args=(ready, outbox), name="tailor-model", daemon=True)
        self._thread.start()
        self._model_thread = await asyncio.wrap_future(ready)
        manager = self._model_thread.adapter_manager
        self._registry = AdapterRegistry(self._catalogue, self._require_runtime().target, manager)
        await asyncio.to_thread(self._registry.scan)  # what is there now is loaded on first use
        card = self.model
        log.debug("%s runs on %s in %s (%s); %s", card.id, card.device, card.dtype, card.reason, card.path)

    async def close(self) -> None:
        if self._model_thread is not None and self._thread is not None:
            self._model_thread.stop()
            await asyncio.to_thread(self._thread.join)
        if self._registry is not None:
            await asyncio.to_thread(self._registry.close)
        if self._runtime is not None:
            self._runtime.compiler.close()

    def _serve(self, ready: Future[ModelThread], outbox: Outbox) -> None:
        try:
            settings = self._settings.on(choose_placement(self._model_settings).device)
            self._runtime = build_runtime(self._model_path, settings, self._model_settings)
            model_thread = ModelThread(self._runtime, settings, outbox.flush)
        except BaseException as error:  # noqa: BLE001  edge of the thread: start() raises it
            ready.set_exception(error)
            return
        ready.set_result(model_thread)
        model_thread.serve()

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    @property
    def tokenizer(self) -> ModelTokenizer:
        return self._require_runtime().tokenizer

    @property
    def model(self) -> ModelCard:
        return self._require_runtime().card

    def health(self) -> EngineHealth:
        if self._model_thread is None:
            return EngineHealth(False, 0, 0, "the model is not loaded yet")
        return self._model_thread.health()

    def stats(self) -> EngineStats:
        return self._require_model_thread().stats()

    def adapters(self) -> tuple[AdapterInfo, ...]:
        return self._require_registry().infos()

    def check_integrity(self) -> None:
        """Raises ValueError when the engine's bookkeeping contradicts itself."""
        self._require_model_thread().check_integrity()

    # ── generating ───────────────────────────────────────────────────────────────────────────────

    def announce_request(self) -> AbstractContextManager[None]:
        return self._require_model_thread().batch_window.announce_request()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """See `Engine.generate`. `max_tokens` is cut to the setting and to what the context leaves."""
        submitted_at = time.monotonic()
        model_thread, runtime = self._require_model_thread(), self._require_runtime()
        self._check(request, runtime)
        registry = self._require_registry()
        adapter = await asyncio.to_thread(registry.resolve, request.adapter) if request.adapter else None
        mask = await _mask(runtime.compiler, request.constraint) if request.constraint else None
        events: asyncio.Queue[GenerationEvent | Exception] = asyncio.Queue()
        assert self._outbox is not None  # narrows a type: start() has made it
        row = self._row(request, runtime, adapter, mask, self._outbox.emitter(events), submitted_at)
        model_thread.submit(row)
        try:
            while True:
                event = await events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, GenerationDone):
                    return
        finally:
            model_thread.cancel(row)

    def _check(self, request: GenerationRequest, runtime: Runtime) -> None:
        """Raises InvalidInput."""
        check_sampling(request.sampling, runtime.vocabulary)
        prompt, context = request.prompt, runtime.card.context_length
        if not prompt:
            raise InvalidInput("the prompt is empty")
        if len(prompt) >= context:
            raise InvalidInput(f"the prompt has {len(prompt)} tokens and the context {context}: no room for an answer")
        if min(prompt) < 0 or max(prompt) >= runtime.vocabulary:
            raise InvalidInput(f"the prompt holds a token that is not one of 0 to {runtime.vocabulary - 1}")

    def _row(
        self,
        request: GenerationRequest,
        runtime: Runtime,
        adapter: ResolvedAdapter | None,
        mask: GrammarMask | None,
        emit: Emit,
        submitted_at: float,
    ) -> Row:
        sampling, tokenizer = request.sampling, runtime.tokenizer
        max_tokens = min(
            sampling.max_tokens, self._settings.max_tokens, runtime.card.context_length - len(request.prompt)
        )
        return Row(
            id=next(self._ids),
            prompt=request.prompt,
            max_tokens=max_tokens,
            user=request.user_id,
            folder=adapter.folder if adapter is not None else None,
            adapter_bytes=adapter.bytes if adapter is not None else 0,
            sampler=Sampler(sampling, request.prompt, mask),
            text=TextStream(tokenizer.decode, (*sampling.stop, *tokenizer.stop_texts)),
            emit=emit,
            submitted_at=submitted_at,
            mask=mask,
            logprobs=sampling.logprobs is not None,
        )

    # ── adapters ─────────────────────────────────────────────────────────────────────────────────

    async def load_adapter(self, name: str) -> AdapterInfo:
        registry, adapter_manager = self._require_registry(), self._require_model_thread().adapter_manager
        folder, size = await asyncio.to_thread(registry.resolve, name)
        await asyncio.wrap_future(adapter_manager.load(folder, size))
        registry.drop_superseded(by=() if "@" in name else (folder,))
        return registry.info(folder)

    async def unload_adapter(self, name: str) -> None:
        bare, _, version = name.partition("@")
        dropped, used = self._require_model_thread().adapter_manager.unload(
            lambda folder: folder.name == bare and (not version or folder.version == version)
        )
        if used:
            raise AdapterInUse(f"adapter '{name}' is used by running answers: wait for them to end, or stop them")
        if not dropped:
            raise AdapterNotFound(f"adapter '{name}' is not loaded")

    async def refresh_adapters(self) -> None:
        """Brings the slots in step with the folder: adapters that are new there are loaded while slots are
        free, those that are gone or replaced leave once unused. Cheap when nothing has changed."""
        registry, adapter_manager = self._require_registry(), self._require_model_thread().adapter_manager
        loaded = []
        for folder, size in await asyncio.to_thread(registry.scan):
            try:
                if adapter_manager.free_slots() or adapter_manager.has(folder):
                    await asyncio.wrap_future(adapter_manager.load(folder, size))
                    loaded.append(folder)
            except (AdapterInUse, AdapterInvalid) as error:
                log.warning("a new adapter is not loaded: %s", error)
        registry.drop_superseded(by=loaded)

    # ── states ───────────────────────────────────────────────────────────────────────────────────

    def _require_runtime(self) -> Runtime:
        if self._runtime is None:
            raise EngineDown("the model is not loaded yet")
        return self._runtime

    def _require_model_thread(self) -> ModelThread:
        if self._model_thread is None:
            raise EngineDown("the model is not loaded yet")
        return self._model_thread

    def _require_registry(self) -> AdapterRegistry:
        if self._registry is None:
            raise EngineDown("the model is not loaded yet")
        return self._registry


async def _mask(compiler: ConstraintCompiler, constraint: Constraint) -> GrammarMask:
    """Raises InvalidInput, EngineBusy."""
    compiling = asyncio.wrap_future(compiler.compile(constraint))
    try:
        async with asyncio.timeout(_COMPILE_WAIT_S):
            return compiler.fresh(await asyncio.shield(compiling))  # others may wait for it, too
    except TimeoutError as error:
        raise EngineBusy(f"the output format was not ready within {_COMPILE_WAIT_S:g} s: try again") from error


class Outbox:
    """Takes a step's events from the model thread to the reader's event loop, all at once: a loop that is woken for
    each token would take the processor from the model as often."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: list[tuple[asyncio.Queue[GenerationEvent | Exception], GenerationEvent | Exception]] = []

    def emitter(self, events: asyncio.Queue[GenerationEvent | Exception]) -> Emit:
        """Puts what it is given into that queue at the next flush."""
        return lambda event: self._events.append((events, event))

    def flush(self) -> None:
        """On the model thread, after each step."""
        if not self._events:
            return
        events, self._events = self._events, []
        try:
            self._loop.call_soon_threadsafe(_deliver, events)
        except RuntimeError:  # the loop is closed: there is no reader any more
            log.debug("events came after their reader's loop had closed")


def _deliver(events: list[tuple[asyncio.Queue[GenerationEvent | Exception], GenerationEvent | Exception]]) -> None:
    for queue, event in events:
        queue.put_nowait(event)
