from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.prompting import ReasoningSplitter


def split(pieces: list[str]) -> tuple[str, str]:
    splitter = ReasoningSplitter()
    parts = [splitter.feed(piece) for piece in pieces] + [splitter.flush()]
    return "".join(thought for thought, _ in parts), "".join(answer for _, answer in parts)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>a, so b</think>\nB.", "a, so b", "B."),
        ("<think>a</think>B", "a", "B"),
        ("\n <think>a</think>\n\nB\n", "a", "B\n"),
        ("<think></think>\nB", "", "B"),
        ("<think>1 < 2 </thin k></think>\nB", "1 < 2 </thin k>", "B"),
        ("<think>a</think>\nB </think> <think>", "a", "B </think> <think>"),
        ("No thinking.", "", "No thinking."),
        ("<thick>", "", "<thick>"),
        ("<thi", "", "<thi"),
        ("  plain", "", "  plain"),
        ("<think>never closed </thi", "never closed </thi", ""),
        ("<think>a</think>\n", "a", ""),
        ("", "", ""),
    ],
)
def test_every_way_to_cut_the_text_gives_the_same_parts(text: str, reasoning: str, answer: str):
    assert split([text]) == (reasoning, answer)
    assert split(list(text)) == (reasoning, answer)
    for cut in range(len(text)):
        assert split([text[:cut], text[cut:]]) == (reasoning, answer)


@given(
    thought=st.text("ab<>/think ", max_size=30).filter(lambda text: "</think>" not in f"{text}</think>"[:-1]),
    answer=st.text("ab<>/think\n", max_size=30),
    data=st.data(),
)
def test_pieces_do_not_matter(thought: str, answer: str, data: st.DataObject):
    text = f"<think>{thought}</think>\n{answer}"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(pieces) == (thought, answer.lstrip())


def test_what_cannot_be_a_mark_is_shown_at_once():
    splitter = ReasoningSplitter()
    assert splitter.feed("<think>one two") == ("one two", "")
    assert splitter.feed(" three <") == (" three ", "")
    assert splitter.feed("4") == ("<4", "")
    assert splitter.feed("</think>\nfive") == ("", "five")
    assert splitter.feed(" <") == ("", " <")


def test_a_flushed_splitter_is_empty():
    splitter = ReasoningSplitter()
    splitter.feed("<th")
    assert splitter.flush() == ("", "<th")
    assert splitter.flush() == ("", "")
