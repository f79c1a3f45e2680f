"""Decides which domain answers a message: the user's choice, else the chat's, else similarity to its routes.

A domain scores as its nearest route does. Similarity is the cosine of two embeddings where the embedder
knows the languages of both; elsewhere it is the cosine of their weighted character pairs, so that a Korean
message finds Korean routes with an English embedder. Below the threshold no domain matches, and the default
answers. Blocks while it embeds: call it off the event loop. Safe from any thread. Knows nothing of chats
or files.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.config import RouterSettings
from server.errors import NotFound
from server.prompting import Domain
from server.types import Embedder, RouteDecision, RouteHow, RouteScore
from server.words import fold, pairs

READ_CHARS = 2000  # of a message; what it is about comes near its beginning
MAX_INDEXES = 16  # users see different domains
INNER_PAIR_WEIGHT = 0.3  # of a pair that does not begin its word: in Korean, endings and particles

_NOT_WORD = re.compile(r"[\W_]+")
_Vector = NDArray[np.float32]
_Key = tuple[tuple[str, tuple[str, ...]], ...]


class ModelRouter:
    """`default` names the domain that answers when nothing else decides. Its own routes, if it has any,
    compete with the others'; it is still a fallback, so that small talk binds no chat to it."""

    def __init__(self, embedder: Embedder, settings: RouterSettings, default: str) -> None:
        self._embedder = embedder
        self._threshold = settings.threshold
        self._default = default
        self._lock = threading.Lock()
        self._indexes: OrderedDict[_Key, _RouteIndex] = OrderedDict()

    def decide(
        self, text: str, domains: Sequence[Domain], *, chosen: str | None = None, sticky: str | None = None
    ) -> RouteDecision:
        """The domain for `text` among `domains`, and why; candidates best first.

        Raises NotFound when `chosen` is not among them. A `sticky` domain that is gone is passed over.
        """
        names = {domain.name for domain in domains}
        if chosen is not None:
            if chosen not in names:
                raise NotFound(f"there is no domain '{chosen}'; there are {', '.join(sorted(names))}")
            return RouteDecision(chosen, RouteHow.CHOSEN, None, self._threshold)
        if sticky is not None and sticky in names:
            return RouteDecision(sticky, RouteHow.STICKY, None, self._threshold)
        candidates = self._scores(text[:READ_CHARS].strip(), domains)
        best = candidates[0] if candidates else None
        if best is not None and best.score >= self._threshold and best.domain != self._default:
            return RouteDecision(best.domain, RouteHow.SIMILAR, best.score, self._threshold, candidates)
        return RouteDecision(self._default, RouteHow.FALLBACK, None, self._threshold, candidates)

    def _scores(self, text: str, domains: Sequence[Domain]) -> tuple[RouteScore, ...]:
        key = tuple((domain.name, domain.routes) for domain in domains if domain.routes)
        if not text or not key:
            return ()
        index = self._index_of(key)
        vector = self._embedder.embed([text])[0] if self._embedder.knows(text) else None
        pairs = index.weighted(text)
        best = [index.nearest(name, pairs, vector) for name, _ in key]
        return tuple(sorted(best, key=lambda each: (-each.score, each.domain)))

    def _index_of(self, key: _Key) -> _RouteIndex:
        """Of each set of domains that users may see; made anew when any of their routes change. A route that was
        embedded keeps its vector."""
        with self._lock:
            if key in self._indexes:
                self._indexes.move_to_end(key)
                return self._indexes[key]
            known = {route: vector for index in self._indexes.values() for route, vector in index.vectors.items()}
        routes = dict.fromkeys(route for _, routes in key for route in routes)
        vectors: dict[str, _Vector | None] = {route: known.get(route) for route in routes}
        new = [route for route in routes if route not in known and self._embedder.knows(route)]
        if new:
            vectors.update(zip(new, self._embedder.embed(new), strict=True))
        index = _RouteIndex(key, vectors)
        with self._lock:
            self._indexes[key] = index
            if len(self._indexes) > MAX_INDEXES:
                self._indexes.popitem(last=False)
        return index


# ── similarity ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _PairVector:
    """A sparse vector of weighted character pairs."""

    weights: dict[str, float]
    norm: float

    def cosine(self, other: _PairVector) -> float:
        shared = sum(weight * other.weights.get(pair, 0.0) for pair, weight in self.weights.items())
        norm = self.norm * other.norm
        return shared / norm if norm else 0.0


class _RouteIndex:
    """All routes of a set of domains; immutable. `vectors` holds None for routes foreign to the embedder."""

    def __init__(self, key: _Key, vectors: dict[str, _Vector | None]) -> None:
        self.key = key
        self.vectors = vectors
        self._routes = dict(key)
        self._domain_counts = Counter(
            pair for _, routes in key for pair in {pair for route in routes for pair, _ in _character_pairs(route)}
        )
        self._pairs = {route: self.weighted(route) for route in vectors}

    def nearest(self, domain: str, pairs: _PairVector, vector: _Vector | None) -> RouteScore:
        scores = []
        for route in self._routes[domain]:
            route_vector = self.vectors[route]
            if vector is not None and route_vector is not None:
                score = float(np.dot(route_vector, vector))
            else:
                score = pairs.cosine(self._pairs[route])
            scores.append(RouteScore(domain, score, route))
        return max(scores, key=lambda each: each.score)

    def weighted(self, text: str) -> _PairVector:
        """A pair that routes of many domains hold ('해줘', '나요') tells little, as in inverse document
        frequency (Spärck Jones, 1972); one that no route holds counts like one that a single domain has."""
        counts: dict[str, float] = {}
        for pair, position in _character_pairs(text):
            counts[pair] = counts.get(pair, 0.0) + (1.0 if position == 0 else INNER_PAIR_WEIGHT)
        max_idf = math.log(len(self.key) + 1)
        weights = {
            pair: count * (max_idf - math.log(max(1, self._domain_counts[pair]))) / max_idf
            for pair, count in counts.items()
        }
        return _PairVector(weights, math.sqrt(sum(weight**2 for weight in weights.values())))


def _character_pairs(text: str) -> list[tuple[str, int]]:
    """(two neighbouring characters of a word, their position in it), in one case and one Unicode form."""
    words = _NOT_WORD.split(fold(text))
    return [(pair, at) for word in words if word for at, pair in enumerate(pairs(word))]
