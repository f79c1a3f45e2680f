from __future__ import annotations

import io
import json
import zipfile

import docx
import openpyxl
import pptx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter
from reportlab.pdfgen.canvas import Canvas

from server.errors import KnowledgeError
from server.retrieval.loaders import SUPPORTED, is_supported, load
from server.retrieval.loaders.document import BlockKind, Document
from tests.tiers import cases


def texts(document: Document) -> list[str]:
    return [document.text[block.start : block.end] for block in document.blocks]


def headings(document: Document) -> list[tuple[str, ...]]:
    return [block.heading for block in document.blocks]


def pdf(*pages: str) -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out)
    for page in pages:
        for number, line in enumerate(page.split("\n")):
            canvas.drawString(72, 760 - 16 * number, line)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def word(build: docx.document.Document) -> bytes:
    out = io.BytesIO()
    build.save(out)
    return out.getvalue()


# ── text and Markdown ────────────────────────────────────────────────────────────────────────────


def test_plain_text_is_cut_at_blank_lines() -> None:
    document = load("notes.txt", b"one\ntwo\n\n   \nthree  \n")
    assert texts(document) == ["one\ntwo", "three"]
    assert document.numbered


def test_markdown_headings_become_paths() -> None:
    source = "intro\n\n# Shop\n\n## Returns ##\n\nWithin 45 days.\n\n### Gifts\nUntil *May*.\n\n## Shipping\nTwo days."
    document = load("a.md", source.encode())
    assert texts(document) == ["intro", "Within 45 days.", "Until *May*.", "Two days."]
    assert headings(document) == [(), ("Shop", "Returns"), ("Shop", "Returns", "Gifts"), ("Shop", "Shipping")]


def test_underlined_headings_and_markup_in_headings() -> None:
    source = "The *big* [Shop](https://x.example)\n=====\n\n`code` snake_case\n---\n\ntext"
    document = load("a.md", source.encode())
    assert headings(document) == [("The big Shop", "code snake_case")]


def test_a_rule_is_not_a_heading() -> None:
    assert headings(load("a.md", b"- item\n---\n\ntext\n\n---\n\nmore")) == [(), (), (), ()]


def test_code_and_tables_are_blocks_of_their_own() -> None:
    source = "before\n```sh\n# not a heading\n\nrun it\n```\nafter\n| a | b |\n|---|:-:|\n| 1 | 2 |\n| 3 | 4 |\ntail"
    document = load("a.md", source.encode())
    assert [block.kind for block in document.blocks] == [
        BlockKind.TEXT, BlockKind.CODE, BlockKind.TEXT, BlockKind.TABLE, BlockKind.TEXT,
    ]  # fmt: skip
    assert texts(document)[1] == "```sh\n# not a heading\n\nrun it\n```"
    assert document.blocks[3].header == "| a | b |\n|---|:-:|"
    assert headings(document) == [()] * 5


def test_an_open_fence_ends_with_the_file() -> None:
    assert texts(load("a.md", b"```\ncode\n\nmore\n\n")) == ["```\ncode\n\nmore"]


def test_a_heading_with_nothing_under_it_is_kept() -> None:
    document = load("a.md", b"# Shop\n\n## Closed on Mondays\n## Open\nfrom nine\n# End")
    assert texts(document) == ["## Closed on Mondays", "from nine", "# End"]
    assert headings(document) == [("Shop", "Closed on Mondays"), ("Shop", "Open"), ("End",)]


def test_korean_markdown_in_cp949() -> None:
    document = load("안내.md", "# 반품\r\n\r\n45일 안에 신청하세요.\r\n".encode("cp949"))
    assert (texts(document), headings(document)) == (["45일 안에 신청하세요."], [("반품",)])


# ── HTML ─────────────────────────────────────────────────────────────────────────────────────────

PAGE = """<!doctype html><html><head><title>Warranty</title><style>p {}</style></head><body>
<nav><a href=/>Home</a></nav><script>alert(1)</script><!-- a comment -->
<h1>Warranty</h1><p>Three <b>years</b>,<br>really.</p>
<h2>Covered</h2><ul><li>motors</li><li>heating <i>elements</i></li></ul>
<div>Loose text <span>goes</span> on<div>inner</div>and after</div>
<table><tr><th>part</th><th>years</th></tr><tr><td>battery</td><td>1</td></tr></table>
<pre>two
  lines</pre></body></html>"""


def test_html_gives_visible_text_with_headings() -> None:
    document = load("w.html", PAGE.encode())
    assert texts(document) == [
        "Three years,\nreally.",
        "- motors\n- heating elements",
        "Loose text goes on",
        "inner",
        "and after",
        "part | years\nbattery | 1",
        "two\n  lines",
    ]
    assert headings(document) == [("Warranty",)] + [("Warranty", "Covered")] * 6
    assert document.blocks[5].kind is BlockKind.TABLE
    assert document.blocks[5].header == "part | years"


def test_html_title_stands_above_other_headings() -> None:
    document = load("a.htm", b"<title>Help</title><h1>Returns</h1><p>45 days")
    assert headings(document) == [("Help", "Returns")]


def test_html_declares_its_encoding() -> None:
    page = '<meta charset="euc-kr"><p>반품은 45일</p>'.encode("euc-kr")
    assert texts(load("a.html", page)) == ["반품은 45일"]


def test_deeply_nested_html_is_read() -> None:
    depth = 3000
    assert texts(load("a.html", b"<div>" * depth + b"deep" + b"</div>" * depth)) == ["deep"]


# ── PDF ──────────────────────────────────────────────────────────────────────────────────────────


def test_pdf_pages_are_numbered() -> None:
    document = load("a.pdf", pdf("First page", "Second page\nsecond line"))
    assert [block.page for block in document.blocks] == [1, 2]
    assert "Second page" in texts(document)[1]
    assert "second line" in texts(document)[1]


def test_what_is_not_a_pdf_says_so() -> None:
    with pytest.raises(KnowledgeError, match="not a PDF"):
        load("a.pdf", b"just text")


@pytest.mark.parametrize("keep", [0.3, 0.6])
def test_a_damaged_pdf_says_so(keep: float) -> None:
    whole = pdf("Some text", "More text")
    with pytest.raises(KnowledgeError, match=r"damaged|no text"):
        load("a.pdf", whole[: int(len(whole) * keep)])


def test_an_encrypted_pdf_says_so() -> None:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf("secret"))))
    writer.encrypt("password", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    with pytest.raises(KnowledgeError, match="encrypted"):
        load("a.pdf", out.getvalue())


# ── Word ─────────────────────────────────────────────────────────────────────────────────────────


def test_docx_keeps_headings_lists_and_tables_in_order() -> None:
    build = docx.Document()
    build.add_heading("Handbook", 0)
    build.add_heading("Leave", 1)
    build.add_paragraph("Thirty days a year.")
    build.add_paragraph("apply early", style="List Bullet")
    build.add_paragraph("tell your team", style="List Bullet")
    table = build.add_table(rows=2, cols=2)
    for cell, text in zip((*table.rows[0].cells, *table.rows[1].cells), ("kind", "days", "sick", "10"), strict=True):
        cell.text = text
    build.add_heading("Travel", 1)
    build.add_paragraph("By train.")
    document = load("a.docx", word(build))
    assert texts(document) == [
        "Thirty days a year.", "- apply early\n- tell your team", "kind | days\nsick | 10", "By train.",
    ]  # fmt: skip
    assert headings(document) == [("Handbook", "Leave")] * 3 + [("Handbook", "Travel")]
    assert document.blocks[2].header == "kind | days"


def test_a_merged_cell_is_read_once() -> None:
    build = docx.Document()
    table = build.add_table(rows=1, cols=3)
    table.rows[0].cells[0].merge(table.rows[0].cells[1]).text = "wide"
    table.rows[0].cells[2].text = "narrow"
    assert texts(load("a.docx", word(build))) == ["wide | narrow"]


def test_an_old_word_file_says_so() -> None:
    with pytest.raises(KnowledgeError, match=r"old Office format: save it as \.docx"):
        load("a.docx", b"\xd0\xcf\x11\xe0" + bytes(600))


def test_what_is_not_a_word_file_says_so() -> None:
    with pytest.raises(KnowledgeError, match=r"not a \.docx file"):
        load("a.docx", b"PK but no")


def test_another_zip_is_not_a_word_file() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(KnowledgeError, match="damaged"):
        load("a.docx", out.getvalue())


# ── CSV ──────────────────────────────────────────────────────────────────────────────────────────


def test_csv_rows_carry_their_headers_and_lines() -> None:
    source = 'name;note;price\nLamp;"two\nlines";39\n\nVase;;12\n'
    document = load("a.csv", source.encode())
    assert texts(document) == ["name: Lamp\nnote: two lines\nprice: 39", "name: Vase\nprice: 12"]
    assert [block.lines for block in document.blocks] == [(2, 3), (5, 5)]
    assert all(block.kind is BlockKind.ROW for block in document.blocks)


def test_csv_rows_longer_than_the_header() -> None:
    assert texts(load("a.csv", b"a,b\n1,2,3\n")) == ["a: 1\nb: 2\ncolumn 3: 3"]


def test_a_csv_of_one_row_is_data() -> None:
    assert texts(load("a.csv", b"Lamp,39\n")) == ["Lamp | 39"]


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────


def test_json_records_are_entries_with_paths() -> None:
    data = {
        "shop": "Brightleaf",
        "items": [{"name": "Lamp", "size": {"height": 40}}, {"name": "Vase", "tags": ["glass", "blue"], "old": None}],
    }
    document = load("a.json", json.dumps(data).encode())
    assert texts(document) == ["shop: Brightleaf", "name: Lamp\nsize.height: 40", "name: Vase\ntags: glass, blue"]
    assert headings(document) == [(), ("items 1",), ("items 2",)]


def test_a_large_json_object_is_entered() -> None:
    data = {"opening": "hours", "texts": dict.fromkeys(("one", "two", "three"), "word " * 100)}
    document = load("a.json", json.dumps(data).encode())
    assert headings(document)[0] == ()
    assert sum(heading[:1] == ("texts",) for heading in headings(document)) >= 1
    assert sum(text.count("word") for text in texts(document)) == 300


def test_a_list_at_the_top() -> None:
    document = load("a.json", '[{"질문": "반품?", "답": "45일"}, {"질문": "배송?", "답": "3일"}]'.encode())
    assert texts(document) == ["질문: 반품?\n답: 45일", "질문: 배송?\n답: 3일"]
    assert headings(document) == [("item 1",), ("item 2",)]


def test_broken_json_names_the_place() -> None:
    with pytest.raises(KnowledgeError, match="line 2, column 3"):
        load("a.json", b"{\n  oops}")


def test_json_nested_too_deeply_is_refused() -> None:
    with pytest.raises(KnowledgeError, match="nested too deeply"):
        load("a.json", b"[" * 100_000 + b"]" * 100_000)


def test_half_a_surrogate_in_json_can_be_stored() -> None:
    document = load("a.json", b'{"name": "\\ud83d half"}')
    assert document.text.encode("utf-8")


# ── all ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_ending_decides_in_any_case() -> None:
    assert is_supported("REPORT.PDF")
    assert not is_supported("tool.exe")
    assert not is_supported("noending")
    assert texts(load("A.TXT", b"text")) == ["text"]


@pytest.mark.parametrize("ending", SUPPORTED)
@given(data=st.binary(max_size=300))
@settings(max_examples=cases(30, 1_000), deadline=None)
def test_any_bytes_give_a_document_or_a_knowledge_error(ending: str, data: bytes) -> None:
    try:
        document = load(f"x{ending}", data)
    except KnowledgeError:
        return
    assert all(document.text[block.start : block.end].strip() for block in document.blocks)


CONTAINERS = (
    ".hwp", ".hwpx", ".xls", ".doc", ".ppt", ".xlsb", ".odt", ".odp", ".ods", ".epub", ".msg", ".mht", ".mhtml", ".rtf",
)  # fmt: skip


@pytest.mark.parametrize("ending", SUPPORTED)
def test_no_text_gives_no_blocks(ending: str) -> None:
    workbook, slides = io.BytesIO(), io.BytesIO()
    openpyxl.Workbook().save(workbook)
    pptx.Presentation().save(slides)
    empty = {
        **dict.fromkeys(CONTAINERS), ".pdf": None, ".json": b"{}",
        **dict.fromkeys((".docx", ".docm", ".dotx"), word(docx.Document())),
        **dict.fromkeys((".xlsx", ".xlsm", ".xltx"), workbook.getvalue()),
        **dict.fromkeys((".pptx", ".pptm"), slides.getvalue()),
    }.get(ending, b" \n\n ")  # fmt: skip
    if empty is not None:
        assert load(f"x{ending}", empty).blocks == ()
