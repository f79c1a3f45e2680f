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
from server.retrieval.loaders import recognition
from server.retrieval.loaders.document import Document, bounded
from server.retrieval.loaders.sniffing import is_container, real_ending, refuse_old
from server.retrieval.loaders.source_code import CODE_ENDINGS, load_code

__all__ = [
    "SUPPORTED",
    "SUPPORTED_IN_SHORT",
    "ending",
    "import_all",
    "is_container",
    "is_supported",
    "load",
    "why_unsupported",
]

_LOADERS: Final[dict[str, str]] = {
    ".md": "markdown_text.load_markdown",
    ".markdown": "markdown_text.load_markdown",
    ".txt": "plain_text.load_plain",
    ".rst": "rst_text.load_rst",
    ".html": "html_page.load_html",
    ".htm": "html_page.load_html",
    ".pdf": "pdf_pages.load_pdf",
    ".docx": "docx_body.load_docx",
    ".docm": "docx_body.load_docx",
    ".dotx": "docx_body.load_docx",
    ".pptx": "pptx_slides.load_pptx",
    ".pptm": "pptx_slides.load_pptx",
    ".xlsx": "xlsx_rows.load_xlsx",
    ".xlsm": "xlsx_rows.load_xlsx",
    ".xltx": "xlsx_rows.load_xlsx",
    ".csv": "csv_rows.load_csv",
    ".tsv": "csv_rows.load_tsv",
    ".json": "json_entries.load_json",
    ".jsonl": "json_entries.load_json_lines",
    ".ndjson": "json_entries.load_json_lines",
    ".eml": "email_parts.load_email",
    ".mht": "email_parts.load_page_archive",
    ".mhtml": "email_parts.load_page_archive",
    ".hwp": "hwp_records.load_hwp",
    ".hwpx": "hwpx_sections.load_hwpx",
    ".msg": "outlook_message.load_msg",
    ".odt": "opendocument.load_odt",
    ".odp": "opendocument.load_odp",
    ".ods": "opendocument.load_ods",
    ".xls": "xls_rows.load_xls",
    ".epub": "epub_chapters.load_epub",
    ".ipynb": "notebook_cells.load_notebook",
    ".rtf": "rtf_text.load_rtf",
}
_REFUSED: Final = (
    ".doc",
    ".ppt",
    ".xlsb",
)  # often something else that is read; else with a reason that says what to do
_PICTURES: Final = dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"), "picture_file.load_picture")
_ALL: Final = {**_LOADERS, **_PICTURES}
SUPPORTED: Final = (*_LOADERS, *_REFUSED, *CODE_ENDINGS)
SUPPORTED_IN_SHORT: Final = f"{' '.join(_LOADERS)} and source code"


def ending(name: str) -> str:
    return PurePath(name).suffix.lower()


def is_supported(name: str) -> bool:
    """Pictures are where there is text recognition."""
    return ending(name) in SUPPORTED or (ending(name) in _PICTURES and recognition.is_available())


def why_unsupported(name: str) -> str:
    """For the owner of a file that `is_supported` does not take."""
    if ending(name) in _PICTURES:
        return f"a picture: to have its text read, {recognition.INSTALL} and restart the server"
    return f"{PurePath(name).suffix or 'no ending'} is not read; supported: {SUPPORTED_IN_SHORT}"


def import_all() -> None:
    """Imports the modules of all formats now."""
    for name in _ALL.values():
        _function(name)


def load(name: str, data: bytes) -> Document:
    """The document in `data`; `name` gives the format by its ending, unless the bytes are certainly another's.

    A document without blocks holds no text. Raises KnowledgeError with a reason for the user, MemoryError.
    """
    try:
        format_ = real_ending(ending(name), data)
        refuse_old(format_)
        if format_ in CODE_ENDINGS:
            return bounded(load_code(data, format_))
        return bounded(_function(_ALL[format_])(data))
    except (KnowledgeError, MemoryError):
        raise
    except RecursionError as error:
        raise KnowledgeError("the content is nested too deeply to be read") from error
    except Exception as error:  # edge of the reading process: on a damaged file a parser may raise anything
        raise KnowledgeError(f"the file is damaged: {type(error).__name__}: {error}"[:300]) from error


def _function(name: str) -> Callable[[bytes], Document]:
    module, _, function = name.partition(".")
    return cast(Callable[[bytes], Document], getattr(import_module(f"{__name__}.{module}"), function))
