"""Excel files as people fill them in: each value with its name, as it is shown, in its row."""

from __future__ import annotations

import datetime
import io
from collections.abc import Callable

import openpyxl
import pytest
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from openpyxl.styles import Font
from openpyxl.worksheet.table import Table
from openpyxl.worksheet.worksheet import Worksheet

from server.retrieval.loaders import load
from server.retrieval.loaders.document import Document
from server.retrieval.loaders.office.number_format import shown_number
from tests.retrieval.loaders import office_files
from tests.retrieval.loaders.office_files import headings, texts


def sheet(rows: list[list[object]], change: Callable[[Worksheet], object] = lambda _: None) -> Document:
    build = openpyxl.Workbook()
    build.active.title = "S"
    for row in rows:
        build.active.append(row)
    change(build.active)
    out = io.BytesIO()
    build.save(out)
    return load("a.xlsx", out.getvalue())


def numbered(document: Document) -> dict[int, str]:
    return {block.lines[0]: text for block, text in zip(document.blocks, texts(document), strict=True) if block.lines}


# ── merged cells and headers ─────────────────────────────────────────────────────────────────────


def test_a_value_merged_over_rows_belongs_to_each_of_them() -> None:
    rows = [["부서", "name", "days"], ["영업", "Kim", 3], [None, "Lee", 4], [None, "Park", 5], ["재무", "Choi", 6]]
    document = sheet(rows, lambda it: it.merge_cells("A2:A4"))
    assert numbered(document) == {
        2: "부서: 영업\nname: Kim\ndays: 3", 3: "부서: 영업\nname: Lee\ndays: 4", 4: "부서: 영업\nname: Park\ndays: 5",
        5: "부서: 재무\nname: Choi\ndays: 6",
    }  # fmt: skip


def test_a_header_of_two_rows_names_its_columns_by_both() -> None:
    def merge(it: Worksheet) -> None:
        it.merge_cells("A1:A2")
        it.merge_cells("B1:C1")
        it.merge_cells("D1:E1")

    rows = [["Team", "North", None, "South", None], [None, "in", "out", "in", "out"], ["Sales", 1, 2, 3, 4]]
    assert texts(sheet(rows, merge)) == ["Team: Sales\nNorth in: 1\nNorth out: 2\nSouth in: 3\nSouth out: 4"]


def test_a_title_over_the_whole_table_is_no_header() -> None:
    rows = [["Prices", None, None], ["name", "net", "gross"], ["Lamp", 1, 2]]
    assert texts(sheet(rows, lambda it: it.merge_cells("A1:C1"))) == ["Prices", "name: Lamp\nnet: 1\ngross: 2"]


@pytest.mark.parametrize(
    "second",
    [
        [["도시", "인구"], ["Oslo", 700]],
        [["Cities"], ["city", "people"], ["Oslo", "many"]],
        [[None, None, "city", "people"], [None, None, "Oslo", "many"]],
    ],
)
def test_a_table_behind_a_blank_row_has_its_own_header(second: list[list[object]]) -> None:
    document = sheet([["name", "maker"], ["Lamp", "Acme"], [], *second])
    (first, *_), last = texts(document), texts(document)[-1]
    assert first == "name: Lamp\nmaker: Acme"
    assert last.split(":")[0] in ("도시", "city")
    assert document.blocks[-1].lines == (3 + len(second), 3 + len(second))


def test_a_bold_row_behind_a_blank_row_is_a_header() -> None:
    def bold(it: Worksheet) -> None:
        for cell in it[4]:
            cell.font = Font(bold=True)

    rows = [["name", "maker"], ["Lamp", "Acme"], [], ["city", "land"], ["Oslo", "Norway"]]
    assert texts(sheet(rows, bold))[-1] == "city: Oslo\nland: Norway"
    assert texts(sheet(rows))[-1] == "name: Oslo\nmaker: Norway"


def test_a_table_that_the_file_names_has_its_header_there() -> None:
    rows = [["name", "n"], ["Lamp", 1], ["city", "zip"], ["Oslo", 2]]
    document = sheet(rows, lambda it: it.add_table(Table(displayName="T", ref="A3:B4")))
    assert texts(document)[-1] == "city: Oslo\nzip: 2"


def test_data_without_a_header_is_not_taken_for_one() -> None:
    assert texts(sheet([["Lamp", 3], ["Vase", 4]])) == ["Lamp | 3", "Vase | 4"]
    assert texts(sheet([["Team", 2030, 2031], ["Sales", 4, 5]])) == ["Team: Sales\n2030: 4\n2031: 5"]


def test_headers_that_no_row_names_are_kept() -> None:
    assert texts(sheet([["name", "remark"], ["Lamp", None]])) == ["name: Lamp", "No values: remark"]


# ── values as they are shown ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "code", "shown"),
    [
        ("0.15", "0%", "15%"), ("0.375", "0.0%", "37.5%"), ("42", "00000", "00042"), ("1234.5", "#,##0.00", "1,234.50"),
        ("4200", "[$₩-412]#,##0", "₩4,200"), ("1500", '#,##0"원"', "1,500원"), ("-5", "#,##0_);(#,##0)", "(5)"),
        ("-1234.5", "#,##0.00\\ [$€-407]", "-1,234.50 €"), ("0", '0;-0;"none"', "none"),
        ("2500000", "0.0,,\\M", "2.5M"),
        ("12345", "0.00E+00", "1.23E+04"), ("3.25", "# ?/?", "3 1/4"), ("0.5", "?/4", "2/4"),
        ("1012345678", "000-0000-0000", "010-1234-5678"), ("150", '[>100]"high";"low"', "high"), ("7", ";;;", "7"),
        ("0.125", "0.00", "0.13"), ("0.30000000000000004", "General", "0.3"), ("-0.001", "0.0", "0.0"),
        ("0.6041666666666666", "hh:mm", "14:30"), ("0.75", "h:mm AM/PM", "6:00 PM"), ("1.5", "[h]:mm", "36:00"),
        ("46143", 'yyyy"년" m"월" d"일"', "2026년 5월 1일"), ("46143", "dddd, d mmmm yy", "Friday, 1 May 26"),
        ("46143.5", "m/d/yyyy h:mm", "5/1/2026 12:00"), ("0.00001", "mm:ss.0", "00:00.9"), ("-3", "yyyy", "-3"),
        ("46143", "d a", "1 a"), ("46143", "d (aaa)", "1 (Fri)"),
        ("1e300", "yyyy", "1E+300"), ("nan", "0", "nan"), ("x", "0", "x"), ("5", '"' * 9, "5"), ("1", "0" * 5_000, "1"),
    ],
)  # fmt: skip
def test_a_number_is_shown_by_its_format(value: str, code: str, shown: str) -> None:
    found = shown_number(value, code)
    assert (found.lstrip("0") if len(code) > 1_000 else found) == shown


def test_dates_count_from_where_the_file_says() -> None:
    assert shown_number("0", "yyyy-mm-dd", since_1904=True) == "1904-01-01"
    assert shown_number("1", "yyyy-mm-dd") == "1900-01-01"


def test_formats_of_cells_are_found() -> None:
    def formats(it: Worksheet) -> None:
        for place, code in {"B2": "0%", "C2": "hh:mm", "D2": "00000", "E2": "#,##0 [$EUR]"}.items():
            it[place].number_format = code

    rows = [["n", "share", "start", "code", "fee"], ["x", 0.15, datetime.time(14, 30), 42, 1234]]
    assert texts(sheet(rows, formats)) == ["n: x\nshare: 15%\nstart: 14:30\ncode: 00042\nfee: 1,234 EUR"]


# ── beside the cells ─────────────────────────────────────────────────────────────────────────────


def test_what_is_hidden_is_read_and_called_hidden() -> None:
    build = openpyxl.Workbook()
    build.active.append(["x", "y"])
    secret = build.create_sheet("비밀")
    for row in (["name", "cost"], ["Lamp", 1], ["Vase", 2]):
        secret.append(row)
    secret.sheet_state = "hidden"
    secret.row_dimensions[3].hidden = True
    secret.column_dimensions["B"].hidden = True
    out = io.BytesIO()
    build.save(out)
    document = load("a.xlsx", out.getvalue())
    assert texts(document)[1:] == [
        "name: Lamp\ncost (hidden column): 1", "name: Vase\ncost (hidden column): 2\n(hidden row)",
    ]  # fmt: skip
    assert headings(document)[1:] == [("비밀 (hidden sheet)",)] * 2


def test_comments_stand_in_their_rows_and_charts_behind() -> None:
    def more(it: Worksheet) -> None:
        it["B2"].comment = Comment("since May", "Ines")
        it["B9"].comment = Comment("empty cell", "Ines")
        chart = BarChart()
        chart.title = "분기 매출"
        chart.add_data(Reference(it, min_col=2, min_row=1, max_row=2), titles_from_data=True)
        it.add_chart(chart, "D4")
        it.oddHeader.center.text = "Nordwind &D"

    document = sheet([["name", "n"], ["Lamp", 1]], more)
    assert texts(document)[:2] == [
        "name: Lamp\nn: 1\nComment on B2 by Ines: since May",
        "Comment on B9 by Ines: empty cell",
    ]
    assert "분기 매출" in document.text
    assert texts(document)[-1] == "Nordwind"


def test_formulas_without_values_are_counted_with_their_places() -> None:
    rows: list[list[object]] = [["a", "b"], *([n, "=A2*2"] for n in range(5))]
    (said,) = sheet(rows).omitted
    assert said == "5 formulas have no saved value (S!B2, S!B3, S!B4, …): open the file in Excel and save it"


def test_rows_and_cells_without_places_follow_each_other() -> None:
    rows = "<row><c t='str'><v>a</v></c><c t='str'><v>b</v></c></row>" * 2
    assert [block.lines for block in load("a.xlsx", office_files.sheet(rows)).blocks] == [(2, 2)]


def test_rich_text_readings_escapes_and_errors() -> None:
    shared = (
        "<sst><si><r><t>東</t></r><r><t>京</t></r><rPh><t>トウキョウ</t></rPh></si><si><t>a_x000D_b_x_y</t></si></sst>"
    )
    rows = "<row><c t='s'><v>0</v></c><c t='s'><v>1</v></c><c t='e'><v>#N/A</v></c><c t='s'><v>99</v></c></row>"
    assert texts(load("a.xlsx", office_files.sheet(rows, t=shared))) == ["東京 | a b_x_y | #N/A"]


def test_a_merge_of_the_whole_sheet_costs_nothing() -> None:
    rows = "".join(f"<row r='{at}'><c r='B{at}'><v>{at}</v></c></row>" for at in range(1, 2_001))
    merges = "".join("<mergeCell ref='A1:XFD1048576'/>" for _ in range(2_000))
    assert len(load("a.xlsx", office_files.sheet(rows, merges)).blocks) == 2_000


@pytest.mark.parametrize("ending", ["xlsx", "xlsm", "xltx"])
def test_templates_and_files_with_macros_are_read_alike(ending: str) -> None:
    assert texts(load(f"a.{ending}", office_files.sheet("<row><c t='str'><v>alike</v></c></row>"))) == ["alike"]
