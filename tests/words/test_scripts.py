"""Which script a text is written in."""

from __future__ import annotations

import pytest

from server.words import detect_script, has_hangul, script_number, script_shares


@pytest.mark.parametrize(("text", "script"), [
    ("Where is it?", "latin"), ("Größe café", "latin"), ("어디예요?", "hangul"), ("API 키는 어디 있나요?", "hangul"),
    ("会議は三時", "kana"), ("会议三点", "han"), ("Где это?", "cyrillic"), ("სად არის?", "other"),
    ("12:30 %", ""), ("", ""),
])  # fmt: skip
def test_the_script_of_most_letters(text: str, script: str) -> None:
    assert detect_script(text) == script


def test_hangul_is_seen_among_other_letters() -> None:
    assert has_hangul("ok 고마워")
    assert has_hangul("ㅋㅋ")
    assert not has_hangul("thanks 三")


def test_a_text_in_two_scripts_has_a_share_of_each() -> None:
    shares = script_shares("배송은 delivery")
    assert shares == {"hangul": pytest.approx(6 / 14), "latin": pytest.approx(8 / 14)}
    assert sum(script_shares("会議は三時 about 3 pm").values()) == pytest.approx(1)
    assert script_shares("12:30") == {}


def test_scripts_have_numbers_of_their_own() -> None:
    numbers = [script_number(text) for text in ("a", "가", "か", "中", "ы", "ω", "א", "ب", "क", "ก", "ა")]
    assert len(set(numbers)) == len(numbers)
    assert 0 not in numbers
    assert script_number("12") == 0
