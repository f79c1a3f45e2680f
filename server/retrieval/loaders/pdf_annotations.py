"""What people put on a PDF's page: the values of form fields, comments, and attached files by their names.

Knows nothing of the page's own text.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from pypdfium2 import PdfPage, raw

MAX_ANNOTATIONS: Final = 5_000  # of a page
MAX_OPTIONS: Final = 1_000  # of one field of choices
MAX_STRING: Final = 1_000_000  # characters; a longer one is not read
_PASSED_OVER: Final = (raw.FPDF_ANNOT_POPUP, raw.FPDF_ANNOT_LINK)  # windows of comments, and places to click
_TICKED: Final = (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON)
_CHOICES: Final = (raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX)


@dataclass(slots=True)
class Annotations:
    """`drawn`: some have an appearance on the page, which is no part of its own text. `left_out` counts those over
    MAX_ANNOTATIONS."""

    fields: list[str] = field(default_factory=list)  # "name: value"
    comments: list[tuple[str, str]] = field(default_factory=list)  # author, text
    attached: list[str] = field(default_factory=list)
    drawn: bool = False
    left_out: int = 0


def page_annotations(page: PdfPage) -> Annotations:
    found = Annotations()
    count = raw.FPDFPage_GetAnnotCount(page)
    found.left_out = max(0, count - MAX_ANNOTATIONS)
    for number in range(min(count, MAX_ANNOTATIONS)):
        annotation = raw.FPDFPage_GetAnnot(page, number)
        if not annotation:
            continue
        try:
            _read(page, annotation, found)
        finally:
            raw.FPDFPage_CloseAnnot(annotation)
    return found


def _read(page: PdfPage, annotation: Any, found: Annotations) -> None:
    kind = raw.FPDFAnnot_GetSubtype(annotation)
    if kind in _PASSED_OVER or raw.FPDFAnnot_GetFlags(annotation) & raw.FPDF_ANNOT_FLAG_HIDDEN:
        return
    found.drawn = True
    if kind == raw.FPDF_ANNOT_WIDGET:
        if page.formenv is not None and (line := _field(page.formenv, annotation)):
            found.fields.append(line)
        return
    text = read_string(raw.FPDFAnnot_GetStringValue, annotation, b"Contents").strip()
    if kind == raw.FPDF_ANNOT_FILEATTACHMENT:
        attachment = raw.FPDFAnnot_GetFileAttachment(annotation)
        found.attached.append(read_string(raw.FPDFAttachment_GetName, attachment) if attachment else "")
    if text:
        found.comments.append((read_string(raw.FPDFAnnot_GetStringValue, annotation, b"T").strip(), text))


def _field(form: Any, annotation: Any) -> str:
    """ "name: value", the name being the one that its form shows to people; "" for an empty field."""
    name = read_string(raw.FPDFAnnot_GetFormFieldAlternateName, form, annotation)
    name = " ".join((name or read_string(raw.FPDFAnnot_GetFormFieldName, form, annotation)).split())
    value = _value(form, annotation).strip()
    return f"{name}: {value}" if name and value else value


def _value(form: Any, annotation: Any) -> str:
    kind = raw.FPDFAnnot_GetFormFieldType(form, annotation)
    if kind in _TICKED:
        on = raw.FPDFAnnot_IsChecked(form, annotation)
        if kind == raw.FPDF_FORMFIELD_CHECKBOX:
            return "checked" if on else "not checked"
        return read_string(raw.FPDFAnnot_GetFormFieldExportValue, form, annotation) if on else ""
    if kind in _CHOICES:
        count = min(raw.FPDFAnnot_GetOptionCount(form, annotation), MAX_OPTIONS)
        chosen = [number for number in range(count) if raw.FPDFAnnot_IsOptionSelected(form, annotation, number)]
        if chosen:
            return ", ".join(read_string(raw.FPDFAnnot_GetOptionLabel, form, annotation, number) for number in chosen)
    if kind in (raw.FPDF_FORMFIELD_TEXTFIELD, *_CHOICES):
        return read_string(raw.FPDFAnnot_GetFormFieldValue, form, annotation)
    return ""  # a button or a signature: what it shows is drawn


def read_string(read: Callable[..., int], *arguments: Any) -> str:
    """What a function of PDFium gives that fills a buffer with UTF-16."""
    size = min(read(*arguments, None, 0), 2 * MAX_STRING)
    if size <= 2:
        return ""
    buffer = ctypes.create_string_buffer(size)
    if read(*arguments, ctypes.cast(buffer, ctypes.POINTER(raw.FPDF_WCHAR)), size) > size:
        return ""
    return buffer.raw.decode("utf-16-le", "ignore").rstrip("\x00").replace("\r\n", "\n").replace("\r", "\n")
