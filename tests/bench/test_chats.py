"""What engines are asked: the same for all of them, and never the same twice."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from bench import chats
from bench.chats import Chats, Timed
from bench.models import FIRST_PLAIN
from server.engine import ModelTokenizer
from server.types import Message


def drawn(number: int = 0, key: str = "k", **more: object) -> Chats:
    return chats.draw(key, number, **{"count": 5, "length": 12, "new": 8, "vocabulary": 1000, **more})  # type: ignore[arg-type]


def test_chats_have_the_size_that_was_asked_for() -> None:
    asked = drawn()
    assert [len(prompt) for prompt in asked.prompts] == [12] * 5
    assert asked.tokens == 40
    assert all(FIRST_PLAIN <= token < 1000 for prompt in asked.prompts for token in prompt)


def test_the_same_round_draws_the_same_chats() -> None:
    assert drawn(3) == drawn(3)


def test_no_two_prompts_of_a_run_begin_alike() -> None:
    """What an engine keeps of earlier prompts can then help none of them."""
    prompts = [prompt for key in ("a", "b") for number in range(-1, 20) for prompt in drawn(number, key).prompts]
    heads = [prompt[:4] for prompt in prompts]
    assert len(set(heads)) == len(heads)


def test_adapters_are_dealt_out_in_turn() -> None:
    assert drawn(adapters=["x", "y"]).adapters == ("x", "y", "x", "y", "x")
    assert drawn().adapters == (None,) * 5


def test_the_warm_up_has_the_same_prompts_and_fewer_tokens() -> None:
    asked = drawn()
    assert chats.shorter(asked, 3) == Chats(asked.prompts, asked.adapters, 3)
    assert chats.shorter(asked, 99) == asked


def test_a_message_renders_to_about_its_length(tiny: Path) -> None:
    tokenizer = ModelTokenizer(str(tiny))
    texts = [chats.message("m", number, 0, tokenizer, 120) for number in range(3)]
    assert len(set(texts)) == 3
    for text in texts:
        assert 120 <= len(tokenizer.render([Message("user", text)])) <= 135
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789 ")


def test_words_go_on_without_end_and_can_be_repeated(tiny: Path) -> None:
    tokenizer = ModelTokenizer(str(tiny))
    first, again = (list(itertools.islice(chats.plain_words("w", 1, 2, tokenizer), 2000)) for _ in range(2))
    assert first == again
    assert len(set(first)) > 100


def test_speed_is_tokens_a_second() -> None:
    assert Timed(2.0, 512).speed == 256


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        (("one", "two"), "same text in 2 of 2"),
        (("one", "tow"), "same text in 1 of 2"),
        (("one\ufffd", "two"), "same text in 2 of 2"),  # half a character at the end
    ],
)
def test_texts_are_compared(theirs: tuple[str, ...], says: str) -> None:
    assert chats.alike(Timed(1, 2, ("one", "two")), Timed(1, 2, theirs)) == says


def test_a_missing_answer_is_no_agreement() -> None:
    with pytest.raises(ValueError, match="zip"):
        chats.alike(Timed(1, 2, ("one", "two")), Timed(1, 2, ("one",)))
