"""CSV as programs and people write it: the right delimiter, header and lines, and no field missing."""

from __future__ import annotations

import pytest

from server.retrieval.loaders import load
from tests.retrieval.loaders.office_files import texts


def read(source: str) -> list[tuple[str, tuple[int, int] | None]]:
    document = load("a.csv", source.encode())
    return list(zip(texts(document), (block.lines for block in document.blocks), strict=True))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_by_the_rows(delimiter: str) -> None:
    rows = (("도시", '"a, b; c | d"', "값"), ("전주", "x, y", "1"), ("목포", "z", "2"))
    if delimiter == ",":
        rows = (rows[0], ("전주", '"x, y"', "1"), rows[2])
    source = "\n".join(delimiter.join(row) for row in rows)
    assert read(source) == [
        ("도시: 전주\na, b; c | d: x, y\n값: 1", (2, 2)),
        ("도시: 목포\na, b; c | d: z\n값: 2", (3, 3)),
    ]


def test_decimal_commas_are_no_delimiters() -> None:
    assert read("Preis;Menge\n1,5;2,5\n3,5;4,5\n")[0] == ("Preis: 1,5\nMenge: 2,5", (2, 2))


def test_a_line_for_excel_names_the_delimiter() -> None:
    assert read("sep=|\na|b,c,d\n1|2,3,4\n") == [("a: 1\nb,c,d: 2,3,4", (3, 3))]


def test_titles_above_the_header_are_text() -> None:
    source = "Fees of 2031\n(draft, May)\n\nCity,Fee,Days\nOslo,40,2\nRiga,35,3\nTartu,20,3\n"
    found = read(source)
    assert found[0] == ("Fees of 2031", (1, 1))
    assert ("City: Oslo\nFee: 40\nDays: 2", (5, 5)) in found


def test_a_file_without_a_header_is_data() -> None:
    assert read("Oslo,40\nRiga,35\n") == [("Oslo | 40", (1, 1)), ("Riga | 35", (2, 2))]


def test_years_stand_in_headers() -> None:
    assert read("Team,2030,2031\nSales,5,6\n") == [("Team: Sales\n2030: 5\n2031: 6", (2, 2))]
    assert read("2030,5\n2031,6\n")[0] == ("2030 | 5", (1, 1))


def test_headers_that_no_row_names_are_kept() -> None:
    assert read("name,기타\nKim,\nLee,\n")[-1] == ("No values: 기타", (1, 1))


def test_ragged_rows_and_remarks_are_kept() -> None:
    source = "a,b,c\n1,2\n1,2,3,4\n5,6,7\n\nSource: city hall\n"
    assert [text for text, _ in read(source)] == [
        "a: 1\nb: 2", "a: 1\nb: 2\nc: 3\ncolumn 4: 4", "a: 5\nb: 6\nc: 7", "Source: city hall",
    ]  # fmt: skip


def test_a_field_of_a_megabyte_is_read_and_lines_stay_exact() -> None:
    long = "\n".join(["word " * 20] * 10_000)
    document = load("a.csv", f'id,text\n1,"{long} needle"\n2,"after ""it"""\n'.encode())
    assert "needle" in document.text
    assert document.blocks[-1].lines == (10_002, 10_002)
    assert texts(document)[-1] == 'id: 2\ntext: after "it"'
    assert {block.lines for block in document.blocks[:-1]} == {(2, 10_001)}


def test_a_quote_that_nobody_closed_takes_no_other_rows() -> None:
    assert read('size,name\n1,"5 inch\n2,pipe\n3,rod\n') == [
        ('size: 1\nname: "5 inch', (2, 2)), ("size: 2\nname: pipe", (3, 3)), ("size: 3\nname: rod", (4, 4)),
    ]  # fmt: skip


def test_a_zero_byte_does_not_end_the_file() -> None:
    assert "b: 2" in load("a.csv", b"a,b\n" + b"1,2\n" * 200 + b"x\x00,9\n").text
