from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.sampling.detokenize import TextStream
from tests.engine.conftest import tiny_tokenizer
from tests.tiers import cases

TOKENIZER = tiny_tokenizer()
LOST = "\ufffd"


def decode(ids):
    return TOKENIZER.decode(list(ids), skip_special_tokens=True)


def stream(ids, stop=()):
    """(pieces, stream) of pushing every token, then flushing."""
    text = TextStream(decode, stop)
    pieces = [text.push(token) for token in ids]
    return [*pieces, text.flush()], text


@pytest.mark.parametrize(
    "text", ["Hello, world", "안녕하세요 세계", "a 😀👩‍👩‍👧 b", "é ü ñ", " leading and trailing ", "\n\n"]
)
def test_the_pieces_add_up_and_hold_whole_characters(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    pieces, _ = stream(ids)
    assert "".join(pieces) == text
    assert not any(LOST in piece for piece in pieces)


def test_a_korean_letter_waits_for_its_last_byte() -> None:
    ids = TOKENIZER.encode("힣", add_special_tokens=False)
    assert len(ids) == 3
    pieces, _ = stream(ids)
    assert pieces == ["", "", "힣", ""]


def test_an_unfinished_character_is_dropped_at_the_end() -> None:
    ids = TOKENIZER.encode("ok 😀", add_special_tokens=False)[:-1]
    pieces, _ = stream(ids)
    assert "".join(pieces) == "ok "


@given(st.lists(st.integers(3, 339), max_size=60))
@settings(max_examples=cases(200, 4_000), deadline=None)
def test_any_tokens_stream_to_what_they_decode_to(ids: list[int]) -> None:
    pieces, _ = stream(ids)
    assert "".join(pieces).rstrip(LOST) == decode(ids).rstrip(LOST)


@given(st.text(max_size=40), st.lists(st.text("ab \n가", min_size=1, max_size=4), max_size=3))
@settings(max_examples=cases(200, 4_000), deadline=None)
def test_nothing_of_a_stop_string_is_ever_shown(text: str, stops: list[str]) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    pieces, held = stream(ids, stops)
    shown = "".join(pieces)
    places = [text.find(stop) for stop in stops if stop in text]
    assert held.stopped == bool(places)
    assert shown in {text[:place] for place in places} if places else shown == text
    assert not any(stop in shown for stop in stops)


def test_the_beginning_of_a_stop_string_waits_and_is_given_when_it_was_none() -> None:
    ids = [token for part in ("a<", "/", "b") for token in TOKENIZER.encode(part, add_special_tokens=False)]
    pieces, held = stream(ids, ["</s>"])
    assert "".join(pieces) == "a</b"
    assert pieces[1] == ""
    assert not held.stopped


def test_nothing_comes_after_a_stop() -> None:
    text = TextStream(decode, ["STOP"])
    for token in TOKENIZER.encode("go STOP on", add_special_tokens=False):
        text.push(token)
    assert text.stopped
    assert text.push(TOKENIZER.encode("x", add_special_tokens=False)[0]) == ""
    assert text.flush() == ""
