"""PDF: the text of each page as paragraphs with the page's number, the values of forms, comments.

What annotations draw is read as a part of the page. Pages that are pictures are read by text recognition where it is
installed. Says which pages were not read, and which files are attached. Knows nothing of how a page is laid out.
"""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from pypdfium2 import PdfDocument, PdfiumError, PdfPage, raw

from server.errors import KnowledgeError
from server.retrieval.loaders.document import MAX_CHARS, Document, DocumentBuilder
from server.retrieval.loaders.pdf_annotations import Annotations, page_annotations
from server.retrieval.loaders.pdf_outline import Outline
from server.retrieval.loaders.pdf_text import PageText, page_text
from server.retrieval.loaders.recognition import INSTALL, MAX_PIXELS, Recognition, is_available, languages

logging.getLogger("pypdfium2").setLevel(logging.ERROR)  # it reports every oddity of a file as a warning

MAX_PAGES: Final = 10_000
MAX_OBJECTS: Final = 5_000  # of a page with little text that are looked at for pictures
MAX_NESTED: Final = 3  # groups inside groups of them
MAX_NAMED: Final = 10  # attached files
_FEW_LETTERS: Final = 60  # a page with no more text may be a picture
_COVERED: Final = 0.4  # of the page by pictures, at least
_STROKES: Final = 40  # … or so many lines and shapes on a page without text
_UNREADABLE: Final = 10  # letters without a map, from which on a page is told
_DOTS_PER_POINT: Final = 300 / 72  # for text recognition
_RECOGNISE: Final = "run text recognition (OCR) on it"


@dataclass(slots=True)
class _Pages:
    """Of what is told: numbers of pages, and names of attached files."""

    pictures: list[int] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)
    recognised: list[int] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    crowded: list[int] = field(default_factory=list)
    attached: list[str] = field(default_factory=list)


def load_pdf(data: bytes) -> Document:
    """Raises KnowledgeError for what is no PDF, has a password, or holds no text that can be read."""
    if b"%PDF-" not in data[:1024]:
        raise KnowledgeError("not a PDF: the file does not begin like one")
    pdf = _opened(data)
    try:
        builder = DocumentBuilder()
        if pdf.get_formtype() != raw.FORMTYPE_NONE:
            pdf.init_forms()
        reader = _Reader(pdf, builder)
        for number in range(1, min(len(pdf), MAX_PAGES) + 1):
            reader.read_page(number)
        reader.tell()
    finally:
        pdf.close()
    return builder.build()


def _opened(data: bytes) -> PdfDocument:
    try:
        pdf = PdfDocument(data)
    except PdfiumError as error:
        if error.err_code == raw.FPDF_ERR_PASSWORD:
            raise KnowledgeError("the PDF is encrypted: save it without a password") from error
        if error.err_code == raw.FPDF_ERR_SECURITY:
            raise KnowledgeError(
                "the PDF is encrypted in a way that is not read: save it without encryption"
            ) from error
        raise KnowledgeError(f"the PDF is damaged: {error}") from error
    if not len(pdf):
        pdf.close()
        raise KnowledgeError("the PDF is damaged: it has no pages")
    return pdf


class _Reader:
    def __init__(self, pdf: PdfDocument, builder: DocumentBuilder) -> None:
        self._pdf = pdf
        self._builder = builder
        self._outline = Outline(pdf)
        self._recognition = Recognition()
        self._pages = _Pages()
        self._letters = 0

    def read_page(self, number: int) -> None:
        try:
            page, annotations, text = self._text(number)
        except PdfiumError:
            self._pages.damaged.append(number)
            return
        self._letters += text.letters
        if self._letters > MAX_CHARS:
            raise KnowledgeError(f"the PDF holds more than {MAX_CHARS:,} characters by page {number}: split it")
        paragraphs = [one.text for one in text.paragraphs]
        is_picture = text.letters <= _FEW_LETTERS and _is_picture(page, text.letters)
        unreadable = text.unreadable >= _UNREADABLE
        if is_picture or text.unreadable > text.letters:
            recognised = self._recognised(page) if is_available() else None
            if recognised is not None:
                self._pages.recognised.append(number)
                paragraphs, is_picture, unreadable = recognised, False, False
        if is_picture:
            self._pages.pictures.append(number)
        if unreadable:
            self._pages.unreadable.append(number)
        path: tuple[str, ...] = ()
        for path, part in self._outline.parts(number, paragraphs):
            self._builder.add(part.strip("\n"), path, page=number)
        self._add_annotations(annotations, "\n".join(paragraphs), path, number)
        page.close()

    def _text(self, number: int) -> tuple[PdfPage, Annotations, PageText]:
        page = self._pdf[number - 1]
        annotations = page_annotations(page)
        if annotations.drawn and raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY) == raw.FLATTEN_SUCCESS:
            page.close()
            page = self._pdf[number - 1]
        text_page = page.get_textpage()
        try:
            return page, annotations, page_text(text_page)
        finally:
            text_page.close()

    def _recognised(self, page: PdfPage) -> list[str] | None:
        width, height = page.get_size()
        scale = min(_DOTS_PER_POINT, (MAX_PIXELS / max(1.0, width * height)) ** 0.5)
        bitmap = page.render(scale=scale, grayscale=True, may_draw_forms=False)
        try:
            size = bitmap.stride * bitmap.height
            shades = ctypes.string_at(bitmap.buffer, size)
            if bitmap.stride > bitmap.width:
                lines = range(0, size, bitmap.stride)
                shades = b"".join(shades[start : start + bitmap.width] for start in lines)
            text = self._recognition.read(bitmap.width, bitmap.height, shades)
        finally:
            bitmap.close()
        return None if text is None else text.split("\n\n")

    def _add_annotations(self, found: Annotations, text: str, path: tuple[str, ...], number: int) -> None:
        self._builder.add("\n".join(found.fields), path, page=number)
        there = " ".join(text.split())
        for author, comment in found.comments:
            if " ".join(comment.split()) not in there:
                self._builder.add(f"Comment{f' by {author}' if author else ''}: {comment}", path, page=number)
        self._pages.attached += found.attached
        if found.left_out:
            self._pages.crowded.append(number)

    def tell(self) -> None:
        """Raises KnowledgeError where nothing is left to index."""
        pages, total, tell = self._pages, len(self._pdf), self._builder.omit
        if pages.pictures:
            count, few = len(pages.pictures), f"({_listed(pages.pictures)})"
            tell(f"{count} of {total} pages {'are pictures' if count > 1 else 'is a picture'} without text {few}")
        if pages.unreadable:
            tell(
                f"{_listed(pages.unreadable)} hold text that has no usable map to letters: print the file into a new "
                f"PDF, or {_RECOGNISE}"
            )
        if not self._builder.has_text and (pages.pictures or pages.unreadable):
            what = "only pictures" if pages.pictures else "only signs that have no usable map to letters"
            how = f"make it smaller, or {_RECOGNISE} first" if is_available() else f"{_RECOGNISE} first, or {INSTALL}"
            raise KnowledgeError(f"the PDF holds no text, {what}: {how}")
        if len(pages.damaged) == total:
            raise KnowledgeError("the PDF is damaged: none of its pages can be read")
        if pages.recognised:
            tell(f"{_listed(pages.recognised)} read by text recognition ({', '.join(languages())})")
        if self._recognition.is_over and (pages.pictures or pages.unreadable):
            tell("for them text recognition had no time: raise retrieval.parse_seconds, or split the file")
        if pages.damaged:
            tell(f"{_listed(pages.damaged)} damaged: not read")
        if pages.crowded:
            tell(f"{_listed(pages.crowded)}: not all comments and form fields are read, there are too many")
        if total > MAX_PAGES:
            tell(f"pages {MAX_PAGES + 1:,} to {total:,} are not read: split the file")
        if self._pdf.get_formtype() == raw.FORMTYPE_XFA_FULL:
            tell("a form of the kind XFA, of which only what its pages show elsewhere is read: print it into a new PDF")
        attached = [*_attachments(self._pdf), *pages.attached]
        if attached:
            names = ", ".join(name or "without a name" for name in attached[:MAX_NAMED])
            tell(f"{len(attached)} attached {'files are' if len(attached) > 1 else 'file is'} not read: {names}")


def _attachments(pdf: PdfDocument) -> list[str]:
    names = []
    for number in range(min(pdf.count_attachments(), 1_000)):
        try:
            names.append(pdf.get_attachment(number).get_name())
        except (PdfiumError, UnicodeDecodeError):
            names.append("")
    return names


def _is_picture(page: PdfPage, letters: int) -> bool:
    """Pictures cover much of it, or it is drawn without any letter."""
    width, height = page.get_size()
    covered, strokes = 0.0, 0
    for one in islice(page.get_objects(max_depth=1), MAX_OBJECTS):
        if one.type == raw.FPDF_PAGEOBJ_IMAGE or (
            one.type == raw.FPDF_PAGEOBJ_FORM and _has_picture(one.raw, MAX_NESTED)
        ):
            left, bottom, right, top = one.get_bounds()
            covered += max(0.0, min(right, width) - max(left, 0)) * max(0.0, min(top, height) - max(bottom, 0))
        strokes += one.type in (raw.FPDF_PAGEOBJ_PATH, raw.FPDF_PAGEOBJ_FORM)
    return covered >= _COVERED * width * height or (not letters and strokes >= _STROKES)


def _has_picture(form: object, depth: int) -> bool:
    for number in range(min(raw.FPDFFormObj_CountObjects(form), MAX_OBJECTS // 10)):
        one = raw.FPDFFormObj_GetObject(form, number)
        kind = raw.FPDFPageObj_GetType(one)
        if kind == raw.FPDF_PAGEOBJ_IMAGE or (kind == raw.FPDF_PAGEOBJ_FORM and depth and _has_picture(one, depth - 1)):
            return True
    return False


def _listed(numbers: list[int]) -> str:
    """ "page 3", "pages 3-5, 9"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:MAX_NAMED]]
    more = ", …" if len(ranges) > MAX_NAMED else ""
    return f"page{'s' if len(numbers) > 1 else ''} {', '.join(shown)}{more}"
