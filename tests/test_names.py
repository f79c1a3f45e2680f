from __future__ import annotations

import unicodedata

import pytest

from server.names import MAX_FOLDER_CHARS, folder_name


@pytest.mark.parametrize(
    "name",
    ["support", "지점", "영업 자료 (2026)", "店舗", "नीति", "Q&A", "a.b", "x" * MAX_FOLDER_CHARS, "über-uns", "3"],
)
def test_names_of_any_script_may_name_a_folder(name: str) -> None:
    assert folder_name(name) == unicodedata.normalize("NFC", name)


def test_a_name_is_compared_in_its_composed_form() -> None:
    assert folder_name(unicodedata.normalize("NFD", "지점")) == "지점"


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", ".hidden", "end.", " a", "a ", "a/b", "a\\b", "a:b", "a*", "a?", 'a"', "a<b", "a|b", "a\nb",
     "a\0b", "a\u200bb", "x" * (MAX_FOLDER_CHARS + 1), "x" * 1_000_000],
)  # fmt: skip
def test_what_no_system_takes_or_nobody_sees_is_refused(name: str) -> None:
    assert folder_name(name) is None
