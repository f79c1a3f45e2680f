"""Hangul documents: .hwp, written record by record, and .hwpx."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import pytest

from server.errors import KnowledgeError
from server.retrieval.loaders import load
from server.retrieval.loaders.document import BlockKind, Document
from tests.retrieval.loaders.ole import compound

PARAGRAPH, TEXT, CONTROL, LIST, TABLE = 66, 67, 71, 72, 77


def texts(document: Document) -> list[str]:
    return [document.text[block.start : block.end] for block in document.blocks]


def headings(document: Document) -> list[tuple[str, ...]]:
    return [block.heading for block in document.blocks]


# ── .hwp ─────────────────────────────────────────────────────────────────────────────────────────


def record(tag: int, level: int, data: bytes = b"") -> bytes:
    if len(data) < 0xFFF:
        return struct.pack("<I", tag | level << 10 | len(data) << 20) + data
    return struct.pack("<II", tag | level << 10 | 0xFFF << 20, len(data)) + data


def wide(text: str) -> bytes:
    return struct.pack("<H", len(text.encode("utf-16-le")) // 2) + text.encode("utf-16-le")


def paragraph(text: str, level: int = 0, *, shape: int = 0, style: int = 0, controls: bytes = b"") -> bytes:
    """A '\\x0b' in the text is the place of a control."""
    coded = "".join(char if char >= " " else char + "\0" * 6 + char for char in text) + "\r"
    head = struct.pack("<IIHBB10x", len(coded), 0, shape, style, 0)
    return record(PARAGRAPH, level, head) + record(TEXT, level + 1, coded.encode("utf-16-le")) + controls


def control(name: str, level: int, inside: bytes = b"", data: bytes = b"") -> bytes:
    return record(CONTROL, level, name.encode()[::-1] + data) + inside


def table(level: int, rows: list[list[tuple[str, int, int]]], caption: str = "") -> bytes:
    """Each cell: its text, its row and its column."""
    inside = record(LIST, level + 1, bytes(8)) + paragraph(caption, level + 1) if caption else b""
    inside += record(TABLE, level + 1, struct.pack("<IHH", 0, len(rows), 3))
    for row in rows:
        for text, at, column in row:
            inside += record(LIST, level + 1, struct.pack("<IIHHHH", 1, 0, column, at, 1, 1))
            inside += paragraph(text, level + 1)
    return control("tbl ", level, inside)


STYLES = [("바탕글", "Normal"), ("개요 2", "Outline 2")]
INFO = (
    record(0x19, 0, struct.pack("<I", 0)) + record(0x19, 0, struct.pack("<I", 1 << 23))
    + b"".join(record(0x1A, 0, wide(name) + wide(english)) for name, english in STYLES)
)  # fmt: skip


def hwp(*sections: bytes, flags: int = 1, info: bytes = INFO) -> bytes:
    def packed(data: bytes) -> bytes:
        squeeze = zlib.compressobj(wbits=-15)
        return squeeze.compress(data) + squeeze.flush() if flags & 1 else data

    head = b"HWP Document File".ljust(32, b"\0") + struct.pack("<II", 0x05010000, flags)
    streams = {"FileHeader": head.ljust(256, b"\0"), "DocInfo": packed(info)}
    return compound(streams | {f"BodyText/Section{at}": packed(data) for at, data in enumerate(sections)})


def test_hwp_paragraphs_stand_under_their_outline() -> None:
    document = load(
        "규정.hwp",
        hwp(
            paragraph("휴가 규정", shape=1)
            + paragraph("연차는 15일이다.")
            + paragraph("신청", style=1)
            + paragraph("사흘 전까지.")
        ),
    )
    assert list(zip(headings(document), texts(document), strict=True)) == [
        (("휴가 규정",), "연차는 15일이다."), (("휴가 규정", "신청"), "사흘 전까지."),
    ]  # fmt: skip


def test_hwp_sections_are_read_in_the_order_of_their_numbers() -> None:
    document = load("a.hwp", hwp(*(paragraph(f"part {number}") for number in range(12))))
    assert texts(document) == [f"part {number}" for number in range(12)]


def test_an_hwp_heading_with_nothing_under_it_and_a_whole_paragraph_in_the_outline_are_text() -> None:
    long = "모든 임직원은 " * 30
    document = load("a.hwp", hwp(paragraph("총칙", shape=1) + paragraph("부칙", shape=1) + paragraph(long, shape=1)))
    assert texts(document) == ["총칙", long.strip()]
    assert headings(document) == [("총칙",), ("부칙",)]


@pytest.mark.parametrize("flags", [0, 1])
def test_hwp_tables_are_rows_with_their_caption_and_merged_cells_once(flags: int) -> None:
    rows = [[("부서", 0, 0), ("인원", 0, 1)], [("영업", 1, 0), ("7", 1, 1)], [("9", 2, 1)]]
    body = paragraph("현황은 \x0b 다음과 같다.", controls=table(1, rows, caption="표 1 인원"))
    document = load("a.hwp", hwp(body, flags=flags))
    assert texts(document) == ["현황은  다음과 같다.", "표 1 인원", "부서 | 인원\n영업 | 7\n9"]
    assert (document.blocks[2].kind, document.blocks[2].header) == (BlockKind.TABLE, "부서 | 인원")


def test_a_frame_around_hwp_text_is_its_text() -> None:
    document = load("a.hwp", hwp(paragraph("\x0b", controls=table(1, [[("알림: 금요일 휴무", 0, 0)]]))))
    assert (texts(document), document.blocks[0].kind) == (["알림: 금요일 휴무"], BlockKind.TEXT)


@pytest.mark.parametrize(
    ("name", "label"),
    [("fn  ", "Footnote"), ("en  ", "Endnote"), ("head", "Header"), ("foot", "Footer"), ("tcmt", "Comment")],
)
def test_what_stands_beside_hwp_text_is_read_and_named(name: str, label: str) -> None:
    inside = record(LIST, 2, bytes(8)) + paragraph("예외는 부장이 정한다.", 2)
    document = load("a.hwp", hwp(paragraph("본문\x11 끝", controls=control(name, 1, inside))))
    assert texts(document) == ["본문 끝", f"{label}: 예외는 부장이 정한다."]


def test_hwp_boxes_in_groups_word_art_equations_forms_and_ruby_text_are_read() -> None:
    box = record(LIST, 4, bytes(8)) + paragraph("고객센터 1577-0000", 4)
    group = control("gso ", 1, record(76, 2) + record(86, 3) + record(76, 3) + box)
    art = control("gso ", 1, record(76, 2) + record(90, 3, bytes(32) + wide("봄 할인")))
    equation = control("eqed", 1, record(88, 2, bytes(4) + wide("a over b")))
    form = control("form", 1, record(91, 2, "CommonSet:set:9:Caption:wstring:5:동의합니다 Name:".encode("utf-16-le")))
    ruby = control("tdut", 1, data=wide("契約") + wide("계약"))
    body = paragraph("보기 \x17", controls=ruby) + paragraph("\x0b" * 4, controls=group + art + equation + form)
    assert texts(load("a.hwp", hwp(body))) == [
        "보기 契約 (계약)",
        "고객센터 1577-0000",
        "봄 할인",
        "a over b",
        "동의합니다",
    ]


def test_numbers_that_hwp_fills_in_stand_in_their_places() -> None:
    number = control("atno", 1, data=struct.pack("<IH", 4, 12))
    assert texts(load("a.hwp", hwp(paragraph("표 \x12 월별 매출", controls=number)))) == ["표 12 월별 매출"]


def test_hwp_pictures_are_said_and_the_words_that_stand_for_them_are_read() -> None:
    def drawn(words: str) -> bytes:
        return control("gso ", 1, record(76, 2) + record(85, 3), data=bytes(40) + wide(words))

    own, standard = drawn("조직도: 대표 아래 세 팀"), drawn("그림입니다.\r\n원본 그림의 이름: a.bmp")
    document = load("a.hwp", hwp(paragraph("\x0b\x0b", controls=own + standard)))
    assert (texts(document), document.omitted) == (["조직도: 대표 아래 세 팀"], ("2 pictures",))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (hwp(paragraph("비밀"), flags=3), "encrypted with a password: save it without one"),
        (hwp(paragraph("비밀"), flags=5), "a document for distribution, whose text is locked"),
        (b"HWP Document File V3.00 \x1a\1\2\3\4\5" + bytes(200), "Hangul 3 or older: open it in Hangul and save it"),
        (compound({"FileHeader": b"other"}), "not a .hwp file"),
        (b"plain text", "not a .hwp file"),
    ],
    ids=["password", "distribution", "version 3", "other", "text"],
)
def test_an_hwp_file_that_cannot_be_read_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(KnowledgeError, match=reason):
        load("a.hwp", data)


def test_numbers_that_hangul_counts_before_paragraphs_are_said() -> None:
    said = ("the numbers before paragraphs, which Hangul counts itself",)
    numbered, plain = hwp(paragraph("총칙", shape=1)), hwp(paragraph("총칙", shape=0))
    assert (load("a.hwp", numbered).omitted, load("a.hwp", plain).omitted) == (said, ())
    numbered, plain = hwpx(p(t("총칙"), shape=1)), hwpx(p(t("총칙"), shape=0))
    assert (load("a.hwpx", numbered).omitted, load("a.hwpx", plain).omitted) == (said, ())


def test_damage_in_an_hwp_file_does_no_harm() -> None:
    body = paragraph("가나다", controls=table(1, [[("하나", 0, 0), ("둘", 0, 1)]]))
    for cut in range(0, len(body), 3):
        load("a.hwp", hwp(body[:cut], flags=0))  # a cut record counts as far as it goes
    whole = hwp(body)
    for at in range(0, len(whole), 97):
        try:
            load("a.hwp", whole[:at] + b"\xff\x03" + whole[at + 2 :])
        except KnowledgeError:
            continue


def test_hwp_records_nested_as_deep_as_they_go_are_read_or_refused() -> None:
    deep = b"".join(
        control("gso ", level) + record(LIST, level + 1) + paragraph("안", level + 2) for level in range(0, 1018, 3)
    )
    with pytest.raises(KnowledgeError, match="nested too deeply"):
        load("a.hwp", hwp(deep))
    assert texts(load("a.hwp", hwp(b"".join(deep.partition(control("gso ", 60))[:1])))) == ["안"] * 20


def test_a_bomb_in_an_hwp_stream_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.retrieval.loaders.hwp_records.MAX_UNPACKED", 1_000_000)
    with pytest.raises(KnowledgeError, match="unpacks to over 0 MB"):
        load("a.hwp", hwp(bytes(2_000_000)))


# ── .hwpx ────────────────────────────────────────────────────────────────────────────────────────

SPACES = (
    'xmlns:hp="http://www.hancom.co.kr/hwpml/2011/paragraph" xmlns:hs="http://www.hancom.co.kr/hwpml/2011/section" '
    'xmlns:hh="http://www.hancom.co.kr/hwpml/2011/head"'
)
HEADER = f"""<hh:head {SPACES}><hh:paraPr id="0"><hh:heading type="NONE" level="0"/></hh:paraPr>
<hh:paraPr id="1"><hh:heading type="OUTLINE" level="0"/></hh:paraPr>
<hh:style id="0" name="바탕글" engName="Normal"/><hh:style id="2" name="제목 2" engName=""/></hh:head>"""


def hwpx(*sections: str, header: str = HEADER, **others: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("mimetype", "application/hwp+zip")
        archive.writestr("Contents/header.xml", header)
        for number, body in enumerate(sections):
            archive.writestr(f"Contents/section{number}.xml", f"<hs:sec {SPACES}>{body}</hs:sec>")
        for name, content in others.items():
            archive.writestr(name.replace("__", "/").replace("_xml", ".xml"), content)
    return out.getvalue()


def p(inside: str, shape: int = 0, style: int = 0) -> str:
    return f'<hp:p paraPrIDRef="{shape}" styleIDRef="{style}"><hp:run>{inside}</hp:run></hp:p>'


def t(text: str) -> str:
    return f"<hp:t>{text}</hp:t>"


def test_hwpx_paragraphs_stand_under_their_outline_in_the_order_of_sections() -> None:
    first = p(t("출장 규정"), shape=1) + p(t("일비는 <hp:tab/>4만 원<hp:lineBreak/>이다.")) + p(t("숙박"), style=2)
    sections = [first + p(t("실비로 한다.")), *(p(t(f"절 {number}")) for number in range(1, 11))]
    document = load("a.hwpx", hwpx(*sections))
    assert texts(document)[:2] == ["일비는 \t4만 원\n이다.", "실비로 한다."]
    assert headings(document)[:2] == [("출장 규정",), ("출장 규정", "숙박")]
    assert texts(document)[2:] == [f"절 {number}" for number in range(1, 11)]


def test_hwpx_tables_notes_boxes_and_the_rest_are_read() -> None:
    def cell(text: str) -> str:
        return f"<hp:tc><hp:subList>{p(t(text))}</hp:subList></hp:tc>"

    def inside(name: str, text: str) -> str:
        return f"<hp:ctrl><hp:{name}><hp:subList>{p(t(text))}</hp:subList></hp:{name}></hp:ctrl>"

    rows = f"<hp:tr>{cell('품목')}{cell('값')}</hp:tr><hp:tr>{cell('사과')}{cell('900원')}</hp:tr>"
    caption = f"<hp:caption><hp:subList>{p(t('표 1 값'))}</hp:subList></hp:caption>"
    body = (
        p(f"<hp:tbl>{caption}{rows}</hp:tbl>")
        + p(t("본문") + inside("footNote", "세금은 따로") + inside("endNote", "끝 주") + inside("header", "대외비"))
        + p(f"<hp:rect><hp:drawText><hp:subList>{p(t('상자 속'))}</hp:subList></hp:drawText></hp:rect>")
        + p("<hp:equation><hp:script>x^2</hp:script></hp:equation>")
        + p('<hp:textart text="여름 축제"/><hp:checkBtn caption="동의"/>')
        + p("<hp:dutmal><hp:mainText>韓國</hp:mainText><hp:subText>한국</hp:subText></hp:dutmal>")
        + p("<hp:pic><hp:shapeComment>그림입니다.</hp:shapeComment></hp:pic>")
    )
    document = load("a.hwpx", hwpx(body))
    assert texts(document) == [
        "표 1 값", "품목 | 값\n사과 | 900원", "본문",
        "Footnote: 세금은 따로", "Endnote: 끝 주", "Header: 대외비", "상자 속",
        "x^2", "여름 축제 동의", "韓國 (한국)",
    ]  # fmt: skip
    assert document.omitted == ("1 picture",)


def test_what_was_deleted_in_hwpx_with_changes_tracked_is_left_out() -> None:
    run = t("기한은 <hp:deleteBegin/>30일") + t("간<hp:deleteEnd/><hp:insertBegin/>90일<hp:insertEnd/>이다.")
    assert texts(load("a.hwpx", hwpx(p(run)))) == ["기한은 90일이다."]


def test_a_header_that_each_section_repeats_is_read_once() -> None:
    header = f"<hp:ctrl><hp:header><hp:subList>{p(t('한빛 상사'))}</hp:subList></hp:header></hp:ctrl>"
    assert texts(load("a.hwpx", hwpx(*[p(t(f"절 {number}") + header) for number in (1, 2)]))) == [
        "절 1", "Header: 한빛 상사", "절 2",
    ]  # fmt: skip


def test_an_hwpx_file_that_cannot_be_read_says_why() -> None:
    locked = "<m:manifest xmlns:m='m'><m:encryption-data/></m:manifest>"
    with pytest.raises(KnowledgeError, match="encrypted with a password"):
        load("a.hwpx", hwpx(p(t("비밀")), **{"META-INF__manifest_xml": locked}))
    with pytest.raises(
        KnowledgeError, match=r"not a \.hwpx file: it is damaged or something else \(it has no section\)"
    ):
        load("a.hwpx", hwpx())
    with pytest.raises(KnowledgeError, match="its XML defines entities"):
        load("a.hwpx", hwpx(p(t("&a;")), header='<!DOCTYPE a [<!ENTITY a "b">]><a>&a;</a>'))
    with pytest.raises(KnowledgeError, match="nested too deeply"):
        load("a.hwpx", hwpx("<hp:p>" * 20_000 + "</hp:p>" * 20_000))
