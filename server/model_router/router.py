"""Decides which domain answers a message: the user's choice, else what the message belongs to.

What counts (`choice_model.py`): how likely a domain's nearest route is about the same as the message, by the embedder
where it knows the languages of both, elsewhere by the cosine of their weighted character pairs, so that a Korean text
finds Korean routes with an English embedder; how likely its files answer; and which domain answered the message before.
Where none is likely, the default answers. Blocks while it embeds: call it off the event loop. Safe from any thread.
Knows nothing of chats or files.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.config import RouterSettings
from server.errors import NotFound
from server.model_router.choice_model import DomainEvidence, Message, default_columns, domain_columns, posterior
from server.prompting import Domain
from server.relations import Relation
from server.types import Embedder, RouteDecision, RouteHow, RouteScore
from server.words import detect_script, fold, pairs

READ_CHARS = 2000  # of a message; what it is about comes near its beginning
MAX_INDEXES = 16  # users see different domains
PAIR_ODDS = (12.0, -4.0)  # log odds over the cosine of character pairs: even at a third
INNER_PAIR_WEIGHT = 0.3  # of a pair that does not begin its word: in Korean, endings and particles

_NOT_WORD = re.compile(r"[\W_]+")
_Vector = NDArray[np.float32]
_Key = tuple[tuple[str, tuple[str, ...]], ...]


class ModelRouter:
    """`default` names the domain that answers what belongs to no other; its own routes say what that is."""

    def __init__(self, embedder: Embedder, settings: RouterSettings, default: str) -> None:
        self._embedder = embedder
        self._min_likelihood = settings.min_likelihood
        self._default = default
        self._lock = threading.Lock()
        self._indexes: OrderedDict[_Key, _RouteIndex] = OrderedDict()

    def decide(
        self,
        text: str,
        domains: Sequence[Domain],
        *,
        chosen: str | None = None,
        last: str | None = None,
        relevance: Mapping[str, float] | None = None,
    ) -> RouteDecision:
        """The domain for `text` among `domains`, and why; candidates best first.

        `last` answered the message before; one that is gone is passed over. `relevance`: by folder of knowledge, how
        likely it answers; without it a domain that was chosen is not compared. Raises NotFound when `chosen` is not
        among the domains.
        """
        names = {domain.name for domain in domains}
        if chosen is not None and chosen not in names:
            raise NotFound(f"there is no domain '{chosen}'; there are {', '.join(sorted(names))}")
        if chosen is not None and relevance is None:
            return RouteDecision(chosen, RouteHow.CHOSEN, None, self._min_likelihood)
        text = text[:READ_CHARS].strip()
        found = self.evidence(text, domains, relevance or {})
        message, default_route = Message.of(text), found.pop(self._default)
        return self._decided(message, found, default_route, chosen, chosen or last)

    def evidence(
        self, text: str, domains: Sequence[Domain], relevance: Mapping[str, float]
    ) -> dict[str, tuple[DomainEvidence, str]]:
        """By domain: what speaks for it, and its nearest route. Of those with routes or files, and of the default."""
        routes = self._routes(text, domains)
        found = {self._default: (DomainEvidence(), "")}
        for domain in domains:
            score, route = routes.get(domain.name, (None, ""))
            files = [relevance[folder] for folder in domain.knowledge if folder in relevance]
            if domain.routes or files or domain.name == self._default:
                found[domain.name] = DomainEvidence(score, max(files) if files else None), route
        return found

    def _decided(
        self,
        message: Message,
        found: Mapping[str, tuple[DomainEvidence, str]],
        default: tuple[DomainEvidence, str],
        chosen: str | None,
        last: str | None,
    ) -> RouteDecision:
        scores, none = self._posterior(message, found, default, last)
        named = [RouteScore(name, score, found[name][1]) for name, score in scores.items()]
        named.append(RouteScore(self._default, none, default[1]))
        candidates = tuple(sorted(named, key=lambda each: (-each.score, each.domain)))
        threshold = self._min_likelihood
        if chosen is not None:
            score = scores.get(chosen)
            belongs = chosen == self._default or (score is not None and score >= none)
            return RouteDecision(chosen, RouteHow.CHOSEN, score, threshold, candidates, belongs)
        best = min(scores, key=lambda name: (-scores[name], name), default=None)
        if best is not None and 1 - none >= threshold:
            how = RouteHow.SIMILAR
            if best == last and 1 - self._posterior(message, found, default, None)[1] < threshold:
                how = RouteHow.STICKY
            return RouteDecision(best, how, scores[best], threshold, candidates)
        how = RouteHow.SIMILAR if (default[0].route or 0.0) >= threshold else RouteHow.FALLBACK
        return RouteDecision(self._default, how, none, threshold, candidates)

    def _posterior(
        self,
        message: Message,
        found: Mapping[str, tuple[DomainEvidence, str]],
        default: tuple[DomainEvidence, str],
        last: str | None,
    ) -> tuple[dict[str, float], float]:
        columns = [domain_columns(message, evidence, last=name == last) for name, (evidence, _) in found.items()]
        scores, none = posterior(columns, default_columns(message, default[0].route, last=last == self._default))
        return dict(zip(found, scores, strict=True)), none

    def _routes(self, text: str, domains: Sequence[Domain]) -> dict[str, tuple[float | None, str]]:
        """By domain: the likelihood of its nearest route, and that route."""
        key = tuple((domain.name, domain.routes) for domain in domains if domain.routes)
        if not text or not key:
            return {}
        index = self._index_of(key)
        vector = self._embedder.embed([text])[0] if self._embedder.knows(text) else None
        likelihoods = self._likelihoods(index, text, index.weighted(text), vector)
        return {name: index.best(name, likelihoods) for name, _ in key}

    def _likelihoods(
        self, index: _RouteIndex, text: str, pairs: _PairVector, vector: _Vector | None
    ) -> Mapping[str, float]:
        """Of each route."""
        script = detect_script(text)
        cosines = {route: index.cosine(route, vector) for route in index.vectors}
        known = [route for route, cosine in cosines.items() if cosine is not None]
        found = self._embedder.likelihood(
            Relation.SUBJECT,
            np.array([cosines[route] for route in known], np.float32),
            crossing=np.array([detect_script(route) != script for route in known], np.bool_),
        )
        slope, intercept = PAIR_ODDS
        by_pairs = {
            route: 1 / (1 + math.exp(-(slope * index.pair_cosine(route, pairs) + intercept)))
            for route, cosine in cosines.items()
            if cosine is None
        }
        return by_pairs | dict(zip(known, found.tolist(), strict=True))

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

    def cosine(self, route: str, vector: _Vector | None) -> float | None:
        """None where the embedder does not know both."""
        route_vector = self.vectors[route]
        return None if vector is None or route_vector is None else float(np.dot(route_vector, vector))

    def pair_cosine(self, route: str, pairs: _PairVector) -> float:
        return pairs.cosine(self._pairs[route])

    def best(self, domain: str, likelihoods: Mapping[str, float]) -> tuple[float, str]:
        route = max(self._routes[domain], key=lambda route: likelihoods[route])
        return likelihoods[route], route

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
