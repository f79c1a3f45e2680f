"""Fits the weights of `server/model_router/choice_model.py`, and reports what the router does with those it has.

    python -m bench.router [--fit]

`data/` has five workspaces, written without sight of the router: domains with routes as an owner writes them, some with
files, chats of several topics, and first messages. Four are fitted with; "shop", whose domains and files are the ones
that ship, is reported on. A chat is run as the server would: each decision follows the router's own last one. With
`--fit` the weights are fitted anew and printed, and each of the four is also reported on with those of the others.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from server.config import RetrievalSettings, RouterSettings
from server.embedding import SentenceEmbedder
from server.model_router import (
    DEFAULT_COLUMNS,
    DOMAIN_COLUMNS,
    DomainEvidence,
    Message,
    ModelRouter,
    default_columns,
    domain_columns,
    posterior,
)
from server.model_store import ModelStore
from server.prompting import Domain, PromptLibrary
from server.retrieval import KnowledgeBase

ROOT: Final = Path(__file__).parents[2]
DATA: Final = Path(__file__).parent / "data"
FITTED: Final = ("clinic-desk", "dev-team", "hr-office", "travel-agency")
REPORTED: Final = "shop"
DEFAULT: Final = "general"
RIDGE: Final = 0.002
SHOP_AREAS: Final = {"support": "support-faq", "reviews": "review-sentiment", "logs": "log-parsing"}

Weights = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Turn:
    """`area`: the domain that it belongs to; the default where it belongs to none."""

    text: str
    area: str
    message: Message
    evidence: dict[str, DomainEvidence]


@dataclass
class Workspace:
    name: str
    chats: list[list[Turn]] = field(default_factory=list)
    first: list[list[Turn]] = field(default_factory=list)  # chats of one message


class Reader:
    """Reads a workspace, and what the router knows of each of its messages."""

    def __init__(self, embedder: SentenceEmbedder) -> None:
        self._embedder = embedder
        library = PromptLibrary(ROOT / "prompts", DEFAULT)
        self._shipped = library.domains()

    def read(self, name: str) -> Workspace:
        folder = DATA / name
        shop = name == REPORTED
        domains = self._shipped if shop else self._domains(json.loads((folder / "domains.json").read_text("utf-8")))
        router = ModelRouter(self._embedder, RouterSettings(), DEFAULT)
        with tempfile.TemporaryDirectory() as index:
            root = ROOT / "knowledge" if shop else folder / "knowledge"
            base = KnowledgeBase(root, Path(index), self._embedder, RetrievalSettings())
            base.sync()
            folders = sorted({one for domain in domains for one in domain.knowledge})

            def turn(record: dict[str, Any]) -> Turn:
                text, area = record["text"], _area(record, shop=shop)
                found = router.evidence(text, domains, base.relevance(text, folders))
                return Turn(text, area, Message.of(text), {one: evidence for one, (evidence, _) in found.items()})

            chats = [[turn(one) for one in record["turns"]] for record in _lines(folder / "chats.jsonl")]
            return Workspace(name, chats, [[turn(record)] for record in _lines(folder / "first.jsonl")])

    def _domains(self, records: list[dict[str, Any]]) -> list[Domain]:
        own = [
            Domain(
                one["name"], one["title"], "", "x", routes=tuple(one["routes"]),
                knowledge=(one["folder"],) if one["folder"] else (),
            )
            for one in records
        ]  # fmt: skip
        return [*own, *(domain for domain in self._shipped if domain.name == DEFAULT)]


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _area(record: dict[str, Any], *, shop: bool) -> str:
    if "sources_expected" in record:
        return SHOP_AREAS["support"] if record["sources_expected"] else DEFAULT
    area = record["area"]
    return DEFAULT if area == "none" else SHOP_AREAS[area] if shop else str(area)


# ── running ──────────────────────────────────────────────────────────────────────────────────────


def columns_of(turn: Turn, last: str | None) -> tuple[list[str], list[list[float]], list[float]]:
    """The domains but the default, their columns, and the default's, after an answer of `last`."""
    names = [name for name in turn.evidence if name != DEFAULT]
    columns = [domain_columns(turn.message, turn.evidence[name], last=name == last) for name in names]
    return names, columns, default_columns(turn.message, turn.evidence[DEFAULT].route, last=last == DEFAULT)


def decide(turn: Turn, last: str | None, weights: Weights | None) -> str:
    names, columns, default = columns_of(turn, last)
    scores, none = posterior(columns, default) if weights is None else posterior(columns, default, *weights)
    best = max(range(len(names)), key=scores.__getitem__)
    return names[best] if 1 - none >= RouterSettings().min_likelihood else DEFAULT


@dataclass
class Score:
    turns: int = 0
    right: int = 0
    switches: int = 0  # turns that belong elsewhere than the one before
    switched: int = 0
    stays: int = 0  # turns that belong where the one before did
    stayed: int = 0

    def line(self) -> str:
        def share(part: int, whole: int) -> str:
            return f"{part}/{whole} ({part / whole:.0%})" if whole else "-"

        return (
            f"right {share(self.right, self.turns)}, where the topic changes {share(self.switched, self.switches)}, "
            f"where it stays {share(self.stayed, self.stays)}"
        )


def run(chats: Iterable[list[Turn]], weights: Weights | None = None) -> Score:
    score = Score()
    for chat in chats:
        last = before = None
        for turn in chat:
            picked = decide(turn, last, weights)
            right = picked == turn.area
            score.turns += 1
            score.right += right
            if before is not None:
                changes = turn.area != before
                score.switches += changes
                score.switched += changes and right
                score.stays += not changes
                score.stayed += not changes and right
            last, before = picked, turn.area
    return score


# ── fitting ──────────────────────────────────────────────────────────────────────────────────────


def fit(chats: Iterable[list[Turn]]) -> Weights:
    """Maximum likelihood with a ridge, each turn after the right domain of the one before."""
    domains, defaults, wanted = _examples(chats)
    own = torch.zeros(len(DOMAIN_COLUMNS), dtype=torch.float64, requires_grad=True)
    none = torch.zeros(len(DEFAULT_COLUMNS), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([own, none], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = torch.stack(
            [
                torch.nn.functional.cross_entropy(torch.cat([rows @ own, (row @ none)[None]])[None], right)
                for rows, row, right in zip(domains, defaults, wanted, strict=True)
            ]
        ).mean()
        found = found + RIDGE * ((own**2).sum() + (none**2).sum())
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return _rounded(own), _rounded(none)


def _examples(chats: Iterable[list[Turn]]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    domains, defaults, wanted = [], [], []
    for chat in chats:
        last: str | None = None
        for turn in chat:
            names, rows, default = columns_of(turn, last)
            domains.append(torch.tensor(rows, dtype=torch.float64))
            defaults.append(torch.tensor(default, dtype=torch.float64))
            wanted.append(torch.tensor([names.index(turn.area) if turn.area != DEFAULT else len(names)]))
            last = turn.area
    return domains, defaults, wanted


def _rounded(weights: Tensor) -> list[float]:
    return [round(float(weight), 3) for weight in weights.detach()]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.router", description=__doc__.splitlines()[0])
    parser.add_argument("--fit", action="store_true", help="fit the weights anew and print them")
    options = parser.parse_args(arguments)
    embedder = SentenceEmbedder(ModelStore(ROOT / "data" / "models").embedder("multilingual-e5-small"))
    reader = Reader(embedder)
    spaces = {name: reader.read(name) for name in (*FITTED, REPORTED)}
    for name, space in spaces.items():
        print(f"{name:14} chats: {run(space.chats).line()}; first messages: {run(space.first).line()}")
    if not options.fit:
        return
    for name in FITTED:
        weights = fit(turns for other in FITTED if other != name for turns in spaces[other].chats + spaces[other].first)
        score, first = run(spaces[name].chats, weights), run(spaces[name].first, weights)
        print(f"{name:14} with the others' weights: {score.line()}; first messages: {first.line()}")
    own, none = fit(turns for name in FITTED for turns in spaces[name].chats + spaces[name].first)
    print("DOMAIN_WEIGHTS", dict(zip(DOMAIN_COLUMNS, own, strict=True)))
    print("DEFAULT_WEIGHTS", dict(zip(DEFAULT_COLUMNS, none, strict=True)))
    space = spaces[REPORTED]
    score, first = run(space.chats, (own, none)), run(space.first, (own, none))
    print(f"{REPORTED:14} with them: {score.line()}; first messages: {first.line()}")


if __name__ == "__main__":
    main()
