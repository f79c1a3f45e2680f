"""PDF: the text of each page, as paragraphs with the page's number."""

from __future__ import annotations

import io
import logging
import re

from pypdf import PdfReader
from pypdf.errors import DependencyError, LimitReachedError, PdfReadError

from server.errors import KnowledgeError
from server.retrieval.loaders.document import Document, DocumentBuilder

logging.getLogger("pypdf").setLevel(logging.ERROR)  # it reports every oddity of a file as a warning

_HYPHEN = re.compile(r"(?<=[a-z])-\n(?=[a-z])")


def load_pdf(data: bytes) -> Document:
    """Raises KnowledgeError for what is no PDF, is encrypted, or holds pictures of text only."""
    if b"%PDF-" not in data[:1024]:
        raise KnowledgeError("not a PDF: the file does not begin like one")
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise KnowledgeError("the PDF is encrypted: save it without a password")
        builder = DocumentBuilder()
        for number, page in enumerate(reader.pages, start=1):
            text = _HYPHEN.sub("", page.extract_text().replace("\x00", ""))
            for paragraph in re.split(r"\n\s*\n", text):
                builder.add(paragraph.strip("\n"), page=number)
        pages = len(reader.pages)
    except DependencyError as error:  # a library that pypdf needs for AES
        raise KnowledgeError(
            "the PDF is encrypted with AES: save it without encryption (if it opens without a password, installing the "
            "package cryptography helps, too)"
        ) from error
    except LimitReachedError as error:
        raise KnowledgeError("a part of the PDF unpacks to more than can be read: print it into a new PDF") from error
    except PdfReadError as error:
        raise KnowledgeError(f"the PDF is damaged: {error}") from error
    document = builder.build()
    if not document.blocks and pages:
        raise KnowledgeError("the PDF holds no text, only pictures: run text recognition (OCR) on it first")
    return document
