"""PDF: words, columns, tables, scripts, forms, comments, and what is told of a page that is not read."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pypdf import PdfReader, PdfWriter
from pypdf.generic import NameObject
from pypdfium2 import PdfDocument
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from server.errors import KnowledgeError
from server.retrieval.loaders import load, pdf_pages, recognition
from server.retrieval.loaders.document import Document
from server.retrieval.loaders.pdf_layout import Word, paragraphs
from tests.retrieval.loaders import hostile
from tests.tiers import cases

Draw = Callable[[Canvas], None]


@pytest.fixture(autouse=True)
def no_recognition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed here."""
    monkeypatch.setattr(pdf_pages, "is_available", lambda: False)


def drawn(*pages: Draw) -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=(600, 800))
    for draw in pages:
        draw(canvas)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def read(*pages: Draw) -> Document:
    return load("a.pdf", drawn(*pages))


def lines(*texts: str, left: float = 60, top: float = 740, step: float = 14) -> Draw:
    def draw(canvas: Canvas) -> None:
        for number, text in enumerate(texts):
            canvas.drawString(left, top - number * step, text)

    return draw


def rewritten(data: bytes, change: Callable[[PdfWriter], object]) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(data)))
    change(writer)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def photo(canvas: Canvas) -> None:
    canvas.drawInlineImage(Image.effect_noise((60, 80), 90), 0, 0, 600, 800)


def test_letters_that_are_drawn_one_by_one_make_words() -> None:
    def draw(canvas: Canvas) -> None:
        at = 60.0
        for char in "Lamps are sent on Monday":
            canvas.drawString(at, 700, char)
            at += pdfmetrics.stringWidth(char, "Helvetica", 12)

    assert "Lamps are sent on Monday" in read(draw).text


def test_words_that_are_drawn_in_any_order_make_a_line() -> None:
    def draw(canvas: Canvas) -> None:
        for at, word in ((200, "on"), (60, "warehouse"), (230, "Sundays"), (130, "is"), (150, "closed")):
            canvas.drawString(at, 700, word)

    assert read(draw).text.split() == ["warehouse", "is", "closed", "on", "Sundays"]


LEFT = (
    "Parcels leave our house in the morn-",
    "ing and reach every town of the coun-",
    "try within two working days of it.",
)
RIGHT = (
    "Glass and china travel in a box with",
    "straw, which costs four euros more and",
    "is never sent on a Friday at all.",
)


def test_columns_are_read_one_after_the_other_though_drawn_line_by_line() -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawString(60, 760, "A title over both of the columns that stand under it, as wide as they are together")
        for number, (left, right) in enumerate(zip(LEFT, RIGHT, strict=True)):
            canvas.drawString(60, 730 - 14 * number, left)
            canvas.drawString(320, 730 - 14 * number, right)

    text = " ".join(read(draw).text.split())
    assert (
        "leave our house in the morning and reach every town of the country within two working days of it. Glass"
        in text
    )
    assert "with straw, which costs four euros more and is never sent" in text


def test_the_rows_of_a_table_stay_lines() -> None:
    def draw(canvas: Canvas) -> None:
        for column, texts in enumerate((("Plan", "Pro", "Basic"), ("Seats", "12", "3"), ("Price", "49 EUR", "9 EUR"))):
            lines(*texts, left=60 + 150 * column)(canvas)

    assert read(draw).text.strip().split("\n") == ["Plan  Seats  Price", "Pro  12  49 EUR", "Basic  3  9 EUR"]


def test_a_page_that_lies_on_its_side_reads_from_its_top() -> None:
    def draw(canvas: Canvas) -> None:
        canvas.rotate(90)
        lines("First line of it", "second line of it", left=60, top=-100)(canvas)

    assert read(draw).text.strip() == "First line of it\nsecond line of it"


@pytest.mark.parametrize(
    ("font", "text"),
    [
        ("HYSMyeongJo-Medium", "냉장 상품은 목요일까지만 발송합니다"),
        ("HeiseiMin-W3", "冷蔵品は木曜日まで発送します"),
        ("STSong-Light", "冷藏商品只在星期四以前发货"),
    ],
)
def test_scripts_of_east_asia_by_their_cmaps(font: str, text: str) -> None:
    pdfmetrics.registerFont(UnicodeCIDFont(font))

    def draw(canvas: Canvas) -> None:
        canvas.setFont(font, 12)
        canvas.drawString(60, 700, text)

    assert read(draw).text.strip() == text


def test_japanese_in_columns_from_the_right_is_read_down_each() -> None:
    pdfmetrics.registerFont(UnicodeCIDFont("HeiseiMin-W3"))

    def draw(canvas: Canvas) -> None:
        canvas.setFont("HeiseiMin-W3", 12)
        for column, text in enumerate(("返品は十四日以内に", "お申し出ください")):
            for row, char in enumerate(text):
                canvas.drawString(500 - 20 * column, 700 - 13 * row, char)

    assert read(draw).text.replace("\n", "").strip() == "返品は十四日以内にお申し出ください"


def test_paragraphs_are_blocks_with_their_page() -> None:
    def two(canvas: Canvas) -> None:
        lines("One paragraph", "of two lines")(canvas)
        lines("Another paragraph", top=690)(canvas)

    document = read(lines("Alone"), two)
    found = [(document.text[block.start : block.end], block.page) for block in document.blocks]
    assert found == [("Alone", 1), ("One paragraph\nof two lines", 2), ("Another paragraph", 2)]


def test_bookmarks_are_headings_from_the_line_that_reads_like_them() -> None:
    def first(canvas: Canvas) -> None:
        canvas.bookmarkPage("a")
        canvas.bookmarkPage("c")
        canvas.addOutlineEntry("Returns", "a", 0)
        canvas.addOutlineEntry("By post", "c", 1)
        lines("Before it", "1 Returns", "Within 14 days", "1.1 By post", "Free of charge")(canvas)

    def second(canvas: Canvas) -> None:
        canvas.bookmarkPage("b")
        canvas.addOutlineEntry("보증", "b", 0)
        lines("Two years")(canvas)

    document = read(first, lines("It goes on"), second)
    found = [(block.heading, document.text[block.start : block.end]) for block in document.blocks]
    assert found == [
        ((), "Before it"), (("Returns",), "1 Returns\nWithin 14 days"),
        (("Returns", "By post"), "1.1 By post\nFree of charge"), (("Returns", "By post"), "It goes on"),
        (("보증",), "Two years"),
    ]  # fmt: skip


def test_the_values_of_a_form_are_read_with_their_names() -> None:
    def draw(canvas: Canvas) -> None:
        lines("Order form")(canvas)
        form = canvas.acroForm
        form.textfield(name="company", value="Narae Shipping", x=60, y=600, width=200)
        form.checkbox(name="gift", checked=True, x=60, y=560)
        form.checkbox(name="express", checked=False, x=60, y=530)
        form.choice(name="colour", value="green", options=["red", "green"], x=60, y=480, width=100)

    document = read(lines("Cover"), draw)
    (block,) = [one for one in document.blocks if "company:" in document.text[one.start : one.end]]
    assert block.page == 2
    assert document.text[block.start : block.end].split("\n") == [
        "company: Narae Shipping", "gift: checked", "express: not checked", "colour: green",
    ]  # fmt: skip


def test_comments_are_read_with_their_page() -> None:
    def draw(canvas: Canvas) -> None:
        lines("A clause")(canvas)
        canvas.textAnnotation("이 조항은 삭제 예정", Rect=[100, 100, 120, 120])

    document = read(lines("Cover"), draw)
    assert [document.text[b.start : b.end] for b in document.blocks if b.page == 2] == [
        "A clause",
        "Comment: 이 조항은 삭제 예정",
    ]


def test_attached_files_are_named() -> None:
    pdf, out = PdfDocument(hostile.pdf("text")), io.BytesIO()
    pdf.new_attachment("요금표.xlsx").set_data(b"x")
    pdf.save(out)
    assert load("a.pdf", out.getvalue()).omitted == ("1 attached file is not read: 요금표.xlsx",)


def test_pages_that_are_pictures_are_told() -> None:
    document = read(lines("Text"), photo, lines("More"), photo, photo)
    assert document.omitted == ("3 of 5 pages are pictures without text (pages 2, 4-5)",)
    assert [block.page for block in document.blocks] == [1, 3]


def test_a_pdf_of_pictures_only_says_what_to_do() -> None:
    with pytest.raises(KnowledgeError, match=r"only pictures: run text recognition .* apt-get install tesseract-ocr"):
        read(photo, photo)


def test_a_small_picture_makes_no_page_a_picture() -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawInlineImage(Image.effect_noise((20, 20), 90), 60, 60, 80, 80)
        lines("Logo")(canvas)

    assert read(draw).omitted == ()


def test_an_empty_page_holds_no_text() -> None:
    document = read(lambda canvas: None)
    assert (document.blocks, document.omitted) == ((), ())


def test_letters_without_a_map_are_told_and_not_indexed() -> None:
    pdfmetrics.registerFont(TTFont("Vera", "Vera.ttf"))

    def draw(canvas: Canvas) -> None:
        canvas.setFont("Vera", 12)
        lines("äöüß éèêçñõ âîûÄÖÜ ïëÿÉÈ çñõåæø")(canvas)

    def unmap(writer: PdfWriter) -> None:
        for font in writer.pages[1]["/Resources"]["/Font"].values():
            font.get_object().pop(NameObject("/ToUnicode"), None)

    document = load("a.pdf", rewritten(drawn(lines("Cover"), draw), unmap))
    assert document.text.strip() == "Cover"
    assert document.omitted[0].startswith("page 2 hold")


def test_a_page_of_very_many_letters_is_read_in_the_order_of_the_file() -> None:
    document = read(lines(*["abcd efgh " * 1_000] * 30))
    assert document.text.count("efgh") == 30_000


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-128", "AES-256"])
def test_encrypted_files_that_open_without_a_password_are_read(algorithm: str) -> None:
    assert "secret" in load("a.pdf", hostile.encrypted_pdf(algorithm, password="")).text
    with pytest.raises(KnowledgeError, match="encrypted: save it without a password"):
        load("a.pdf", hostile.encrypted_pdf(algorithm))


@given(
    st.lists(
        st.tuples(
            st.text("abc가나漢א-", min_size=1, max_size=5), st.floats(0, 600), st.floats(0, 800), st.floats(1, 40),
            st.booleans(),
        ),
        max_size=60,
    )
)  # fmt: skip
@settings(max_examples=cases(100, 3_000), deadline=None)
def test_a_layout_loses_no_word(found: list[tuple[str, float, float, float, bool]]) -> None:
    words = [
        Word(text, left, left + len(text) * size / 2, middle, size, spaced)
        for text, left, middle, size, spaced in found
    ]
    said = "".join("".join(one.text.split()) for one in paragraphs(words))
    assert sorted(said.replace("-", "")) == sorted("".join(word.text for word in words).replace("-", ""))


def test_recognition_reads_pages_that_are_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf_pages, "is_available", lambda: True)
    monkeypatch.setattr(pdf_pages, "languages", lambda: ("kor",))
    monkeypatch.setattr(
        recognition.Recognition, "read", lambda self, width, height, gray: f"{len(gray) == width * height}"
    )
    document = read(lines("Text"), photo)
    assert document.text.split() == ["Text", "True"]
    assert document.omitted == ("page 2 read by text recognition (kor)",)
