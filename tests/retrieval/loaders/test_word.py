"""Word documents as writers of all kinds leave them: none of the text that a reader sees is missing."""

from __future__ import annotations

import pytest

from server.errors import KnowledgeError
from server.retrieval.loaders import load
from server.retrieval.loaders.document import BlockKind
from tests.retrieval.loaders.hostile import with_part
from tests.retrieval.loaders.office_files import (
    alternatives,
    cell,
    chart,
    diagram,
    element,
    headings,
    para,
    run,
    table,
    texts,
    word,
)


def read(body: str, **parts: str) -> list[str]:
    return texts(load("a.docx", word(body, **parts)))


def field(code: str, result: str | None) -> str:
    def mark(kind: str) -> str:
        return f'<w:r><w:fldChar w:fldCharType="{kind}"/></w:r>'

    shown = "" if result is None else mark("separate") + run(result)
    return f"{mark('begin')}<w:r><w:instrText> {code} </w:instrText></w:r>{shown}{mark('end')}"


def box(text: str) -> str:
    return f"<w:txbxContent>{para(text)}</w:txbxContent>"


def control(inside: str) -> str:
    return f"<w:sdt><w:sdtPr/><w:sdtContent>{inside}</w:sdtContent></w:sdt>"


# ── inside a paragraph ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("inside", "shown"),
    [
        (run("담당: ") + control(run("박서연")), "담당: 박서연"),
        (f"<w:smartTag><w:smartTag>{run('Oslo')}</w:smartTag></w:smartTag>", "Oslo"),
        (f"<w:customXml>{run('Lot 7')}</w:customXml>", "Lot 7"),
        (f"<w:hyperlink>{run('our terms')}</w:hyperlink>", "our terms"),
        (run("in ") + f"<w:ins>{run('14')}</w:ins><w:del><w:r><w:delText>30</w:delText></w:r></w:del>", "in 14"),
        (f"<w:moveFrom>{run('gone')}</w:moveFrom><w:moveTo>{run('arrived')}</w:moveTo>", "arrived"),
        (field("REF lot", "Lot 12") + run(" is sold"), "Lot 12 is sold"),
        (field("IF " + field("REF a", "1") + " = 1", "yes"), "yes"),
        (f"<w:fldSimple w:instr='AUTHOR'>{run('Ines')}</w:fldSimple>", "Ines"),
        (field("MACROBUTTON NoMacro [Enter the date]", None), "[Enter the date]"),
        (field("SYMBOL 8364", None) + run("40"), "€40"),
        ("<w:r><w:fldChar w:fldCharType='begin'/></w:r>" + run("a field without an end"), "a field without an end"),
        ("<w:r><w:ruby><w:rt><w:r><w:t>とうきょう</w:t></w:r></w:rt><w:rubyBase><w:r><w:t>東京</w:t></w:r></w:rubyBase>"
         "</w:ruby></w:r>", "東京(とうきょう)"),
        ("<w:r><w:t>up</w:t><w:noBreakHyphen/><w:t>to</w:t><w:softHyphen/><w:t>date</w:t></w:r>", "up-todate"),
        ("<w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t></w:r>", "a\tb\nc"),
        ('<w:r><w:sym w:font="Wingdings" w:char="F0FE"/></w:r>' + run(" paid"), "☑ paid"),
        ('<w:r><w:sym w:font="Symbol" w:char="F061"/></w:r>', "α"),
    ],
)  # fmt: skip
def test_a_paragraph_reads_as_it_is_shown(inside: str, shown: str) -> None:
    assert read(para(inside)) == [shown]


@pytest.mark.parametrize(
    ("inside", "shown"),
    [
        ("<m:f><m:num><m:r><m:t>a+b</m:t></m:r></m:num><m:den><m:r><m:t>2</m:t></m:r></m:den></m:f>", "(a+b)/2"),
        ("<m:sSup><m:e><m:r><m:t>x</m:t></m:r></m:e><m:sup><m:r><m:t>2</m:t></m:r></m:sup></m:sSup>", "x^2"),
        ("<m:rad><m:deg/><m:e><m:r><m:t>y</m:t></m:r></m:e></m:rad>", "√(y)"),
        ('<m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr><m:sub><m:r><m:t>i</m:t></m:r></m:sub><m:sup/>'
         "<m:e><m:r><m:t>k</m:t></m:r></m:e></m:nary>", "∑_i k"),
        ("<m:d><m:e><m:r><m:t>p</m:t></m:r></m:e></m:d>", "(p)"),
        ("<m:m><m:mr><m:e><m:r><m:t>1</m:t></m:r></m:e><m:e><m:r><m:t>0</m:t></m:r></m:e></m:mr></m:m>", "[1, 0]"),
    ],
)  # fmt: skip
def test_equations_are_a_line_of_text(inside: str, shown: str) -> None:
    assert read(para(f"<m:oMath>{inside}</m:oMath>")) == [shown]


def test_a_field_may_reach_over_paragraphs() -> None:
    begin = "<w:r><w:fldChar w:fldCharType='begin'/></w:r><w:r><w:instrText>TOC</w:instrText></w:r>"
    middle, end = "<w:r><w:fldChar w:fldCharType='separate'/></w:r>", "<w:r><w:fldChar w:fldCharType='end'/></w:r>"
    assert read(para(begin + run("code")) + para(middle + run("One")) + para(run("Two") + end)) == ["One", "Two"]


def test_hidden_text_is_left_out_and_said() -> None:
    styles = element("w:styles", '<w:style w:styleId="H"><w:rPr><w:vanish/></w:rPr></w:style>')
    inside = run("seen") + run("unseen", "<w:vanish/>") + run("also", '<w:rStyle w:val="H"/>')
    document = load("a.docx", word(para(inside), styles=styles))
    assert texts(document) == ["seen"]
    assert document.omitted == ("10 characters that are formatted as hidden text",)


def test_a_sign_without_a_letter_is_said() -> None:
    document = load("a.docx", word(para('<w:r><w:sym w:font="Webdings" w:char="F04E"/></w:r>' + run("x"))))
    assert document.omitted == ("signs of Webdings that stand for no letter",)


def test_pictures_and_embedded_files_are_said() -> None:
    inside = '<w:r><w:drawing><a:blip r:embed="r1"/></w:drawing></w:r><w:r><w:object><w:OLEObject/></w:object></w:r>'
    assert load("a.docx", word(para(inside))).omitted == ("1 picture", "1 embedded object")


# ── what hangs on a paragraph ────────────────────────────────────────────────────────────────────


def test_text_boxes_are_read_once_behind_their_paragraph() -> None:
    new, old = (
        f"<w:drawing><wps:txbx>{box('전화 02-555')}</wps:txbx></w:drawing>",
        f"<w:pict>{box('전화 02-555')}</w:pict>",
    )
    both = alternatives(new, old)
    assert read(para(run("before") + f"<w:r>{both}</w:r>") + para("after")) == ["before", "전화 02-555", "after"]
    assert read(para(f"<w:r><w:pict><v:textbox>{box('old box')}</v:textbox></w:pict></w:r>")) == ["old box"]
    assert read(para('<w:r><w:pict><v:textpath string="DRAFT"/></w:pict></w:r>')) == ["DRAFT"]


def test_notes_and_comments_stand_behind_their_paragraph() -> None:
    notes = "".join(
        f'<w:footnote w:id="{one}">{para(text)}</w:footnote>' for one, text in ((2, "first"), (3, "second"))
    )
    data = word(
        para(run("One") + '<w:r><w:footnoteReference w:id="3"/></w:r><w:r><w:commentReference w:id="0"/></w:r>')
        + para(run("Two") + '<w:r><w:endnoteReference w:id="2"/><w:footnoteReference w:id="2"/></w:r>'),
        footnotes=element("w:footnotes", notes),
        endnotes=element("w:endnotes", f'<w:endnote w:id="2">{para("at the end")}</w:endnote>'),
        comments=element(
            "w:comments",
            f'<w:comment w:id="0" w:author="Lena">{para("really?")}</w:comment>'
            f'<w:comment w:id="1">{para("loose")}</w:comment>',
        ),
    )
    assert texts(load("a.docx", data)) == [
        "One", "Footnote 1: second", "Comment by Lena: really?", "Two", "Endnote 1: at the end", "Footnote 2: first",
        "Comment: loose",
    ]  # fmt: skip


def test_charts_and_diagrams_of_a_document_are_read() -> None:
    inside = '<w:r><w:drawing><c:chart r:id="c1"/></w:drawing><w:drawing><dgm:relIds r:dm="d1"/></w:drawing></w:r>'
    data = word(
        para(inside),
        (("c1", "chart", "c1.xml"), ("d1", "diagramData", "d1.xml")),
        c1=chart("매출", ("2026", {"봄": "3", "여름": "4.5"})),
        d1=diagram("order", "pack"),
    )
    assert texts(load("a.docx", data)) == ["매출", " | 2026\n봄 | 3\n여름 | 4.5", "- order\n  - pack"]


def test_headers_and_footers_are_read_once() -> None:
    links = (*((f"h{at}", "header", f"h{at}.xml") for at in range(3)), ("f0", "footer", "f0.xml"))
    references = "".join(f'<w:headerReference r:id="h{at}"/>' for at in (0, 1, 2, 0)) + '<w:footerReference r:id="f0"/>'
    header = element("w:hdr", para("Nordwind GmbH"))
    data = word(
        para("text") + f"<w:sectPr>{references}</w:sectPr>", links,
        h0=header, h1=header, h2=element("w:hdr", para("- 3 -")), f0=element("w:ftr", para("사내 전용")),
    )  # fmt: skip
    document = load("a.docx", data)
    assert texts(document) == ["text", "Nordwind GmbH", "사내 전용"]
    assert headings(document) == [(), ("Header",), ("Footer",)]


def test_an_inserted_page_is_read_and_another_file_is_said() -> None:
    links = (("a1", "aFChunk", "a.html"), ("a2", "aFChunk", "b.rtf"))
    data = word('<w:altChunk r:id="a1"/><w:altChunk r:id="a2"/>', links)
    document = load("a.docx", with_part(data, "word/a.html", [b"<h2>Rules</h2><p>No bikes inside</p>"]))
    assert (texts(document), headings(document)) == (["No bikes inside"], [("Rules",)])
    assert document.omitted == ("an inserted file (b.rtf)",)


# ── headings ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("style", "path"),
    [
        ('<w:name w:val="heading 1"/>', ("T",)),
        ('<w:name w:val="제목 1"/>', ("T",)),
        ('<w:name w:val="Überschrift 1"/>', ("T",)),
        ('<w:name w:val="見出し 1"/>', ("T",)),
        ('<w:name w:val="Titre 1"/>', ("T",)),
        ('<w:name w:val="House style"/><w:basedOn w:val="Base"/>', ("T",)),
        ('<w:name w:val="조항"/><w:pPr><w:outlineLvl w:val="2"/></w:pPr>', ("T",)),
        ('<w:name w:val="Title"/>', ("T",)),
        ('<w:name w:val="heading 1"/><w:pPr><w:outlineLvl w:val="9"/></w:pPr>', ()),
        ('<w:name w:val="Heading notes"/>', ()),
        ('<w:name w:val="loop"/><w:basedOn w:val="S"/>', ()),
    ],
)
def test_headings_are_known_by_level_or_name(style: str, path: tuple[str, ...]) -> None:
    base = '<w:style w:styleId="Base"><w:pPr><w:outlineLvl w:val="0"/></w:pPr></w:style>'
    styles = element("w:styles", f'<w:style w:styleId="S">{style}</w:style>{base}')
    document = load("a.docx", word(para("T", '<w:pStyle w:val="S"/>') + para("text"), styles=styles))
    assert headings(document)[-1] == path


def test_a_paragraph_may_have_a_level_of_its_own() -> None:
    body = para("One", '<w:outlineLvl w:val="0"/>') + para("Deep", '<w:outlineLvl w:val="1"/>') + para("text")
    assert headings(load("a.docx", word(body))) == [("One", "Deep")]


def test_a_heading_that_nothing_follows_is_text() -> None:
    level = '<w:outlineLvl w:val="0"/>'
    document = load("a.docx", word(para("Hotline 555", level) + para("Hours", level)))
    assert (texts(document), headings(document)) == (["Hotline 555", "Hours"], [("Hotline 555",), ("Hours",)])


def test_a_heading_that_is_too_long_for_a_path_is_text_too() -> None:
    title = "word " * 80 + "end"
    assert read(para(title, '<w:outlineLvl w:val="0"/>') + para("x")) == [title, "x"]


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────


def numbering(*levels: tuple[str, str]) -> str:
    inside = "".join(
        f'<w:lvl w:ilvl="{at}"><w:start w:val="1"/><w:numFmt w:val="{kind}"/><w:lvlText w:val="{text}"/></w:lvl>'
        for at, (kind, text) in enumerate(levels)
    )
    override = '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="5"/></w:lvlOverride>'
    numbers = "".join(
        f'<w:num w:numId="{one}"><w:abstractNumId w:val="0"/>{more}</w:num>' for one, more in ((1, ""), (2, override))
    )
    return element("w:numbering", f'<w:abstractNum w:abstractNumId="0">{inside}</w:abstractNum>{numbers}')


def item(text: str, level: int = 0, number: int = 1) -> str:
    return para(text, f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>')


def test_items_keep_their_numbers() -> None:
    body = item("a") + item("b", 1) + item("c", 1) + item("d") + item("e", 1) + item("f", number=2)
    assert read(body, numbering=numbering(("decimal", "%1."), ("lowerLetter", "%1.%2)"))) == [
        "1. a\n  1.a) b\n  1.b) c\n2. d\n  2.a) e\n5. f"
    ]


@pytest.mark.parametrize(
    ("kind", "text", "shown"),
    [
        ("ganada", "%1.", "나."), ("decimal", "제%1조", "제2조"), ("upperRoman", "%1)", "II)"),
        ("bullet", "\uf0b7", "-"),
        ("chosung", "%1.", "ㄴ."), ("japaneseCounting", "%1、", "二、"), ("decimalEnclosedCircle", "%1", "②"),
        ("ordinal", "%1", "2nd"), ("koreanCounting", "%1.", "이."), ("decimalZero", "%1", "02"), ("unknown", "%1", "2"),
    ],
)  # fmt: skip
def test_numbers_are_shown_in_their_way(kind: str, text: str, shown: str) -> None:
    (block,) = read(item("x") + item("y"), numbering=numbering((kind, text)))
    assert block.split("\n")[1] == f"{shown} y"


def test_a_heading_keeps_its_number() -> None:
    place = '<w:numPr><w:numId w:val="1"/></w:numPr><w:outlineLvl w:val="0"/>'
    document = load("a.docx", word(para("목적", place) + para("text"), numbering=numbering(("decimal", "제%1조"))))
    assert headings(document) == [("제1조 목적",)]


# ── tables ───────────────────────────────────────────────────────────────────────────────────────


def test_merged_cells_are_listed_once_and_headers_are_known() -> None:
    body = table(
        "<w:trPr><w:tblHeader/></w:trPr>" + cell("Price", '<w:gridSpan w:val="2"/>') + cell("Stock"),
        "<w:trPr><w:tblHeader/></w:trPr>" + cell("net") + cell("gross") + cell(""),
        cell("7", '<w:vMerge w:val="restart"/>') + cell("8") + cell("9"),
        cell("", "<w:vMerge/>") + cell("10") + cell("11"),
        "<w:trPr><w:del/></w:trPr>" + cell("deleted") + cell("row"),
    )
    (block,) = (document := load("a.docx", word(body))).blocks
    assert texts(document) == ["Price | Stock\nnet | gross\n7 | 8 | 9\n | 10 | 11"]
    assert (block.kind, block.header) == (BlockKind.TABLE, "Price | Stock\nnet | gross")


def test_a_table_keeps_what_is_inside_of_its_cells() -> None:
    inner = table(cell("in") + cell("side"))
    body = table(cell("a") + cell(para("b") + inner), control(cell(control(para("c")))) + cell(""))
    assert read(body) == ["a | b in / side\nc"]
    assert read(control(table(cell("x") + cell("y")))) == ["x | y"]


def test_a_table_that_only_places_text_is_read_as_text() -> None:
    heading = para("Section", '<w:outlineLvl w:val="0"/>')
    document = load("a.docx", word(table(cell(heading + para("text")) + cell("beside"))))
    assert (texts(document), set(headings(document))) == (["text", "beside"], {("Section",)})


# ── packages ─────────────────────────────────────────────────────────────────────────────────────


def test_the_strict_form_of_the_format_is_read() -> None:
    strict = element("w:document", f"<w:body>{para('strict')}</w:body>")
    strict = strict.replace(
        "http://schemas.openxmlformats.org/wordprocessingml/2006/main", "http://purl.oclc.org/ooxml/w"
    )
    assert texts(load("a.docx", with_part(word(""), "word/document.xml", [strict.encode()]))) == ["strict"]


@pytest.mark.parametrize("ending", ["docx", "docm", "dotx"])
def test_templates_and_files_with_macros_are_read_alike(ending: str) -> None:
    assert texts(load(f"a.{ending}", word(para("alike")))) == ["alike"]


def test_a_thousand_nested_elements_are_refused() -> None:
    body = "<w:sdt>" * 1_000 + para("x") + "</w:sdt>" * 1_000
    with pytest.raises(KnowledgeError, match=r"damaged|deep"):
        load("a.docx", word(body))


def test_nothing_outside_of_the_file_is_opened() -> None:
    links = (("c1", "chart", "../../../../etc/passwd"), ("c2", "chart", "file:///etc/passwd"))
    body = para('<w:r><w:drawing><c:chart r:id="c1"/><c:chart r:id="c2"/></w:drawing></w:r>' + run("safe"))
    assert texts(load("a.docx", word(body, links))) == ["safe"]
