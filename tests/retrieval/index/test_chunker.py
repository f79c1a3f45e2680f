from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from server.retrieval.index.chunker import ChunkText, chunk
from server.retrieval.loaders import load
from tests.tiers import cases


def words(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def chunked(name: str, text: str, token_budget: int) -> list[ChunkText]:
    return chunk(load(name, text.encode()), words, token_budget)


def test_a_section_that_fits_is_one_chunk() -> None:
    chunks = chunked("a.md", "# A\n\none two\n\nthree\n\n# B\n\nfour\n", 50)
    assert [(piece.text, piece.heading, piece.line_start, piece.line_end) for piece in chunks] == [
        ("one two\n\nthree", ("A",), 3, 5),
        ("four", ("B",), 9, 9),
    ]


def test_a_chunk_says_whether_it_continues_the_one_before() -> None:
    chunks = chunked("a.md", "# A\n\none two. three four.\n\nfive six.\n\n# B\n\nseven.\n", 4)
    assert [(piece.text, piece.continues) for piece in chunks] == [
        ("one two.", False), ("three four.", True), ("five six.", True), ("seven.", False),
    ]  # fmt: skip
    assert [piece.continues for piece in chunked("a.csv", "a,b\n1,2\n3,4\n", 50)] == [False, False]


def test_a_long_paragraph_ends_at_sentence_ends() -> None:
    text = "The first one is short. Is the second? Dr. Kim wrote the third at 3.5 percent. No. 4 follows! The end."
    chunks = chunked("a.txt", text, 12)
    assert all(piece.text.endswith((".", "?", "!")) for piece in chunks)
    assert " ".join(piece.text for piece in chunks) == text
    assert not any(piece.text.endswith(("Dr.", "No.")) for piece in chunks)


def test_korean_sentence_ends() -> None:
    text = "배송은 사흘 걸립니다. 반품은 무료예요 그리고 교환은 안 됩니다 환불은 닷새 걸립니다"
    chunks = chunked("a.txt", text, 5)
    assert [piece.text for piece in chunks] == [
        "배송은 사흘 걸립니다.", "반품은 무료예요", "그리고 교환은 안 됩니다", "환불은 닷새 걸립니다",
    ]  # fmt: skip


def test_japanese_and_chinese_sentences_need_no_space() -> None:
    text = "返品は四十五日以内です。送料は無料です。交換はできません。"
    chunks = chunk(load("a.txt", text.encode()), len, 15)
    assert all(piece.text.endswith("。") for piece in chunks)
    assert "".join(piece.text for piece in chunks) == text


def test_chunks_of_one_paragraph_are_of_like_size() -> None:
    text = " ".join(f"Sentence number {number} is here." for number in range(21))
    sizes = [words(piece.text) for piece in chunked("a.txt", text, 60)]
    assert min(sizes) > 0.6 * max(sizes)


def test_code_is_split_between_lines_only() -> None:
    code = "```\n" + "\n".join(f"call_{number}(one, two)" for number in range(30)) + "\n```"
    chunks = chunked("a.md", f"# Setup\n\n{code}\n", 40)
    assert len(chunks) > 1
    assert "\n".join(piece.text for piece in chunks) == code


def test_each_part_of_a_split_table_repeats_the_header() -> None:
    rows = "\n".join(f"| item {number} | {number} |" for number in range(20))
    chunks = chunked("a.md", f"| name | price |\n|---|---|\n{rows}\n", 50)
    assert len(chunks) > 2
    assert all(piece.text.startswith("| name | price |\n|---|---|\n| item") for piece in chunks)
    assert [row for piece in chunks for row in piece.text.split("\n")[2:]] == rows.split("\n")
    assert chunks[1].line_start == chunks[0].line_end + 1  # type: ignore[operator]


def test_rows_stand_alone_however_short() -> None:
    chunks = chunked("a.csv", "name,price\nLamp,39\nVase,12\n", 100)
    assert [(piece.text, piece.line_start) for piece in chunks] == [
        ("name: Lamp\nprice: 39", 2), ("name: Vase\nprice: 12", 3),
    ]  # fmt: skip


def test_a_word_over_the_budget_is_cut_anywhere() -> None:
    text = "가" * 1000
    chunks = chunk(load("a.txt", text.encode()), len, 100)
    assert "".join(piece.text for piece in chunks) == text
    assert all(len(piece.text) <= 100 for piece in chunks)


PARAGRAPH = st.lists(
    st.sampled_from(["Returns", "are", "free.", "환불은", "걸립니다.", "返品。", "v1.2", "a" * 40, "Why?", "- item"]),
    min_size=1, max_size=40,
).map(" ".join)  # fmt: skip
LINE = st.one_of(
    PARAGRAPH, st.sampled_from(["", "", "# Head", "## 제목", "```", "| a | b |", "|---|---|", "---", "  indented"])
)


@given(lines=st.lists(LINE, max_size=30), token_budget=st.integers(8, 60))
@settings(max_examples=cases(200, 4_000), deadline=None)
def test_lines_are_true_and_nothing_is_lost(lines: list[str], token_budget: int) -> None:
    source = "\n".join(lines)
    document = load("a.md", source.encode())
    headers = {block.header for block in document.blocks if block.header}
    seen = ""
    for piece in chunk(document, words, token_budget):
        text = piece.text
        assert piece.line_start is not None
        assert piece.line_end is not None
        at = source.split("\n")[piece.line_start - 1 : piece.line_end]
        if text.count("\n") == len(at) + 1:  # the header of a split table, two lines
            header = next(header for header in headers if text.startswith(f"{header}\n"))
            text = text.removeprefix(f"{header}\n")
        assert text in "\n".join(at)
        assert text.split("\n")[0] in at[0]
        assert text.split("\n")[-1] in at[-1]
        seen += text + "".join(piece.heading)
    kept = "".join(source.split())
    for char in set(kept) - set("#-=`|"):
        assert seen.count(char) >= kept.count(char) or char in "".join(headers), char


@given(text=st.text(alphabet="ab .?\n가나다。", max_size=600), token_budget=st.integers(4, 40))
@settings(max_examples=cases(200, 4_000), deadline=None)
def test_plain_text_is_covered_in_order_within_the_budget(text: str, token_budget: int) -> None:
    chunks = chunk(load("a.txt", text.encode()), len, token_budget)
    assert "".join("".join(piece.text.split()) for piece in chunks) == "".join(text.split())
    for piece in chunks:
        assert len("".join(piece.text.split())) <= token_budget
