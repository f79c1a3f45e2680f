from __future__ import annotations

import pytest

from server.chat.citations import find_citations
from server.types import Passage

PASSAGES = tuple(Passage(id=f"p{n}", folder="f", file="a.md", text="…") for n in (1, 2, 3))


@pytest.mark.parametrize(
    ("text", "valid", "invalid"),
    [
        ("Within 45 days [1].", ["p1"], ()),
        ("[2] then [1] then [2].", ["p2", "p1"], ()),
        ("Both [1, 3].", ["p1", "p3"], ()),
        ("Out of range [4] and [0].", [], (4, 0)),
        ("45일 이내입니다[2].", ["p2"], ()),
        ("No mark, array[x], [] or [1a].", [], ()),
        ("A year [2024] is no passage.", [], ()),
    ],
)
def test_marks_point_to_passages(text: str, valid: list[str], invalid: tuple[int, ...]) -> None:
    citations, wrong = find_citations(text, PASSAGES)
    assert [citation.passage_id for citation in citations] == valid
    assert wrong == invalid
