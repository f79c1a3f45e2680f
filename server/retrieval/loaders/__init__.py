"""Files to documents, one module a format.

`load()` is the only entry. It knows bytes and a name, and nothing of folders, sizes or links. A format's module
and the library behind it are imported when its first file comes.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import PurePath
from typing import Final, cast

from server.errors import KnowledgeError
from server.retrieval.loaders.document import Document, bounded
from server.retrieval.loaders.source_code import CODE_ENDINGS, load_code

_LOADERS: Final[dict[str, str]] = {
    ".md": "markdown_text.load_markdown",
    ".markdown": "markdown_text.load_markdown",
    ".txt": "plain_text.load_plain",
    ".rst": "rst_text.load_rst",
    ".html": "html_page.load_html",
    ".htm": "html_page.load_html",
    ".pdf": "pdf_pages.load_pdf",
    ".docx": "docx_body.load_docx",
    ".pptx": "pptx_slides.load_pptx",
    ".xlsx": "xlsx_rows.load_xlsx",
    ".csv": "csv_rows.load_csv",
    ".tsv": "csv_rows.load_tsv",
    ".json": "json_entries.load_json",
    ".jsonl": "json_entries.load_json_lines",
    ".ndjson": "json_entries.load_json_lines",
    ".eml": "email_parts.load_email",
}
SUPPORTED: Final = (*_LOADERS, *CODE_ENDINGS)
SUPPORTED_IN_SHORT: Final = f"{' '.join(_LOADERS)} and source code"


def ending(name: str) -> str:
    return PurePath(name).suffix.lower()


def is_supported(name: str) -> bool:
    return ending(name) in SUPPORTED


def import_all() -> None:
    """Imports the modules of all formats now."""
    for name in _LOADERS.values():
        _function(name)


def load(name: str, data: bytes) -> Document:
    """The document in `data`; `name` gives the format by its ending.

    A document without blocks holds no text. Raises KnowledgeError with a reason for the user, MemoryError.
    """
    format_ = ending(name)
    try:
        if format_ in CODE_ENDINGS:
            return bounded(load_code(data, format_))
        return bounded(_function(_LOADERS[format_])(data))
    except (KnowledgeError, MemoryError):
        raise
    except RecursionError as error:
        raise KnowledgeError("the content is nested too deeply to be read") from error
    except Exception as error:  # edge of the reading process: on a damaged file a parser may raise anything
        raise KnowledgeError(f"the file is damaged: {type(error).__name__}: {error}"[:300]) from error


def _function(name: str) -> Callable[[bytes], Document]:
    module, _, function = name.partition(".")
    return cast(Callable[[bytes], Document], getattr(import_module(f"{__name__}.{module}"), function))
