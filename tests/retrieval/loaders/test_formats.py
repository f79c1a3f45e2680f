"""Slides, sheets, e-mail, reStructuredText, JSON lines and source code."""

from __future__ import annotations

import datetime
import io
from email.message import EmailMessage

import openpyxl
import pptx
import pytest
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from server.errors import KnowledgeError
from server.retrieval.loaders import SUPPORTED, load
from server.retrieval.loaders import document as documents
from server.retrieval.loaders.document import BlockKind, Document


def texts(document: Document) -> list[str]:
    return [document.text[block.start : block.end] for block in document.blocks]


def headings(document: Document) -> list[tuple[str, ...]]:
    return [block.heading for block in document.blocks]


def read(name: str, source: str) -> Document:
    return load(name, source.encode())


# ── PowerPoint ───────────────────────────────────────────────────────────────────────────────────


def slides(build: pptx.presentation.Presentation) -> bytes:
    out = io.BytesIO()
    build.save(out)
    return out.getvalue()


def test_each_slide_is_a_page_under_its_title_with_its_notes() -> None:
    build = pptx.Presentation()
    first = build.slides.add_slide(build.slide_layouts[1])
    first.shapes.title.text = "Returns\nand refunds"
    frame = first.placeholders[1].text_frame
    frame.text = "Within 45 days"
    below = frame.add_paragraph()
    below.text, below.level = "with the receipt", 1
    first.notes_slide.notes_text_frame.text = "Mention the 환불 form."
    title_only = build.slides.add_slide(build.slide_layouts[5])
    title_only.shapes.title.text = "Closed on Mondays"
    document = load("a.pptx", slides(build))
    assert texts(document) == ["Within 45 days\n  - with the receipt", "Mention the 환불 form.", "Closed on Mondays"]
    assert headings(document) == [("Returns and refunds",), ("Returns and refunds", "Notes"), ("Closed on Mondays",)]
    assert [block.page for block in document.blocks] == [1, 1, 2]


def test_tables_charts_and_groups_of_a_slide_are_read() -> None:
    build = pptx.Presentation()
    slide = build.slides.add_slide(build.slide_layouts[6])
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(1), Inches(4), Inches(1)).table
    for (row, column), text in {(0, 0): "part", (0, 1): "years", (1, 0): "battery", (1, 1): "1"}.items():
        table.cell(row, column).text = text
    chart = CategoryChartData()
    chart.categories = ["May", "June"]
    chart.add_series("sales", (12.5, 14))
    slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(1), Inches(3), Inches(4), Inches(2), chart)
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(Inches(1), Inches(6), Inches(2), Inches(1)).text_frame.text = "in a group"
    document = load("a.pptx", slides(build))
    assert texts(document) == ["part | years\nbattery | 1", " | sales\nMay | 12.5\nJune | 14", "in a group"]
    assert [block.kind for block in document.blocks] == [BlockKind.TABLE, BlockKind.TABLE, BlockKind.TEXT]
    assert document.blocks[0].header == "part | years"


# ── Excel ────────────────────────────────────────────────────────────────────────────────────────


def book(*sheets: tuple[str, list[list[object]]]) -> bytes:
    build = openpyxl.Workbook()
    build.remove(build.active)
    for name, rows in sheets:
        sheet = build.create_sheet(name)
        for row in rows:
            sheet.append(row)
    out = io.BytesIO()
    build.save(out)
    return out.getvalue()


def test_rows_of_a_sheet_carry_their_headers_sheet_and_row_number() -> None:
    day, moment = datetime.date(2026, 5, 1), datetime.datetime(2026, 5, 1, 9, 30)
    data = book(
        ("가격", [["이름", "price", None, "since"], ["램프", 39.5, "extra", day], [], ["꽃병", 12, None, moment]]),
        ("Staff", [["name", "open"], ["Kim", True]]),
    )
    document = load("a.xlsx", data)
    assert texts(document) == [
        "이름: 램프\nprice: 39.5\ncolumn 3: extra\nsince: 2026-05-01",
        "이름: 꽃병\nprice: 12\nsince: 2026-05-01 9:30:00",
        "name: Kim\nopen: TRUE",
    ]
    assert headings(document) == [("가격",), ("가격",), ("Staff",)]
    assert [block.lines for block in document.blocks] == [(2, 2), (4, 4), (2, 2)]
    assert all(block.kind is BlockKind.ROW for block in document.blocks)


def test_what_stands_above_the_headers_is_text() -> None:
    document = load("a.xlsx", book(("S", [["Prices of 2026"], ["name", "price"], ["Lamp", 39]])))
    assert texts(document) == ["Prices of 2026", "name: Lamp\nprice: 39"]
    assert [block.kind for block in document.blocks] == [BlockKind.TEXT, BlockKind.ROW]


def test_a_sheet_of_one_row_is_data() -> None:
    assert texts(load("a.xlsx", book(("S", [["Lamp", 39]])))) == ["Lamp | 39"]


def test_a_formula_counts_with_its_saved_value_only() -> None:
    document = load("a.xlsx", book(("S", [["name", "sum"], ["all", "=1+1"]])))
    assert texts(document) == ["name: all", "No values: sum"]
    assert document.omitted == ("1 formula has no saved value (S!B2): open the file in Excel and save it",)


# ── tab-separated, JSON lines ────────────────────────────────────────────────────────────────────


def test_tsv_is_parted_at_tabs_even_where_the_header_has_more_commas() -> None:
    assert texts(read("a.tsv", "name, first, last\tage\nKim, A, B\t7\n")) == ["name, first, last: Kim, A, B\nage: 7"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp949", "euc-kr"])
@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("a.tsv", "이름\t가격\n꽃병\t12\n", "이름: 꽃병\n가격: 12"),
        ("a.csv", "이름,가격\n꽃병,12\n", "이름: 꽃병\n가격: 12"),
        ("a.jsonl", '{"질문": "반품?", "답": "45일"}\n', "질문: 반품?\n답: 45일"),
        ("a.rst", "반품 안내\n=========\n\n45일 안에 신청하세요.\n", "45일 안에 신청하세요."),
        ("a.py", "# 반품 기한을 계산합니다.\n", "# 반품 기한을 계산합니다."),
        ("a.html", "<h1>반품</h1><p>45일 안에 신청하세요.</p>", "45일 안에 신청하세요."),
    ],
)
def test_encodings_of_text_formats_are_recognised(name: str, source: str, expected: str, encoding: str) -> None:
    assert texts(load(name, source.encode(encoding))) == [expected]


def test_json_lines_know_their_line() -> None:
    source = '{"q": "returns", "a": {"days": 45}}\n\n{"items": [{"name": "Lamp"}, {"name": "Vase"}]}\n"plain"\n'
    document = read("a.jsonl", source)
    assert texts(document) == ["q: returns\na.days: 45", "name: Lamp", "name: Vase", "plain"]
    assert headings(document) == [(), ("items 1",), ("items 2",), ()]
    assert [block.lines for block in document.blocks] == [(1, 1), (3, 3), (3, 3), (4, 4)]
    assert load("a.ndjson", source.encode()) == document


def test_a_broken_line_is_named() -> None:
    with pytest.raises(KnowledgeError, match="line 3, column 2"):
        read("a.jsonl", "{}\n\n{oops}\n{}\n")


# ── e-mail ───────────────────────────────────────────────────────────────────────────────────────


def mail(subject: str, body: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Kim <kim@example.com>"
    message["To"] = "shop@example.com"
    message["Subject"] = subject
    message["Date"] = "Fri, 01 May 2026 09:30:00 +0900"
    message.set_content(body)
    return message


def test_an_email_is_read_under_its_subject_and_names_its_attachments() -> None:
    message = mail("반품 문의", "First paragraph.\n\nSecond one.\n")
    message.add_alternative("<p>First paragraph.</p>", subtype="html")
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="영수증.pdf")
    message.add_attachment("a,b", subtype="csv", filename="list.csv")
    document = load("a.eml", message.as_bytes())
    assert texts(document) == [
        "From: Kim <kim@example.com>\nTo: shop@example.com\nDate: Fri, 01 May 2026 09:30:00 +0900",
        "First paragraph.", "Second one.", "Attachments: 영수증.pdf, list.csv", "a,b",
    ]  # fmt: skip
    assert set(headings(document)) == {("반품 문의",), ("반품 문의", "list.csv")}


def test_an_email_of_html_alone_is_read_as_a_page() -> None:
    message = EmailMessage()
    message["Subject"] = "News"
    message.set_content("<h2>Sale</h2><p>All <b>lamps</b></p><script>x()</script>", subtype="html")
    document = load("a.eml", message.as_bytes())
    assert (texts(document), headings(document)) == (["All lamps"], [("News", "Sale")])


def test_a_forwarded_email_is_read_under_both_subjects() -> None:
    outer = mail("Fwd: lamp", "See below.")
    outer.add_attachment(mail("The lamp", "It is broken."))
    document = load("a.eml", outer.as_bytes())
    assert "It is broken." in texts(document)
    assert headings(document)[texts(document).index("It is broken.")] == ("Fwd: lamp", "The lamp")
    assert not any("Attachments" in text for text in texts(document))


@pytest.mark.parametrize("charset", ["euc-kr", "ks_c_5601-1987", "utf-8", "no-such-charset"])
def test_korean_email_of_old_programs(charset: str) -> None:
    encoding = "utf-8" if charset == "utf-8" else "cp949"
    kind = f"Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: 8bit"
    data = f"Subject: 배송 지연 똠\r\n{kind}\r\n\r\n똠방각하 주문이 늦었습니다.\r\n".encode(encoding)
    document = load("a.eml", data)
    assert (texts(document), headings(document)) == (["똠방각하 주문이 늦었습니다."], [("배송 지연 똠",)])


def test_an_email_saved_as_utf16() -> None:
    assert texts(load("a.eml", "Subject: Hi\n\nText of it.\n".encode("utf-16"))) == ["Text of it."]


def test_what_is_not_an_email_says_so() -> None:
    with pytest.raises(KnowledgeError, match="not an e-mail"):
        load("a.eml", b"\x00\x01\x02 nothing")


# ── reStructuredText ─────────────────────────────────────────────────────────────────────────────

RST = """\
=====
 Shop
=====

Intro text
over lines.

.. _returns:

Returns
-------

See::

    45 days

    no more

after *that*.

.. code-block:: python

   x = 1

Gifts
~~~~~

+---+---+
| a | b |
+===+===+
| 1 | 2 |
+---+---+

=====  =====
name   price
=====  =====
lamp   3
=====  =====

----

Empty
-----

배송
----
사흘 안에.
"""


def test_rst_sections_code_and_tables() -> None:
    document = read("a.rst", RST)
    shop, returns, gifts = ("Shop",), ("Shop", "Returns"), ("Shop", "Returns", "Gifts")
    kinds = [block.kind.value for block in document.blocks]
    assert list(zip(headings(document), kinds, texts(document), strict=True)) == [
        (shop, "text", "Intro text\nover lines."),
        (returns, "text", "See::"),
        (returns, "code", "    45 days\n\n    no more"),
        (returns, "text", "after *that*."),
        (returns, "code", ".. code-block:: python\n\n   x = 1"),
        (gifts, "table", "+---+---+\n| a | b |\n+===+===+\n| 1 | 2 |\n+---+---+"),
        (gifts, "table", "=====  =====\nname   price\n=====  =====\nlamp   3\n=====  ====="),
        (("Shop", "Empty"), "text", "Empty"),
        (("Shop", "배송"), "text", "사흘 안에."),
    ]
    tables = [block for block in document.blocks if block.kind is BlockKind.TABLE]
    assert [table.header.count("\n") for table in tables] == [2, 2]
    assert document.numbered


def test_rst_never_includes_another_file() -> None:
    assert texts(read("a.rst", ".. include:: /etc/passwd\n\n.. raw:: html\n   :file: /etc/passwd\n")) == [
        ".. include:: /etc/passwd", ".. raw:: html\n   :file: /etc/passwd",
    ]  # fmt: skip


# ── source code ──────────────────────────────────────────────────────────────────────────────────

PYTHON = '''"""Module."""
import os

# helper
@cache
def total(items):
    def inner(): ...
    if items:
        return 1

    return 2


class Shop(Base):
    """class of shops: def nothing"""
    # the price
    @property
    def price(self) -> int:
        return 1

    async def close(
        self,
    ):
        pass

LIMIT = 2
'''


def outline(name: str, source: str) -> list[tuple[str, str]]:
    """Path and first line of each block; every line that is not blank must be in one."""
    document = read(name, source)
    assert document.numbered
    kept = "\n".join(texts(document)).split("\n")
    assert [line for line in kept if line.strip()] == [line.rstrip() for line in source.split("\n") if line.strip()]
    assert {block.kind for block in document.blocks} == {BlockKind.CODE}
    pairs = zip(headings(document), texts(document), strict=True)
    return [(".".join(path), text.split("\n")[0].strip()) for path, text in pairs]


def test_python_is_cut_at_its_definitions() -> None:
    assert outline("a.py", PYTHON) == [
        ("", '"""Module."""'), ("total", "# helper"), ("Shop", "class Shop(Base):"), ("Shop.price", "# the price"),
        ("Shop.close", "async def close("), ("", "LIMIT = 2"),
    ]  # fmt: skip


TYPESCRIPT = """\
import x from 'y';
export default class Foo<T> extends Bar {
  private x = 1;
  async get(id: number) {
    if (id) {
      return call(id);
    }
  }
}
export const add = (a) => {
  return a;
};
function main()
{
  run();
}
main();
"""
JAVA = """\
package a;
/** Shop. */
public class Shop {
    int n;
    @Override
    public int total(List<Item> all) {
        for (Item i : all) {
            sum(i);
        }
        return 0;
    }
    Shop() { }
}
"""
C = """\
#include <stdio.h>
static int add(int a,
               int b)
{
    return a + b;
}
int main(void) {
#ifdef A
  puts("a");
#endif
}
int later(int);
"""
GO = """\
package main
// Add adds.
func (s *Shop) Add(x int) error {
\treturn nil
}
type T struct {
\tA int
}
"""
RUST = """\
use io;
/// P.
#[derive(Debug)]
pub struct P { x: i32 }
impl<T> Foo for P {
    pub fn new() -> P {
        P
    }
}
"""
SQL = """\
CREATE TABLE IF NOT EXISTS shop.items (
  id INT
);
-- v
create or replace view v as select 1;
"""


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("a.ts", TYPESCRIPT, ["", "Foo", "Foo.get", "add", "main", ""]),
        ("A.java", JAVA, ["", "Shop", "Shop.total", "Shop.Shop"]),
        ("a.c", C, ["", "add", "main", ""]),
        ("a.go", GO, ["", "Add", "T"]),
        ("a.rs", RUST, ["", "P", "Foo", "Foo.new"]),
        ("a.rb", "module A\n  class B < C\n    def x?(y)\n      1\n    end\n  end\nend\n", ["A", "A.B", "A.B.x?"]),
        ("a.kt", "class A {\n  fun x(): Int = 1\n}\nfun main() = 1\n", ["A", "A.x", "main"]),
        ("a.sh", "#!/bin/sh\nset -e\n\n# builds\nbuild() {\n  make\n}\nbuild\n", ["", "build", ""]),
        ("a.sql", SQL, ["shop.items", "v"]),
        ("a.toml", "a = 1\n[tool.x]\nb = 2\n\n[[tool.y]]\nc = 3\n", ["", "tool.x", "tool.y"]),
        ("a.yaml", "a: 1\nb:\n  - c\n\nd: 2\n", ["", ""]),
    ],
)
def test_other_languages_are_cut_at_their_definitions(name: str, source: str, expected: list[str]) -> None:
    assert [path for path, _ in outline(name, source)] == expected


def test_every_kind_of_code_keeps_every_line() -> None:
    for ending in SUPPORTED[SUPPORTED.index(".py") :]:
        outline(f"a{ending}", PYTHON)


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────


def test_headings_and_headers_that_every_chunk_would_carry_are_short() -> None:
    document = read("a.md", f"# {'long ' * 500}\n\ntext\n\n| {'head ' * 500} | b |\n|---|---|\n| 1 | 2 |\n")
    assert all(len(title) <= documents.MAX_TITLE for path in headings(document) for title in path)
    assert document.blocks[1].header == ""
    deep = read("a.json", '{"a": ' * 100 + f'["{"x" * 900}", {{"b": 1}}]' + "}" * 100)
    assert max(map(len, headings(deep))) == documents.MAX_DEPTH


def test_a_block_that_is_too_long_is_cut_between_words() -> None:
    words = "word " * (3 * documents.MAX_BLOCK // 5)
    document = read("a.txt", f"before\n\n{words}\n\nafter")
    assert all(len(text) <= documents.MAX_BLOCK for text in texts(document))
    assert "".join(" ".join(texts(document)).split()) == "".join(f"before {words} after".split())
    assert {text[-4:] for text in texts(document)[1:-1]} == {"word"}
    unbroken = read("a.txt", "x" * (2 * documents.MAX_BLOCK + 1))
    assert [len(text) for text in texts(unbroken)] == [documents.MAX_BLOCK, documents.MAX_BLOCK, 1]


def test_more_than_can_be_indexed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_BLOCKS", 10)
    with pytest.raises(KnowledgeError, match=r"11 paragraphs or rows, .*: split the file"):
        read("a.txt", "line\n\n" * 11)
