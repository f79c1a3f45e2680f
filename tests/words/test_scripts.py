"""Which script a text is written in."""

from __future__ import annotations

import pytest

from server.words import detect_script, has_hangul


@pytest.mark.parametrize(("text", "script"), [
    ("Where is it?", "latin"), ("Größe café", "latin"), ("어디예요?", "hangul"), ("API 키는 어디 있나요?", "hangul"),
    ("会議は三時", "kana"), ("会议三点", "han"), ("Где это?", "other"), ("12:30 %", ""), ("", ""),
])  # fmt: skip
def test_the_script_of_most_letters(text: str, script: str) -> None:
    assert detect_script(text) == script


def test_hangul_is_seen_among_other_letters() -> None:
    assert has_hangul("ok 고마워")
    assert has_hangul("ㅋㅋ")
    assert not has_hangul("thanks 三")
