"""Slides as writers of all kinds leave them: none of the text that an audience sees is missing."""

from __future__ import annotations

import io

import pptx
import pytest
from pptx.util import Inches

from server.retrieval.loaders import load
from server.retrieval.loaders.document import BlockKind
from tests.retrieval.loaders.office_files import (
    alternatives,
    chart,
    diagram,
    element,
    frame,
    headings,
    shape,
    slides,
    texts,
)

CHART = frame('<c:chart r:id="c1"/>')


def test_diagrams_and_groups_are_read_in_their_order() -> None:
    group = f"<p:grpSp><p:grpSp>{shape('깊은 곳')}</p:grpSp></p:grpSp>"
    tree = shape("계획", "title") + group + frame('<dgm:relIds r:dm="d1"/>') + shape("last")
    data = slides(tree, links=(("d1", "diagramData", "d1.xml"),), d1=diagram("plan", "build", "check"))
    document = load("a.pptx", data)
    assert texts(document) == ["깊은 곳", "- plan\n  - build\n    - check", "last"]
    assert set(headings(document)) == {("계획",)}


def test_of_alternate_content_one_is_read() -> None:
    assert texts(load("a.pptx", slides(alternatives(shape("new"), shape("old"))))) == ["new"]


def test_an_equation_of_a_slide_is_read() -> None:
    choice = "<a14:m><m:oMath><m:r><m:t>E=mc</m:t></m:r></m:oMath></a14:m>"
    inside = f"<a:p><a:r><a:t>so </a:t></a:r>{alternatives(choice)}</a:p>"
    assert texts(load("a.pptx", slides(shape("", inside=inside)))) == ["so E=mc"]


def test_numbered_points_keep_their_numbers() -> None:
    mark = '<a:pPr lvl="{}"><a:buAutoNum type="{}" startAt="3"/></a:pPr>'
    rows = ((0, "arabicPeriod", "a"), (1, "alphaLcParenR", "b"), (0, "arabicPeriod", "c"))
    inside = "".join(f"<a:p>{mark.format(level, kind)}<a:r><a:t>{text}</a:t></a:r></a:p>" for level, kind, text in rows)
    assert texts(load("a.pptx", slides(shape("", inside=inside)))) == ["3. a\n  c) b\n4. c"]


def test_merged_cells_of_a_slide_are_listed_once() -> None:
    build = pptx.Presentation()
    slide = build.slides.add_slide(build.slide_layouts[6])
    table = slide.shapes.add_table(3, 3, Inches(1), Inches(1), Inches(4), Inches(1)).table
    for row in range(3):
        for column in range(3):
            table.cell(row, column).text = f"{row}{column}"
    table.cell(0, 0).merge(table.cell(0, 1))
    table.cell(1, 0).merge(table.cell(2, 0))
    out = io.BytesIO()
    build.save(out)
    (block,) = (document := load("a.pptx", out.getvalue())).blocks
    (text,) = texts(document)
    assert [text.count(one) for one in ("00", "10", "02", "22")] == [1, 1, 1, 1]
    assert text.split("\n")[2].startswith(" | ")
    assert block.kind is BlockKind.TABLE


def test_a_chart_of_several_plots_is_read_whole() -> None:
    source = chart("Sales & 매출", ("units", {"May": "5", "June": "7"}), ("rate", {"May": "0.5", "June": "0.25"}))
    source = source.replace("Sales & ", "Sales &amp; ")
    document = load("a.pptx", slides(CHART, links=(("c1", "chart", "c1.xml"),), c1=source))
    assert texts(document) == ["Sales & 매출", " | units | rate\nMay | 5 | 0.5\nJune | 7 | 0.25"]


def test_plots_over_other_categories_are_tables_of_their_own() -> None:
    source = chart("t", ("a", {"x": "1"}), ("b", {"y": "2"}))
    document = load("a.pptx", slides(CHART, links=(("c1", "chart", "c1.xml"),), c1=source))
    assert texts(document) == ["t", " | a\nx | 1", " | b\ny | 2"]


def test_comments_and_notes_are_read() -> None:
    authors = element("p:cmAuthorLst", '<p:cmAuthor id="0" name="Ines"/>')
    comments = element("p:cmLst", '<p:cm authorId="0"><p:text>too long</p:text></p:cm>')
    notes = element("p:notes", f"<p:cSld><p:spTree>{shape('천천히', 'body')}{shape('7', 'sldNum')}</p:spTree></p:cSld>")
    links = (("n1", "notesSlide", "n1.xml"), ("k1", "comments", "k1.xml"))
    data = slides(shape("Title", "title"), links=links, n1=notes, k1=comments, commentAuthors=authors)
    document = load("a.pptx", data)
    assert texts(document) == ["Title", "천천히", "Ines: too long"]
    assert headings(document) == [("Title",), ("Title", "Notes"), ("Title", "Comments")]


@pytest.mark.parametrize(("title", "path"), [("Plan B", "Plan B (hidden slide)"), ("", "(hidden slide)")])
def test_a_hidden_slide_is_read_and_called_hidden(title: str, path: str) -> None:
    document = load("a.pptx", slides((shape(title, "title") if title else "") + shape("secret"), show="0"))
    assert (texts(document), headings(document)) == (["secret"], [(path,)])


def test_what_stands_on_every_slide_is_said_once_and_numbers_never() -> None:
    tree = shape("body") + shape("Nordwind", "ftr") + shape("4", "sldNum")
    document = load("a.pptx", slides(tree, tree, tree))
    assert texts(document) == ["body", "Nordwind", "body", "body"]
    assert [block.page for block in document.blocks] == [1, 1, 2, 3]


def test_pictures_and_embedded_files_are_said_with_their_slides() -> None:
    picture, embedded = "<p:pic/>", frame("<p:oleObj/>")
    document = load("a.pptx", slides(picture, shape("x"), picture + embedded))
    assert document.omitted == ("pictures on slides 1, 3", "embedded files on slide 3")


def test_a_title_that_is_too_long_for_a_path_is_text_too() -> None:
    title = "word " * 80 + "end"
    assert texts(load("a.pptx", slides(shape(title, "title") + shape("x")))) == ["x", title]


def test_a_diagram_that_runs_in_a_circle_ends() -> None:
    data = diagram("a", "b").replace("</dgm:cxnLst>", '<dgm:cxn modelId="z" srcId="1" destId="0"/></dgm:cxnLst>')
    document = load(
        "a.pptx", slides(frame('<dgm:relIds r:dm="d1"/>'), links=(("d1", "diagramData", "d1.xml"),), d1=data)
    )
    assert texts(document) == ["- a\n  - b"]
