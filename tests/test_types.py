"""What crosses borders: frozen, and with words a user reads."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from server import errors, types
from server.types import (
    AdapterState,
    Compaction,
    FinishReason,
    GenerationRequest,
    Memory,
    MemoryKind,
    Passage,
    RouteHow,
    SamplingParams,
    TurnContext,
)
from tests.fakes import ByteTokenizer, WordEmbedder


def passage(**place: int) -> Passage:
    return Passage("p1", "support", "refunds.md", "text", **place)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({}, ""),
        ({"page": 3}, "page 3"),
        ({"page": 3, "line_start": 1, "line_end": 2}, "page 3"),
        ({"line_start": 4}, "line 4"),
        ({"line_start": 4, "line_end": 4}, "line 4"),
        ({"line_start": 4, "line_end": 9}, "lines 4-9"),
        ({"line_end": 9}, ""),
    ],
)
def test_a_passage_says_where_it_is(where: dict[str, int], said: str) -> None:
    assert passage(**where).place == said


DATACLASSES = [kind for _, kind in inspect.getmembers(types, dataclasses.is_dataclass)]


def test_the_module_has_what_the_parts_exchange() -> None:
    names = {kind.__name__ for kind in DATACLASSES}
    assert {"Passage", "Memory", "RouteDecision", "PromptBundle", "TokenDelta", "GenerationRequest"} <= names


@pytest.mark.parametrize("kind", DATACLASSES, ids=lambda kind: kind.__name__)
def test_everything_is_frozen(kind: type) -> None:
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", DATACLASSES, ids=lambda kind: kind.__name__)
def test_no_default_is_a_list_or_a_dict_that_rows_would_share(kind: type) -> None:
    for field in dataclasses.fields(kind):
        assert not isinstance(field.default, list | dict | set)


def test_a_memory_cannot_be_changed() -> None:
    memory = Memory(1, MemoryKind.FACT, "text", "", None, None, 0.0, 0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        memory.text = "other"  # type: ignore[misc]


def test_two_requests_do_not_share_a_logit_bias() -> None:
    one, two = SamplingParams(), SamplingParams()
    assert one.logit_bias is not two.logit_bias
    assert GenerationRequest((1,), one) == GenerationRequest((1,), two)


def test_a_fresh_turn_has_no_context_and_no_compaction() -> None:
    assert TurnContext() == TurnContext(nonce="", searched=False, passages=(), memories=())
    assert Compaction() == Compaction(evidence_before=0, turns_before=0)


@pytest.mark.parametrize("kind", [MemoryKind, RouteHow, FinishReason, AdapterState])
def test_states_are_words_that_survive_json(kind: type[MemoryKind]) -> None:
    for state in kind:
        assert state == state.value
        assert kind(str(state)) is state


# ── errors ───────────────────────────────────────────────────────────────────────────────────────

ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.TailorError)]


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in ERRORS]
    assert len(codes) == len(set(codes)) == len(ERRORS) > 15


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = inspect.getdoc(errors) or ""
    for kind in ERRORS:
        assert kind.__name__ in drawn


def test_an_error_of_a_file_says_file_line_and_reason() -> None:
    for kind in (errors.PromptFileError, errors.DatasetError):
        error = kind("prompts/legal.md", 7, "no such variable 'usr'")
        assert str(error) == "prompts/legal.md, line 7: no such variable 'usr'"
        assert (error.file, error.line, error.reason) == ("prompts/legal.md", 7, "no such variable 'usr'")


# ── the stand-ins that other tests trust ─────────────────────────────────────────────────────────


def test_the_word_embedder_gives_unit_vectors_near_for_shared_words() -> None:
    embedder = WordEmbedder()
    vectors = embedder.embed(["red apples", "green apples", "slow trains", ""])
    assert vectors.shape == (4, embedder.dimension)
    assert vectors.dtype.name == "float32"
    assert vectors[0] @ vectors[0] == pytest.approx(1)
    assert vectors[0] @ vectors[1] > 0.4
    assert vectors[0] @ vectors[2] < 0.1


def test_the_byte_tokenizer_appends_only() -> None:
    tokenizer = ByteTokenizer()
    chat = [types.Message("system", "S"), types.Message("user", "안녕")]
    before = tokenizer.render(chat)
    after = tokenizer.render([*chat, types.Message("assistant", "hi"), types.Message("user", "more")])
    assert after[: len(before)] == before
    assert tokenizer.decode(tokenizer.encode("안녕")) == "안녕"
