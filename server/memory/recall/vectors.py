"""Vectors of memories as they are stored: float32 bytes, b'' for a text in a language the embedder does not know.

Knows nothing of storage or indexes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.memory.recall.relevance import without_boilerplate
from server.relations import Relation
from server.types import Embedder


class MemoryEmbedder:
    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def fingerprint(self) -> str:
        return self._embedder.fingerprint

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    def embed_memories(self, texts: Sequence[str]) -> list[bytes]:
        known = [text for text in texts if self._embedder.knows(text)]
        vectors = iter(self._embedder.embed([without_boilerplate(text) for text in known]) if known else ())
        embedded = set(known)
        return [next(vectors).astype(np.float32).tobytes() if text in embedded else b"" for text in texts]

    def embed_query(self, text: str) -> NDArray[np.float32] | None:
        """[dimension], or None for a language that the embedder does not know."""
        return self._embedder.embed([text])[0] if self._embedder.knows(text) else None

    def likelihood(self, cosines: NDArray[np.float32], crossing: NDArray[np.bool_]) -> NDArray[np.float32]:
        """That memories with such cosines are about what is asked."""
        return self._embedder.likelihood(Relation.SUBJECT, cosines, crossing=crossing)
