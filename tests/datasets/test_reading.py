"""Reading, checking, counting and splitting rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.datasets import Dataset, DatasetReport, Example, parse_example, read_examples
from server.errors import DatasetError
from server.types import TurnContext

PLAIN = {"question": "How long?", "answer": "45 days."}
FULL = {
    "question": "How long may I return it?",
    "answer": "Within 45 days [2].",
    "sources": [
        {"file": "a.md", "text": "About us.", "heading": ["Start", "Us"], "lines": [3, 4]},
        {"file": "b.pdf", "text": "Return within 45 days.", "page": 7},
    ],
    "memories": ["Lives in Busan."],
    "history": [{"question": "Hello", "answer": "Hi!", "sources": []}],
    "system": "Be brief.",
    "check": {"contains": ["45 days"], "cites": [2]},
    "group": "refunds",
}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def one(row: Any) -> Example:
    return parse_example("rows.jsonl", 5, json.dumps(row))


def example(group: str, number: int = 0) -> Example:
    return Example(f"q{number}", "a", TurnContext(), (), "", None, group, number)


def dataset(*groups: str) -> Dataset:
    rows = tuple(example(group, number) for number, group in enumerate(groups))
    return Dataset(rows, DatasetReport(len(rows), len(rows), 0, 0, 0, ()))


# ── one row ──────────────────────────────────────────────────────────────────────────────────────


def test_a_plain_row_is_a_question_alone():
    row = one(PLAIN)
    assert (row.question, row.answer, row.line) == ("How long?", "45 days.", 5)
    assert row.context.searched is False
    assert row.context.passages == ()
    assert row.history == ()
    assert row.check is None


def test_a_full_row_carries_everything_a_turn_has():
    row = one(FULL)
    first, second = row.context.passages
    assert row.context.searched
    assert (first.file, first.heading, first.place) == ("a.md", ("Start", "Us"), "lines 3-4")
    assert (second.place, second.text) == ("page 7", "Return within 45 days.")
    assert [memory.text for memory in row.context.memories] == ["Lives in Busan."]
    assert row.history[0].question == "Hello"
    assert row.history[0].context.searched
    assert row.system == "Be brief."
    assert row.check is not None
    assert (row.check.contains, row.check.cites, row.check.abstains) == (("45 days",), (2,), False)
    assert row.group == "refunds"


def test_sources_empty_means_searched_and_absent_means_not():
    assert one({**PLAIN, "sources": []}).context.searched
    assert not one(PLAIN).context.searched


def test_the_nonce_is_drawn_from_the_number_of_the_row():
    rows = [parse_example("x", number, json.dumps({**PLAIN, "sources": []})) for number in (1, 1, 2)]
    nonces = [row.context.nonce for row in rows]
    assert nonces[0] == nonces[1] != nonces[2]
    assert all(len(nonce) == 8 and int(nonce, 16) >= 0 for nonce in nonces)


def test_messages_become_turns():
    row = one({
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "And now?"}, {"role": "assistant", "content": "Now."},
        ]
    })  # fmt: skip
    assert (row.system, row.question, row.answer) == ("Be kind.", "And now?", "Now.")
    assert [(turn.question, turn.answer) for turn in row.history] == [("Hi", "Hello!")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "x"}, "'answer': Field required"),
        ({"question": "  ", "answer": "x"}, "'question'"),
        ({"question": "x", "answer": ""}, "'answer'"),
        ({**PLAIN, "anwser": "x"}, "'anwser': Extra inputs"),
        ({**PLAIN, "sources": [{"file": "a"}]}, "'sources.0.text'"),
        ({**PLAIN, "sources": "a.md"}, "'sources'"),
        ({**PLAIN, "check": {"cites": [1]}}, "check.cites names [1], but the row has 0 sources"),
        ({**FULL, "check": {"cites": [3]}}, "check.cites names [3], but the row has 2 sources"),
        ({**FULL, "check": {"cites": [0]}}, "greater than or equal to 1"),
        ({"messages": []}, "the assistant last"),
        ({"messages": [{"role": "user", "content": "x"}]}, "the assistant last"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "user and assistant in turn"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "'messages.0.role'"),
        ([1, 2], "must be a JSON object"),
        ("text", "must be a JSON object"),
    ],
)
def test_a_broken_row_is_refused_with_its_reason(row: Any, reason: str):
    with pytest.raises(DatasetError, match=r"rows\.jsonl, line 5") as caught:
        one(row)
    assert reason in caught.value.reason


def test_broken_json_names_the_character():
    with pytest.raises(DatasetError, match="not valid JSON at character 14"):
        parse_example("x", 1, '{"question": "')


# ── a file ───────────────────────────────────────────────────────────────────────────────────────


def test_bom_crlf_and_blank_lines_are_fine(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    text = "\r\n".join([json.dumps(PLAIN), "", "   ", json.dumps({**PLAIN, "question": "한국어?"}, ensure_ascii=False)])
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    read = read_examples(path)
    assert [row.question for row in read.examples] == ["How long?", "한국어?"]
    assert [row.line for row in read.examples] == [1, 4]
    assert read.report.text() == "2 rows read, 2 kept"


def test_a_line_separator_inside_a_string_does_not_cut_the_row(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", json.dumps({**PLAIN, "answer": "a\u2028b"}, ensure_ascii=False))
    assert read_examples(path).examples[0].answer == "a\u2028b"


def test_duplicates_are_dropped_and_conflicts_counted(tmp_path: Path):
    rows = [PLAIN, {**PLAIN, "question": "how  LONG?"}, {**PLAIN, "answer": "30 days."}, {**PLAIN, "sources": []}]
    report = read_examples(write(tmp_path / "rows.jsonl", *rows)).report
    assert (report.read, report.kept, report.duplicates, report.conflicts, report.broken) == (4, 3, 1, 1, 0)
    assert "1 dropped as exact duplicates" in report.text()
    assert "1 ask what another row asks" in report.text()


def test_rows_that_differ_in_sources_memories_history_or_system_are_no_duplicates(tmp_path: Path):
    rows = [
        FULL,
        {**FULL, "memories": ["Lives in Oslo."]},
        {**FULL, "system": "Be long."},
        {**FULL, "history": []},
        {**FULL, "sources": [*FULL["sources"][:1], {"file": "b.pdf", "text": "Return within 30 days."}]},
    ]
    assert read_examples(write(tmp_path / "rows.jsonl", *rows)).report.kept == 5


def test_a_few_broken_rows_are_dropped_and_named(tmp_path: Path):
    good = [{**PLAIN, "question": f"q{n}"} for n in range(30)]
    report = read_examples(write(tmp_path / "rows.jsonl", *good, "{oops")).report
    assert (report.read, report.kept, report.broken) == (31, 30, 1)
    assert report.problems[0].startswith("line 31: not valid JSON at character 2")
    assert "1 dropped as broken (line 31" in report.text()


def test_many_broken_rows_refuse_the_file_naming_the_first(tmp_path: Path):
    good = [{**PLAIN, "question": f"q{n}"} for n in range(8)]
    path = write(tmp_path / "rows.jsonl", *good, "{", "[]")
    with pytest.raises(DatasetError) as caught:
        read_examples(path)
    assert caught.value.line == 9
    assert "2 of 10 rows are broken, also line 10" in caught.value.reason


def test_one_broken_row_of_few_is_refused(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"line 2: .*1 of 2 rows is broken; fix it"):
        read_examples(write(tmp_path / "rows.jsonl", PLAIN, "{"))


@pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="holds no rows"):
        read_examples(path)


def test_other_encodings_are_refused_with_the_line(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(PLAIN).encode() + b"\n" + '{"question": "한국어"}'.encode("euc-kr"))
    with pytest.raises(DatasetError, match="line 2: not UTF-8"):
        read_examples(path)


def test_a_missing_file_is_a_dataset_error(tmp_path: Path):
    with pytest.raises(DatasetError, match="cannot be read"):
        read_examples(tmp_path / "none.jsonl")


# ── splitting ────────────────────────────────────────────────────────────────────────────────────


def test_a_group_is_never_on_both_sides_of_a_split():
    rows = dataset(*[f"g{n % 20}" for n in range(200)])
    train, held = rows.split(0.2, seed=3)
    assert {row.group for row in train} & {row.group for row in held} == set()
    assert len(train) + len(held) == 200
    assert len(held) == 40


def test_the_split_follows_the_seed_and_not_the_order():
    groups = [f"g{n}" for n in range(50)]
    held = {row.group for row in dataset(*groups).split(0.2, seed=1)[1]}
    again = {row.group for row in dataset(*reversed(groups)).split(0.2, seed=1)[1]}
    other = {row.group for row in dataset(*groups).split(0.2, seed=2)[1]}
    assert held == again != other


def test_rows_without_a_group_are_split_one_by_one(tmp_path: Path):
    rows = [{**PLAIN, "question": f"q{n}"} for n in range(40)]
    train, held = read_examples(write(tmp_path / "rows.jsonl", *rows)).split(0.25)
    assert (len(train), len(held)) == (30, 10)


@pytest.mark.parametrize(("groups", "share"), [(["a"] * 9, 0.5), (["a", "b", "c"], 0.0)])
def test_nothing_is_held_out_of_one_group_or_with_share_zero(groups: list[str], share: float):
    train, held = dataset(*groups).split(share)
    assert (len(train), held) == (len(groups), ())


def test_a_huge_group_is_not_held_out_for_a_small_share():
    train, held = dataset(*(["big"] * 95 + ["s1", "s2", "s3", "s4", "s5"])).split(0.05)
    assert "big" in {row.group for row in train}
    assert len(held) == 5


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60), st.floats(0, 0.9), st.integers(0, 5))
def test_any_split_loses_no_row_and_keeps_something_to_train_on(groups: list[str], share: float, seed: int):
    train, held = dataset(*groups).split(share, seed)
    assert sorted(row.line for row in (*train, *held)) == list(range(len(groups)))
    assert train
