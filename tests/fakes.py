"""Fakes of the heavy parts, where a test is not about them: each behaves, none returns a canned truth.

`WordEmbedder` is a bag of hashed words, so texts that share words are near. `ByteTokenizer` is a real
tokenizer over UTF-8 bytes with ChatML marks. `ScriptedEngine` answers by a function of the request.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from server.errors import AdapterForeign, AdapterNotFound, EngineDown
from server.relations import Relation, TextRole
from server.types import (
    AdapterInfo,
    AdapterState,
    EngineHealth,
    FinishReason,
    GenerationDone,
    GenerationEvent,
    GenerationRequest,
    Message,
    ModelCard,
    TokenDelta,
    Usage,
)

if TYPE_CHECKING:
    from server.engine import EngineStats


class WordEmbedder:
    """Unit vectors of hashed words; texts without a common word are orthogonal (but for collisions)."""

    fingerprint = "words-1"
    dimension = 512

    def __init__(self) -> None:
        self.embedded = 0  # texts embedded so far

    def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
        self.embedded += len(texts)
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                vectors[row, int(hashlib.sha256(word.encode()).hexdigest(), 16) % self.dimension] += 1
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(norms == 0, 1, norms)

    def count(self, text: str) -> int:
        return len(re.findall(r"\w+|[^\w\s]", text))

    def knows(self, text: str) -> bool:
        return text.isascii()

    def likelihood(
        self, relation: Relation, cosines: NDArray[np.float32], *, crossing: NDArray[np.bool_] | bool = False
    ) -> NDArray[np.float32]:
        """Of answers even at .375, since words of grammar alone make two texts as near; of subjects at a quarter."""
        slope, even = (40, 0.375) if relation is Relation.ANSWER else (24, 0.25)
        return (1 / (1 + np.exp(-slope * (np.asarray(cosines, np.float64) - even)))).astype(np.float32)


class ByteTokenizer:
    """A token is a UTF-8 byte; 256 opens a message, 257 ends it."""

    START, END = 256, 257

    def render(self, messages: Sequence[Message], *, generate: bool = True) -> list[int]:
        ids: list[int] = []
        for message in messages:
            ids += [self.START, *self.encode(f"{message.role}\n{message.content}"), self.END]
        return [*ids, self.START, *self.encode("assistant\n")] if generate else ids

    def answer(self, text: str) -> list[int]:
        return [*self.encode(text), self.END]

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def count(self, text: str) -> int:
        return len(text.encode())


class ScriptedEngine:
    """Streams `script(request, prompt text)` word by word. `pause` seconds pass between words.

    A test sets `down` to a reason, and the engine has failed until it is emptied.
    """

    def __init__(
        self,
        script: Callable[[GenerationRequest, str], str] = lambda request, prompt: "All right.",
        *,
        adapters: Sequence[str] = (),
        foreign: Sequence[str] = (),
        context_length: int = 8192,
        pause: float = 0.0,
    ) -> None:
        self.script = script
        self.pause = pause
        self.tokenizer = ByteTokenizer()
        self.requests: list[GenerationRequest] = []
        self.expected = 0
        self.announced: list[int] = []  # at each request: how many were expected
        self.cancelled = 0
        self.finished = 0
        self.failed = 0
        self.running = 0
        self.completion_tokens = 0
        self.down = ""
        self._foreign = tuple(foreign)
        self._adapters = dict.fromkeys(adapters, AdapterState.AVAILABLE)
        self.model = ModelCard("scripted", "scripted-1", "cpu", "float32", "a test", "script", context_length, 0)

    @contextmanager
    def announce_request(self) -> Iterator[None]:
        self.expected += 1
        try:
            yield
        finally:
            self.expected -= 1

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        if self.down:
            self.failed += 1
            raise EngineDown(self.down)
        if request.adapter is not None:
            await self.load_adapter(request.adapter)
        self.requests.append(request)
        self.announced.append(self.expected)
        text = self.script(request, self.tokenizer.decode(request.prompt))
        words = re.findall(r"\s*\S+\s*$|\s*\S+", text)
        sent = 0
        finished = False
        self.running += 1
        try:
            for word in words:
                await asyncio.sleep(self.pause)
                if sent == request.sampling.max_tokens:
                    break
                sent += 1
                self.completion_tokens += 1
                yield TokenDelta(word, 1)
            reason = FinishReason.STOP if sent == len(words) else FinishReason.LENGTH
            finished = True
            yield GenerationDone(reason, Usage(len(request.prompt), sent, 0, 0.0, self.pause, self.pause * sent))
        finally:
            self.running -= 1
            self.finished += finished
            self.cancelled += not finished

    async def load_adapter(self, name: str) -> AdapterInfo:
        bare = name.partition("@")[0]
        if bare in self._foreign:
            raise AdapterForeign(f"the adapter '{name}' was trained for another base model")
        if bare not in self._adapters:
            raise AdapterNotFound(f"no adapter '{name}'")
        self._adapters[bare] = AdapterState.LOADED
        return AdapterInfo(bare, "1", AdapterState.LOADED)

    async def unload_adapter(self, name: str) -> None:
        if self._adapters.get(name) is not AdapterState.LOADED:
            raise AdapterNotFound(f"adapter '{name}' is not loaded")
        self._adapters[name] = AdapterState.AVAILABLE

    def adapters(self) -> tuple[AdapterInfo, ...]:
        return tuple(AdapterInfo(name, "1", state) for name, state in self._adapters.items())

    async def refresh_adapters(self) -> None: ...

    def health(self) -> EngineHealth:
        return EngineHealth(not self.down, self.running, 0, self.down)

    def stats(self) -> EngineStats:
        from server.engine import EngineStats  # it brings torch, which most tests do without

        return EngineStats(
            running=self.running,
            max_batch=16,
            waiting=0,
            max_waiting=256,
            kv_bytes=0,
            max_kv_bytes=2**31,
            prefix_bytes=0,
            max_prefix_bytes=2**30,
            adapters=sum(state is AdapterState.LOADED for state in self._adapters.values()),
            max_adapters=8,
            adapter_bytes=0,
            max_adapter_bytes=2**30,
            max_per_user=64,
            max_tokens=4096,
            prompt_tokens=sum(len(request.prompt) for request in self.requests),
            completion_tokens=self.completion_tokens,
            finished=self.finished,
            cancelled=self.cancelled,
            failed=self.failed,
        )

    async def start(self) -> None: ...

    async def close(self) -> None: ...
