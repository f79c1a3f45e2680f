"""The figure of past chats: what is read of the set, and how its recall is counted."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

from bench.context import Bench
from bench.figure import Unavailable, measure
from bench.knowledge.embedders import Remembering
from bench.memory import locomo
from bench.memory.run import QUICK, Run
from tests.fakes import WordEmbedder

QUESTIONS = [
    {"question": "Which boat did Ada buy?", "category": 4, "evidence": ["D1:1"]},
    {"question": "What did Bob bake?", "category": 1, "evidence": ["D2:1; D1:02"]},
    {"question": "Who burned the harbour?", "category": 2, "evidence": ["D1:1"]},
    {"question": "Has Ada a whale?", "category": 5, "evidence": ["D1:1"]},
    {"question": "What is nowhere?", "category": 3, "evidence": []},
]
AUDIT = [
    {"question_id": "locomo_0_qa0", "error_type": "WRONG_CITATION", "correct_evidence": ["D1:2"]},
    {"question_id": "locomo_0_qa2", "error_type": "HALLUCINATION", "correct_evidence": []},
]
CONVERSATION = {
    "session_1_date_time": "1:56 pm on 8 May, 2023",
    "session_1": [
        {"speaker": "Ada", "dia_id": "D1:1", "text": "I bought the green boat.", "blip_caption": "a boat"},
        {"speaker": "Bob", "dia_id": "D1:2", "text": "How fine! I bake bread."},
    ],
    "session_2_date_time": "9:00 am on 1 June, 2023",
    "session_2": [{"speaker": "Bob", "dia_id": "D2:1", "text": "Today I baked a cake."}],
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "locomo"
    folder.mkdir(parents=True)
    (folder / "locomo10.json").write_text(json.dumps([{"qa": QUESTIONS, "conversation": CONVERSATION}]))
    (folder / "audit_errors.json").write_text(json.dumps(AUDIT))
    return folder.parent


def test_turns_are_read_in_order_with_their_captions_and_times(data: Path) -> None:
    (one,) = locomo.conversations(data)
    assert [(turn.id, turn.chat, turn.speaker) for turn in one.turns] == [
        ("D1:1", "session-1", "Ada"),
        ("D1:2", "session-1", "Bob"),
        ("D2:1", "session-2", "Bob"),
    ]
    assert one.turns[0].text == "I bought the green boat. [a boat]"
    assert one.turns[0].at < one.turns[2].at


def test_wrong_golds_and_what_has_no_answer_are_left_out(data: Path) -> None:
    (one,) = locomo.conversations(data)
    assert [asked.text for asked in one.questions] == ["Which boat did Ada buy?", "What did Bob bake?"]
    assert [asked.turns for asked in one.questions] == [{"D1:1"}, {"D2:1", "D1:2"}]
    assert [asked.corrected for asked in one.questions] == [{"D1:2"}, {"D2:1", "D1:2"}]


def test_the_figure_is_measured_through_the_search_that_users_have(data: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, data, QUICK)
    run.__dict__["embedder"] = Remembering(WordEmbedder())
    figure, _ = locomo.figures(run)
    outcomes = asyncio.run(measure(figure, Bench("cpu", tmp_path, 1), 1))
    values = {outcome.measure.name: outcome.value for outcome in outcomes}
    assert values["r50"] == values["r50-4"] == values["r50-1"] == 100
    assert values["r10-corrected"] is not None


def test_without_the_set_the_figure_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="--data"):
        locomo.conversations(None)
    with pytest.raises(Unavailable, match="locomo"):
        locomo.conversations(tmp_path)


def test_common_words_are_more_frequent_than_rare_ones() -> None:
    words = locomo._words(random.Random(0), 5_000).split()
    counts = sorted((words.count(word) for word in set(words)), reverse=True)
    assert counts[0] > 200
    assert len(counts) > 1_000
