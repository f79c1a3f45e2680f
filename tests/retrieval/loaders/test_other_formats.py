"""Old Excel, OpenDocument, e-books, notebooks and Rich Text."""

from __future__ import annotations

import datetime
import io
import json
import struct
import zipfile

import pytest
import xlwt

from server.errors import KnowledgeError
from server.retrieval.loaders import load
from server.retrieval.loaders.document import BlockKind, Document
from tests.retrieval.loaders.ole import compound


def texts(document: Document) -> list[str]:
    return [document.text[block.start : block.end] for block in document.blocks]


def headings(document: Document) -> list[tuple[str, ...]]:
    return [block.heading for block in document.blocks]


def placed(document: Document) -> list[tuple[tuple[str, ...], str]]:
    return list(zip(headings(document), texts(document), strict=True))


def zipped(**parts: str) -> bytes:
    """Names with '__' for '/' and '_xml' for '.xml'."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name.replace("__", "/").replace("_xml", ".xml").replace("_opf", ".opf"), content)
    return out.getvalue()


# ── .xls ─────────────────────────────────────────────────────────────────────────────────────────


def book(*rows: list[object], formats: dict[tuple[int, int], str] | None = None, name: str = "재고") -> xlwt.Workbook:
    made = xlwt.Workbook()
    sheet = made.add_sheet(name)
    for at, row in enumerate(rows):
        for column, value in enumerate(row):
            if value is not None:
                shape = (formats or {}).get((at, column))
                sheet.write(at, column, value, xlwt.easyxf(num_format_str=shape) if shape else xlwt.easyxf())
    return made


def saved(made: xlwt.Workbook) -> bytes:
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def test_rows_of_an_old_sheet_carry_their_headers_and_row_numbers() -> None:
    made = book(["2026년 재고"], [], ["품목", "수량", "단가"], ["사과", 12, 900.5], [None, None, None], ["배", 0, None])
    document = load("a.xls", saved(made))
    assert texts(document) == ["2026년 재고", "품목: 사과\n수량: 12\n단가: 900.5", "품목: 배\n수량: 0"]
    assert [block.lines for block in document.blocks] == [(1, 1), (4, 4), (6, 6)]
    assert {block.heading for block in document.blocks} == {("재고",)}


def test_values_of_an_old_sheet_stand_as_they_are_shown() -> None:
    row = [0.15, 0.0725, 42, datetime.date(2026, 5, 4), 0.6041666667, 1.5, True, datetime.datetime(2026, 5, 4, 14, 30)]
    shapes = ["0%", "0.0%", "00000", "yyyy-mm-dd", "h:mm", "[h]:mm", "General", "yyyy-mm-dd h:mm"]
    made = book([f"c{at}" for at in range(8)], row, formats={(1, at): shape for at, shape in enumerate(shapes)})
    assert texts(load("a.xls", saved(made))) == [
        "c0: 15%\nc1: 7.25%\nc2: 00042\nc3: 2026-05-04\nc4: 14:30\nc5: 36:00\nc6: TRUE\nc7: 2026-05-04 14:30:00"
    ]


def test_a_cell_merged_downwards_counts_in_each_of_its_rows() -> None:
    made = book(["Region", "Plan", "Price"], [None, "Basic", 21], [None, "Pro", 39], ["South", "Pro", 44])
    made.get_sheet(0).write_merge(1, 2, 0, 0, "East")
    assert texts(load("a.xls", saved(made))) == [
        "Region: East\nPlan: Basic\nPrice: 21", "Region: East\nPlan: Pro\nPrice: 39",
        "Region: South\nPlan: Pro\nPrice: 44",
    ]  # fmt: skip


def test_headers_footers_and_boxes_of_an_old_sheet_are_read_and_charts_are_said() -> None:
    made = book(["name", "fee"], ["Mina", 3])
    made.get_sheet(0).header_str = b'&L&"Arial,Bold"&12Internal &D'
    made.get_sheet(0).footer_str = b"&C&P"
    stream = made.get_biff_data()
    end = struct.pack("<HH", 0x0A, 0)
    box = struct.pack("<HHHHHHH12xHH", 0x5D, 26, 0x15, 0x12, 6, 1, 0x6011, 0, 0)
    box += struct.pack("<HHHH6xHHI", 0x1B6, 18, 0, 0, 6, 8, 0)
    # a long text goes on in a record of its own
    box += struct.pack("<HH", 0x3C, 7) + b"\1" + "환불 ".encode("utf-16-le")
    box += struct.pack("<HH", 0x3C, 7) + b"\1" + "없음!".encode("utf-16-le") + struct.pack("<HH8x", 0x3C, 8)
    chart = struct.pack("<HHHH", 0x809, 16, 0x600, 0x20) + bytes(12) + end
    at = stream.rindex(end)
    document = load("a.xls", compound({"Workbook": stream[:at] + box + chart + stream[at:]}))
    assert texts(document) == ["name: Mina\nfee: 3", "Header: Internal", "환불 없음!"]
    assert document.omitted == ("1 chart",)


def test_an_old_sheet_that_is_none_says_so() -> None:
    with pytest.raises(KnowledgeError, match=r"not a \.xls file"):
        load("a.xls", compound({"Workbook": b"nothing"}))
    locked = (
        struct.pack("<HHHH", 0x809, 16, 0x600, 5) + bytes(12) + struct.pack("<HHHHHH", 0x2F, 54, 1, 1, 1, 0) + bytes(46)
    )
    with pytest.raises(KnowledgeError, match="encrypted with a password"):
        load("a.xls", compound({"Workbook": locked + bytes(4096)}))


def test_damage_in_an_old_sheet_does_no_harm() -> None:
    data = saved(book(["a", "b"], ["하나", 2]))
    for at in range(512, len(data), 61):
        try:
            load("a.xls", data[:at] + b"\xff\x7f" + data[at + 2 :])
        except KnowledgeError:
            continue


# ── OpenDocument ─────────────────────────────────────────────────────────────────────────────────

NAMES = "office style text table draw presentation dc svg xlink"
SPACES = " ".join(f'xmlns:{name}="urn:{name}"' for name in NAMES.split())


def opened(kind: str, body: str, styles: str = "", **others: str) -> bytes:
    inside = f"<office:body><office:{kind}>{body}</office:{kind}></office:body>"
    content = f"<office:document-content {SPACES}>{inside}</office:document-content>"
    return zipped(
        mimetype=f"application/vnd.oasis.opendocument.{kind}", content_xml=content,
        styles_xml=f"<office:document-styles {SPACES}>{styles}</office:document-styles>", **others,
    )  # fmt: skip


def test_odt_headings_lists_tables_and_what_hangs_on_paragraphs() -> None:
    note = (
        "<text:note text:note-class='footnote'><text:note-citation>1</text:note-citation><text:note-body>"
        "<text:p>ab 2027</text:p></text:note-body></text:note>"
    )
    comment = "<office:annotation><dc:creator>Jo</dc:creator><text:p>check this</text:p></office:annotation>"
    box = "<draw:frame><draw:text-box><text:p>Hotline 1577</text:p></draw:text-box></draw:frame>"
    cell = "<table:table-cell><text:p>{}</text:p></table:table-cell>".format
    document = load(
        "a.odt",
        opened(
            "text",
            "<text:tracked-changes><text:p>Thirty days</text:p></text:tracked-changes>"
            "<text:h text:outline-level='1'>Miete</text:h>"
            f"<text:p>Die <text:span>Kaution<text:s text:c='2'/>beträgt</text:span>{note}"
            f" 900<text:tab/>Euro{comment}.{box}</text:p>"
            "<text:list><text:list-item><text:p>Küche</text:p><text:list><text:list-item><text:p>Herd</text:p>"
            "</text:list-item></text:list></text:list-item><text:list-item><text:p>Bad</text:p></text:list-item></text:list>"
            "<text:h text:outline-level='2'>Zimmer</text:h><table:table><table:table-header-rows><table:table-row>"
            f"{cell('방')}{cell('m²')}</table:table-row></table:table-header-rows><table:table-row>{cell('A')}"
            f"<table:covered-table-cell/>{cell('12')}</table:table-row></table:table>"
            "<text:p><draw:frame><draw:image/><svg:desc>plan of the flat</svg:desc></draw:frame></text:p>",
            "<office:master-styles><style:master-page><style:footer><text:p>vertraulich</text:p></style:footer>"
            "</style:master-page></office:master-styles>",
        ),
    )
    assert placed(document) == [
        ((), "Footer: vertraulich"), (("Miete",), "Die Kaution  beträgt 900\tEuro."),
        (("Miete",), "Footnote 1: ab 2027"),
        (("Miete",), "Comment: check this"), (("Miete",), "Hotline 1577"), (("Miete",), "- Küche\n  - Herd\n- Bad"),
        (("Miete", "Zimmer"), "방 | m²\nA | 12"), (("Miete", "Zimmer"), "plan of the flat"),
    ]  # fmt: skip
    assert document.blocks[6].kind is BlockKind.TABLE
    assert document.omitted == ("1 picture",)


def test_odp_slides_are_pages_under_their_titles_with_notes() -> None:
    def frame(kind: str, text: str) -> str:
        inside = f"<draw:text-box><text:p>{text}</text:p></draw:text-box>"
        return f"<draw:frame presentation:class='{kind}'>{inside}</draw:frame>"

    slides = (
        f"<draw:page>{frame('title', '환불')}{frame('outline', '열흘 안에')}"
        f"<presentation:notes>{frame('notes', 'say it slowly')}</presentation:notes></draw:page>"
        f"<draw:page>{frame('title', 'Closed')}<presentation:notes/></draw:page>"
    )
    document = load("a.odp", opened("presentation", slides))
    assert placed(document) == [
        (("환불",), "열흘 안에"), (("환불", "Notes"), "say it slowly"), (("Closed",), "Closed"),
    ]  # fmt: skip
    assert [block.page for block in document.blocks] == [1, 1, 2]


def test_ods_rows_keep_their_numbers_over_repetitions() -> None:
    def row(*cells: str, more: str = "") -> str:
        return f"<table:table-row {more}>{''.join(cells)}</table:table-row>"

    def cell(text: str, more: str = "") -> str:
        return f"<table:table-cell {more}><text:p>{text}</text:p></table:table-cell>"

    empty = "<table:table-cell table:number-columns-repeated='16000'/>"
    body = (
        "<table:table table:name='요금'>"
        + row(empty, more="table:number-rows-repeated='4'") + row(cell("Zone"), cell("Fee"), empty)
        + row(cell("A", "table:number-rows-spanned='2'"), cell("15%"))
        + row("<table:covered-table-cell/>", cell("14:30"))
        + row(cell("B"), cell("00042"), more="table:number-rows-repeated='2'")
        + row(empty, more="table:number-rows-repeated='1048000'") + "</table:table>"
    )  # fmt: skip
    document = load("a.ods", opened("spreadsheet", body))
    assert texts(document) == [
        "Zone: A\nFee: 15%", "Zone: A\nFee: 14:30", "Zone: B\nFee: 00042", "Zone: B\nFee: 00042",
    ]  # fmt: skip
    assert [block.lines for block in document.blocks] == [(6, 6), (7, 7), (8, 8), (9, 9)]


def test_a_row_that_stands_millions_of_times_is_bounded_and_said() -> None:
    cell = "<table:table-cell table:number-columns-repeated='2'><text:p>x</text:p></table:table-cell>"
    row = f"<table:table-row table:number-rows-repeated='99999999'>{cell}</table:table-row>"
    body = f"<table:table table:name='s'>{row}</table:table>"
    document = load("a.ods", opened("spreadsheet", body))
    assert (len(document.blocks), document.blocks[-1].lines) == (9_999, (10_000, 10_000))
    assert document.omitted == ("the repetition of row 1, which stands 99,999,999 times",)


def test_an_opendocument_file_that_cannot_be_read_says_why() -> None:
    with pytest.raises(KnowledgeError, match="encrypted with a password"):
        load("a.odt", opened("text", "", **{"META-INF__manifest_xml": "<m><encryption-data/></m>"}))
    with pytest.raises(
        KnowledgeError, match=r"not a \.odt file: it is damaged or something else \(it has no content\)"
    ):
        load("a.odt", zipped(other="x"))
    with pytest.raises(KnowledgeError, match="nested too deeply"):
        load("a.odt", opened("text", "<text:section>" * 20_000 + "</text:section>" * 20_000))


# ── .epub ────────────────────────────────────────────────────────────────────────────────────────

CONTAINER = "<container><rootfiles><rootfile full-path='OPS/book.opf'/></rootfiles></container>"


def epub(chapters: dict[str, str], spine: list[str], **others: str) -> bytes:
    items = "".join(f"<item id='{at}' href='{at}.xhtml' media-type='application/xhtml+xml'/>" for at in chapters)
    order = "".join(f"<itemref idref='{at}'/>" for at in spine)
    opf = (
        "<package xmlns:dc='urn:dc'><metadata><dc:title>바다의 책</dc:title></metadata>"
        f"<manifest>{items}<item id='far' href='../../../etc/passwd' media-type='text/html'/></manifest>"
        f"<spine>{order}</spine></package>"
    )
    parts = {f"OPS__{at}.xhtml": text for at, text in chapters.items()}
    return zipped(mimetype="application/epub+zip", META__container="", **{
        "META-INF__container_xml": CONTAINER, "OPS__book_opf": opf, **parts, **others,
    })  # fmt: skip


def test_chapters_of_a_book_come_in_reading_order_under_its_title() -> None:
    chapters = {
        "b": "<html><head><title>바다의 책</title></head><body><h1>Second</h1><p>The tide.</p></body></html>",
        "a": "<html><head><title>바다의 책</title></head><body><h1>첫 장</h1><p>파도.</p></body></html>",
    }
    document = load("a.epub", epub(chapters, ["a", "b", "a", "far"]))
    assert placed(document) == [(("바다의 책", "첫 장"), "파도."), (("바다의 책", "Second"), "The tide.")]
    assert document.omitted == ("1 chapters that the book names and does not hold",)


def test_a_book_with_copy_protection_says_so() -> None:
    locked = "<encryption><EncryptedData><CipherReference URI='OPS/a.xhtml'/></EncryptedData></encryption>"
    with pytest.raises(KnowledgeError, match="copy protection"):
        load("a.epub", epub({"a": "x"}, ["a"], **{"META-INF__encryption_xml": locked}))
    fonts = locked.replace("a.xhtml", "font.otf")
    assert texts(load("a.epub", epub({"a": "<p>free"}, ["a"], **{"META-INF__encryption_xml": fonts}))) == ["free"]
    with pytest.raises(KnowledgeError, match=r"not a \.epub file: .* \(it has no table of its parts\)"):
        load("a.epub", zipped(other="x"))


# ── notebooks ────────────────────────────────────────────────────────────────────────────────────


def notebook(*cells: dict[str, object]) -> Document:
    source = {"cells": cells, "metadata": {"language_info": {"name": "python"}}, "nbformat": 4}
    return load("a.ipynb", json.dumps(source).encode())


def code(source: str | list[str], *outputs: dict[str, object]) -> dict[str, object]:
    return {"cell_type": "code", "source": source, "outputs": outputs}


def test_cells_stand_under_the_headings_of_the_cells_above() -> None:
    document = notebook(
        {"cell_type": "markdown", "source": ["# 매출\n", "지난달"]},
        code(["total = 3\n", "# not a heading"], {"output_type": "stream", "text": ["\x1b[31mred\x1b[0m 3\n"]}),
        code("1/0", {"output_type": "error", "ename": "ZeroDivisionError", "evalue": "division by zero"}),
        code(
            "df",
            {"output_type": "execute_result", "data": {"text/plain": "a  b", "text/html": "<b>", "image/png": "x"}},
        ),
        {"cell_type": "markdown", "source": "```\nopen"},
        {"cell_type": "markdown", "source": "## Later\n\nlast words"},
    )
    assert placed(document) == [
        (("매출",), "지난달"), (("매출",), "```python\ntotal = 3\n# not a heading\n```"),
        (("매출",), "```\nred 3\n```"),
        (("매출",), "```python\n1/0\n```"), (("매출",), "```\nZeroDivisionError: division by zero\n```"),
        (("매출",), "```python\ndf\n```"), (("매출",), "```\na  b\n```"), (("매출",), "```\nopen\n\n```"),
        (("매출", "Later"), "last words"),
    ]  # fmt: skip
    assert (document.numbered, document.omitted) == (False, ("1 picture among the outputs",))


def test_long_outputs_are_bounded_and_code_with_fences_stays_whole() -> None:
    document = notebook(code("print('```')\n# x", {"output_type": "stream", "text": "y" * 5_000}), code("later"))
    assert texts(document)[0] == "````python\nprint('```')\n# x\n````"
    assert (document.text.count("y"), document.omitted) == (4_002, ("the end of 1 output over 4,000 characters",))


def test_old_notebooks_and_what_is_none() -> None:
    old = {
        "worksheets": [
            {"cells": [{"cell_type": "heading", "level": 2, "source": "Plan"}, {"cell_type": "code", "input": "a = 1"}]}
        ]
    }
    assert placed(load("a.ipynb", json.dumps(old).encode())) == [(("Plan",), "```\na = 1\n```")]
    with pytest.raises(KnowledgeError, match="not a notebook: it is not valid JSON"):
        load("a.ipynb", b"{oops")
    with pytest.raises(KnowledgeError, match="not a notebook: it holds no cells"):
        load("a.ipynb", b"[1]")


# ── Rich Text ────────────────────────────────────────────────────────────────────────────────────


def rtf(body: str, head: str = "\\ansi\\ansicpg1252") -> Document:
    return load("a.rtf", ("{\\rtf1" + head + body + "}").encode("cp1252"))


def hexed(text: str, encoding: str) -> str:
    return "".join(f"\\'{byte:02x}" for byte in text.encode(encoding))


def test_rich_text_has_its_headings_tables_notes_and_boxes() -> None:
    document = rtf(
        "{\\fonttbl{\\f0 Arial;}}{\\stylesheet{\\s1 heading 1;}}{\\info{\\title no}}{\\header top line\\par}"
        "\\pard\\outlinelevel0 Lease\\par\\pard Rent is 700{\\footnote per month} euros.\\line Due on the first.\\par"
        "\\pard\\intbl Room\\cell Size\\cell\\row\\intbl A\\cell 12 m\\cell\\row\\pard"
        "{\\*\\shpinst{\\sp{\\sn x}{\\sv y}}{\\shptxt Boxed words\\par}}After.\\par"
        '{\\v hidden}{\\deleted gone}{\\field{\\*\\fldinst HYPERLINK "a"}{\\fldrslt a link}} end'
        "{\\pict ffd8}{\\*\\unknown x}\\par"
    )
    assert placed(document) == [
        (("Lease",), "Header: top line"), (("Lease",), "Rent is 700 euros.\nDue on the first."),
        (("Lease",), "Footnote: per month"), (("Lease",), "Room | Size\nA | 12 m"), (("Lease",), "After."),
        (("Lease",), "Boxed words"), (("Lease",), "a link end"),
    ]  # fmt: skip
    assert document.omitted == ("1 picture",)


@pytest.mark.parametrize(
    ("text", "encoding", "charset"),
    [
        ("전세 보증금", "cp949", 129),
        ("敷金は二か月", "cp932", 128),
        ("押金兩個月", "gbk", 134),
        ("Залог", "cp1251", 204),
    ],
)
def test_rich_text_in_the_code_page_of_its_font(text: str, encoding: str, charset: int) -> None:
    fonts = f"{{\\fonttbl{{\\f0\\fcharset0 A;}}{{\\f1\\fcharset{charset} B;}}}}"
    assert texts(rtf(f"{fonts}\\f1 {hexed(text, encoding)}\\f0  {hexed('é', 'cp1252')}\\par")) == [f"{text} é"]


def test_rich_text_in_unicode_with_what_stands_for_it() -> None:
    assert texts(rtf("\\uc1\\u44032?\\u-10179?\\u-8684?{\\uc2\\u45208\\'b3\\'aa}\\u8364\\'80!")) == ["가\U0001f614나€!"]


def test_rich_text_that_outlook_made_of_a_page_is_that_page() -> None:
    body = (
        "\\fromhtml1 {\\*\\htmltag64 <p>}Room &amp{\\*\\htmltag84 &lt;}\\htmlrtf <\\htmlrtf0 7"
        "{\\*\\htmltag72 </p>}\\htmlrtf \\par \\htmlrtf0{\\*\\htmltag64 <h1>}Next{\\*\\htmltag72 </h1>}"
    ).replace("&amp", "")
    assert texts(rtf(body)) == ["Room <7", "Next"]


def test_rich_text_that_is_damaged_is_read_or_refused() -> None:
    with pytest.raises(KnowledgeError, match=r"not a \.rtf file"):
        load("a.rtf", b"\0\1")
    with pytest.raises(KnowledgeError, match="nested too deeply"):
        rtf("{" * 20_000)
    assert texts(rtf("}}} a \\'zz b \\bin3 xyz c {\\footnote open")) == ["a zz b  c", "Footnote: open"]
