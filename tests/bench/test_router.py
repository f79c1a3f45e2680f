"""The measure of the router: its data, and what it counts."""

from __future__ import annotations

import json

import pytest

from bench.router.__main__ import DATA, DEFAULT, FITTED, REPORTED, Score, Turn, _lines, decide, fit, run
from server.model_router import DomainEvidence, Message

PLAIN = Message(follow_up=False, explicit=False, courtesy=False, words=6)


def turn(area: str, **routes: float) -> Turn:
    evidence = {name: DomainEvidence(route, 0.5) for name, route in routes.items()}
    return Turn("text", area, PLAIN, {DEFAULT: DomainEvidence(0.3), **evidence})


@pytest.mark.parametrize("name", FITTED)
def test_each_workspace_is_whole(name: str) -> None:
    domains = json.loads((DATA / name / "domains.json").read_text(encoding="utf-8"))
    names = {one["name"] for one in domains}
    for one in domains:
        assert len(one["routes"]) >= 10
        assert one["folder"] is None or list((DATA / name / "knowledge" / one["folder"]).glob("*.md"))
    chats = _lines(DATA / name / "chats.jsonl")
    assert len(chats) >= 20
    areas = {record["area"] for chat in chats for record in chat["turns"]}
    assert areas == names | {"none"}
    assert {record["area"] for record in _lines(DATA / name / "first.jsonl")} <= names | {"none"}


def test_what_is_reported_on_is_not_fitted_with() -> None:
    assert REPORTED not in FITTED
    assert len(_lines(DATA / REPORTED / "chats.jsonl")) == 40
    assert len(_lines(DATA / REPORTED / "first.jsonl")) == 60


def test_a_run_follows_its_own_decisions_and_counts_changes_of_topic() -> None:
    chat = [turn("shop", shop=0.999), turn("logs", shop=0.1, logs=0.999), turn(DEFAULT, shop=0.05, logs=0.05)]
    score = run([chat])
    assert score == Score(turns=3, right=3, switches=2, switched=2)
    assert score.line() == "right 3/3 (100%), where the topic changes 2/2 (100%), where it stays -"
    wrong = run([[turn("shop", shop=0.01), turn("shop", shop=0.999)]])
    assert wrong == Score(turns=2, right=1, stays=1, stayed=1)


def test_fitting_learns_what_the_chats_show() -> None:
    chats = [
        [turn("shop", shop=0.9, logs=0.1), turn("logs", shop=0.1, logs=0.9), turn(DEFAULT, shop=0.3, logs=0.3)]
    ] * 20
    weights = fit(chats)
    assert weights[0][0] > 0, "a nearer route is likelier"
    assert run(chats, weights).right == 60
    upside_down = [[turn("logs", shop=0.9, logs=0.1), turn("shop", shop=0.1, logs=0.9)]] * 20
    assert fit(upside_down)[0][0] < 0
    assert decide(turn("shop", shop=0.9, logs=0.1), None, weights) == "shop"
