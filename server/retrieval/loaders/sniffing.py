"""What a file is by its bytes where its ending says otherwise: a page or table that a web system saved as .xls, a
.docx named .doc, a PDF named .txt.

Only what is certain counts: a container's own first bytes and the names inside it. Text is never taken for another
kind of text, but where an Office ending holds no Office file. Knows nothing of how a format is read.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import Final

import olefile

from server.errors import KnowledgeError
from server.retrieval.loaders.decoding import decode

_ZIP, _OLE, _PDF = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"%PDF-"
_TWINS: Final = {".docm", ".dotx", ".pptm", ".xlsm", ".xltx"}  # templates, and files with macros
_CONTAINERS: Final = _TWINS | {
    ".pdf", ".docx", ".pptx", ".xlsx", ".xls", ".doc", ".ppt", ".hwp", ".hwpx", ".odt", ".ods", ".odp", ".epub", ".msg",
    ".xlsb", ".rtf",
}  # fmt: skip
_OFFICE: Final = _TWINS | {".docx", ".xlsx", ".pptx", ".xls", ".doc", ".ppt", ".xlsb", ".rtf", ".hwp"}
_BY_MIMETYPE: Final = {
    b"application/hwp+zip": ".hwpx", b"application/epub+zip": ".epub",
    b"application/vnd.oasis.opendocument.text": ".odt", b"application/vnd.oasis.opendocument.spreadsheet": ".ods",
    b"application/vnd.oasis.opendocument.presentation": ".odp",
}  # fmt: skip
_BY_PART: Final = {
    "word/document.xml": ".docx", "ppt/presentation.xml": ".pptx", "xl/workbook.xml": ".xlsx",
    "xl/workbook.bin": ".xlsb", "Contents/section0.xml": ".hwpx",
}  # fmt: skip
_BY_STREAM: Final = {
    "FileHeader": ".hwp", "Workbook": ".xls", "Book": ".xls", "WordDocument": ".doc", "PowerPoint Document": ".ppt",
    "__properties_version1.0": ".msg",
}  # fmt: skip
_PAGE = re.compile(rb"\s{0,200}<(?:!doctype\s{1,9}html|html|head|body|table|meta|style)\b", re.IGNORECASE)
_XML_PAGE = re.compile(rb"\s{0,200}<\?xml[^>]{0,200}\?>\s{0,200}<(?:!doctype\s{1,9}html|html)\b", re.IGNORECASE)
_ARCHIVE_PAGE = re.compile(rb"\s{0,20}(?:MIME-Version:|From: <Saved by)", re.IGNORECASE)
_OFFICE_XML: Final = {
    b"urn:schemas-microsoft-com:office:spreadsheet": "Excel XML of 2003: save it as .xlsx",
    b"schemas.microsoft.com/office/word/2003": "Word XML of 2003: save it as .docx",
}
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_INSTEAD: Final = {".doc": ".docx", ".ppt": ".pptx", ".xlsb": ".xlsx"}


def real_ending(ending: str, data: bytes) -> str:
    """The ending of the format that `data` is in; `ending` itself where that is not certain. Raises KnowledgeError for
    what is certainly something else that is not read."""
    if data.startswith(_ZIP):
        found = _zipped(data)
        if found is None and ending not in _CONTAINERS:
            raise KnowledgeError("the file is a ZIP archive: unpack it, and add what is inside")
        return found or ending
    if data.startswith(_OLE):
        return _compound(data) or ending
    if data.startswith(_PDF) and b"endobj" in data:
        return ".pdf"
    if data.startswith(b"{\\rtf") and ending in _OFFICE:
        return ".rtf"
    if data.startswith(b"HWP Document File"):
        return ".hwp"
    return _text_in(ending, data) if ending in _OFFICE else ending


def is_container(data: bytes) -> bool:
    """It begins as one, whatever it is called: no text to be read at hand."""
    return data.startswith((_ZIP, _OLE, _PDF, b"HWP Document File"))


def refuse_old(ending: str) -> None:
    """Raises KnowledgeError for a format that is known and not read, with what to do."""
    if instead := _INSTEAD.get(ending):
        raise KnowledgeError(f"the file is in an old Office format ({ending}): save it as {instead}")


def _zipped(data: bytes) -> str | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 200:
                found = _BY_MIMETYPE.get(archive.read("mimetype").strip().removesuffix(b"-template"))
                if found:
                    return found
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError):
        return None
    return next((ending for part, ending in _BY_PART.items() if part in names), None)


def _compound(data: bytes) -> str | None:
    try:
        with olefile.OleFileIO(io.BytesIO(data)) as file:
            if file.exists("EncryptedPackage"):
                raise KnowledgeError("the file is encrypted with a password: save it without one")
            return next((ending for stream, ending in _BY_STREAM.items() if file.exists(stream)), None)
    except (OSError, ValueError, IndexError):
        return None


def _text_in(ending: str, data: bytes) -> str:
    """Of a file with the ending of an Office format and none of their first bytes."""
    head = data[:4096].replace(b"\0", b"") if data.startswith(_MARKS) else data[:4096]
    for mark in _MARKS:
        head = head.removeprefix(mark)
    for name, what in _OFFICE_XML.items():
        if name in head:
            raise KnowledgeError(f"the file is {what}")
    if _PAGE.match(head) or _XML_PAGE.match(head):
        return ".html"
    if _ARCHIVE_PAGE.match(head):
        return ".mht"
    return _plain_in(ending, data) if ending in (".xls", ".doc", ".rtf") and b"\0" not in head else ending


def _plain_in(ending: str, data: bytes) -> str:
    """Tables and letters that a program saved as text under the ending of Excel or Word."""
    try:
        text = decode(data).strip()
    except KnowledgeError:
        return ending
    if not text or ending != ".xls":
        return ".txt" if text else ending
    return ".tsv" if "\t" in text.split("\n", 1)[0] else ".csv"
