"""What a text is marked with, by the model's own settings or its family."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from server.embedding.prompts import Prompts, prompts_of
from server.relations import TextRole

QUERY, PASSAGE, TEXT = TextRole.QUERY, TextRole.PASSAGE, TextRole.TEXT


@pytest.mark.parametrize(
    ("name", "query", "passage"),
    [
        ("intfloat/multilingual-e5-large", "query: ", "passage: "),
        ("/models/e5-base-v2/", "query: ", "passage: "),
        ("BAAI/bge-small-en-v1.5", "Represent this sentence for searching relevant passages: ", ""),
        ("BAAI/bge-m3", "", ""),
        ("sentence-transformers/all-MiniLM-L6-v2", "", ""),
        ("some/model-e50-base5", "", ""),
    ],
)
def test_by_family_where_the_model_says_nothing(name: str, query: str, passage: str) -> None:
    assert prompts_of(SimpleNamespace(prompts={"query": "", "document": ""}), name) == Prompts(query, passage)  # type: ignore[arg-type]


def test_the_models_own_come_first() -> None:
    own = SimpleNamespace(prompts={"query": "ask: ", "document": "told: ", "clustering": "group: "})
    assert prompts_of(own, "intfloat/e5-small") == Prompts("ask: ", "told: ")  # type: ignore[arg-type]


def test_the_instruct_models_take_a_task_for_questions_alone() -> None:
    prompts = prompts_of(SimpleNamespace(prompts={}), "intfloat/multilingual-e5-large-instruct")  # type: ignore[arg-type]
    assert prompts.query.startswith("Instruct: ")
    assert prompts.passage == ""


def test_texts_of_one_kind_are_marked_where_both_sides_are() -> None:
    assert Prompts("query: ", "passage: ").of(TEXT) == "query: "
    assert Prompts("ask: ", "").of(TEXT) == ""
    assert [Prompts("q", "p").of(role) for role in (QUERY, PASSAGE)] == ["q", "p"]
