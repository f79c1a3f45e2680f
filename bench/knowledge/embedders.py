"""The embedder that is measured with, and a fast one that stands in for it where 100,000 vectors are needed.

Knows nothing of indexes or figures.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.relations import Reader, Relation, TextRole
from server.types import Embedder


class Remembering:
    """An embedder that embeds no text twice. `seconds` is how long this thread has waited for it so far."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: dict[tuple[TextRole, str], NDArray[np.float32]] = {}
        self._waited = threading.local()

    @property
    def seconds(self) -> float:
        return float(getattr(self._waited, "seconds", 0.0))

    @property
    def fingerprint(self) -> str:
        return self._embedder.fingerprint

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
        began = time.perf_counter()
        new = [text for text in dict.fromkeys(texts) if (role, text) not in self._known]
        if new:
            vectors = self._embedder.embed(new, role)
            self._known.update(((role, text), vector) for text, vector in zip(new, vectors, strict=True))
        vectors = np.array([self._known[role, text] for text in texts], np.float32).reshape(len(texts), self.dimension)
        self._waited.seconds = self.seconds + time.perf_counter() - began
        return vectors

    def answers(self, question: str, passages: Sequence[str]) -> NDArray[np.float32] | None:
        if not isinstance(self._embedder, Reader):
            return None
        began = time.perf_counter()
        odds = self._embedder.answers(question, passages)
        self._waited.seconds = self.seconds + time.perf_counter() - began
        return odds

    def count(self, text: str) -> int:
        return self._embedder.count(text)

    def knows(self, text: str) -> bool:
        return self._embedder.knows(text)

    def likelihood(
        self, relation: Relation, cosines: NDArray[np.float32], *, crossing: NDArray[np.bool_] | bool = False
    ) -> NDArray[np.float32]:
        return self._embedder.likelihood(relation, cosines, crossing=crossing)


class Fast:
    """Says that it is `embedder`, but makes its own vectors, at about 10,000 texts a second: each word has a random
    direction, and so has each of 256 subjects, one of which a text is about. So texts that share words are near, and
    vectors stand in clusters as real ones do. Tokens are counted as four letters each."""

    def __init__(self, embedder: Embedder) -> None:
        self.fingerprint = embedder.fingerprint
        self.dimension = embedder.dimension
        self._directions: dict[str, NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            words = text.lower().split()[:64]
            inside = np.sum([self._direction(word) for word in words], axis=0)
            subject = self._direction(f"\0{zlib.crc32(text[:40].encode()) % 256}")
            vectors[row] = inside / max(1.0, float(np.linalg.norm(inside))) + 0.6 * subject
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        return vectors

    def count(self, text: str) -> int:
        return len(text) // 4

    def knows(self, text: str) -> bool:
        return True

    def likelihood(
        self, relation: Relation, cosines: NDArray[np.float32], *, crossing: NDArray[np.bool_] | bool = False
    ) -> NDArray[np.float32]:
        return np.clip(cosines, 0, 1)

    def _direction(self, word: str) -> NDArray[np.float32]:
        if word not in self._directions:
            drawn = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(self.dimension, np.float32)
            self._directions[word] = drawn / np.float32(np.linalg.norm(drawn))
        return self._directions[word]
