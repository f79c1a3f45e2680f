"""Which lines of Markdown are code, headings, rules or rows."""

from __future__ import annotations

import time

import pytest

from server.words import markdown


def code(text: str) -> list[str]:
    return [text[start:end] for start, end in markdown.fenced_code(text)]


@pytest.mark.parametrize(("text", "found"), [
    ("a\n```\nx\n```\nb", ["```\nx\n```"]),
    ("```python\nx\n```", ["```python\nx\n```"]),
    ("~~~\n```\nx\n```\n~~~ \nb", ["~~~\n```\nx\n```\n~~~ "]),
    ("````\n```\nx\n````\nb", ["````\n```\nx\n````"]),
    ("```\nnever closed\nb", ["```\nnever closed\nb"]),
    ("1. step\n    ```\n    x\n    ```\n2. step", ["    ```\n    x\n    ```"]),
    ("```\nx\n``` not a close\n```\nb", ["```\nx\n``` not a close\n```"]),
    ("```inline``` is no fence\nb", []),
    ("``two``\nb", []),
    ("배송은 3~5일, 반품은 7~14일\n~~strike~~", []),
    ("", []),
])  # fmt: skip
def test_fenced_code(text: str, found: list[str]) -> None:
    assert code(text) == found


@pytest.mark.parametrize(("line", "found"), [
    ("# Title", (1, "Title")),
    ("  ### 제목 ##", (3, "제목 ##")),
    ("##", (2, "")),
    ("#hashtag", None),
    ("    # indented code", None),
    ("####### seven", None),
])  # fmt: skip
def test_headings(line: str, found: tuple[int, str] | None) -> None:
    assert markdown.heading(line) == found


def test_breaks_and_table_rules_are_told_apart() -> None:
    assert all(map(markdown.is_break, ["---", "***", " _ _ _ ", "-----"]))
    assert not any(map(markdown.is_break, ["--", "- item", "-*-", "|---|", "a ---"]))
    assert all(map(markdown.is_table_rule, ["|---|---|", "--- | :--:", "|-|", " | :-: | "]))
    assert not any(map(markdown.is_table_rule, ["---", "| a | b |", "||", "a | b", ""]))


def test_lines_keep_their_offsets() -> None:
    text = "a\n\nbc\n"
    assert list(markdown.lines(text)) == [(0, "a"), (2, ""), (3, "bc"), (6, "")]


@pytest.mark.parametrize("piece", ["`", "```\n", "- ", "* ", "~~~", "|-", "_ "])
def test_hostile_text_takes_linear_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    began = time.perf_counter()
    list(markdown.fenced_code(text))
    for _, line in markdown.lines(text):
        markdown.heading(line), markdown.is_break(line), markdown.is_table_rule(line)
    assert time.perf_counter() - began < 3
