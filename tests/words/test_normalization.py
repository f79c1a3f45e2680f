"""Unicode forms: those of the standard library, but in linear time for runs of combining marks."""

from __future__ import annotations

import ast
import sys
import time
import unicodedata
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.words import normalize
from server.words.normalization import JOINER, MOST_MARKS, Form
from tests.conftest import ROOT

FORMS = get_args(Form)
MODULES = sorted([*(ROOT / "server").rglob("*.py"), *(ROOT / "bench").rglob("*.py")])
EVERYTHING = [chr(code) for code in range(sys.maxunicode + 1)]


def decomposes_into_a_mark(char: str) -> bool:
    return unicodedata.combining(unicodedata.normalize("NFKD", char)[0]) > 0


def longest_run(text: str) -> int:
    run = longest = 0
    for char in text:
        run = run + 1 if unicodedata.combining(char) else 0
        longest = max(longest, run)
    return longest


MARKS = [char for char in EVERYTHING if decomposes_into_a_mark(char)]
SMALL_CHOICE = "a\u00e9\u1ec7각ᄀ\u0301\u0323\u0344\u0f73\uff9e\u3099 가" + JOINER


@pytest.mark.parametrize("form", FORMS)
@given(st.text(max_size=MOST_MARKS))
@settings(max_examples=300)
def test_short_texts_are_as_the_standard_library_has_them(form: Form, text: str) -> None:
    assert normalize(text, form) == unicodedata.normalize(form, text)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "letters", ["Tiếng Việt rất đẹp. ", "안녕하세요 저는 민아입니다. ", "ＵＳＤ １２ ①ﬁ ", "z\u0351\u0321" * 15]
)
def test_so_are_long_texts_without_long_runs(form: Form, letters: str) -> None:
    for text in (letters * 50, unicodedata.normalize("NFD", letters * 50)):
        assert normalize(text, form) == unicodedata.normalize(form, text)


@pytest.mark.parametrize("form", FORMS)
@given(st.lists(st.sampled_from(SMALL_CHOICE), max_size=200).map("".join))
@example("\u1ec7" + "\u0323\u0301" * 15)  # 30 marks behind a letter that decomposes into two more
@example("\u0f73" * 40)
@settings(max_examples=300)
def test_a_form_is_that_form_and_stays(form: Form, text: str) -> None:
    once = normalize(text, form)
    assert unicodedata.is_normalized(form, once)
    assert longest_run(once) <= MOST_MARKS
    assert normalize(once, form) == once


@pytest.mark.parametrize("form", FORMS)
def test_of_a_long_run_nothing_is_lost(form: Form) -> None:
    text = "e" + "\u0301\u0323" * 500
    plain = normalize(text, form).replace(JOINER, "")
    assert unicodedata.normalize("NFD", plain) == unicodedata.normalize("NFD", text)
    assert normalize(text, form) != normalize(text[:-1], form)


@pytest.mark.parametrize("form", FORMS)
def test_any_mark_may_run_on(form: Form) -> None:
    """250 kB of each kind of mark in turn and of all of them: the standard library takes half a minute for one."""
    begun = time.perf_counter()
    for text in ("\u0301\u0323" * 125_000, "\u0f73" * 80_000, "\uff9e\u3099" * 80_000, "".join(reversed(MARKS)) * 100):
        assert longest_run(normalize(text, form)) <= MOST_MARKS
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize("mark", [MARKS[0], MARKS[-1], "\u0f73", "\u0f75", "\u0f81", "\uff9e", "\uff9f"])
def test_no_mark_is_forgotten(mark: str) -> None:
    assert JOINER in normalize(mark * 100, "NFD")


def test_every_mark_of_unicode_is_known() -> None:
    assert [char for char in MARKS if JOINER not in normalize(char * 40, "NFD")] == []


def test_lone_surrogates_pass() -> None:
    assert normalize("é\ud800" * 30, "NFC") == "é\ud800" * 30


def uses_of_the_library(source: str) -> list[int]:
    """Lines that take `normalize` of `unicodedata`, or check for a form with it, which costs the same."""
    slow = {"normalize", "is_normalized"}
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += [node.lineno] * (node.value.id == "unicodedata" and node.attr in slow)
        elif isinstance(node, ast.ImportFrom) and node.module == "unicodedata":
            found += [node.lineno] * bool(slow & {alias.name for alias in node.names})
        elif isinstance(node, ast.Import):
            found += [node.lineno for alias in node.names if alias.name == "unicodedata" and alias.asname]
    return found


def test_no_other_module_normalises_by_itself() -> None:
    assert uses_of_the_library("import unicodedata\nunicodedata.normalize('NFC', 'x')") == [2]
    users = {
        path.relative_to(ROOT).as_posix() for path in MODULES if uses_of_the_library(path.read_text(encoding="utf-8"))
    }
    assert users == {"server/words/normalization.py"}
