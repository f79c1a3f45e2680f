"""Files to documents, one module a format.

`load()` is the only entry. It knows bytes and a name; folders, sizes and links are the scanner's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Final

from server.errors import KnowledgeError
from server.retrieval.documents import Document
from server.retrieval.loaders.csv_rows import load_csv
from server.retrieval.loaders.docx_body import load_docx
from server.retrieval.loaders.html_page import load_html
from server.retrieval.loaders.json_entries import load_json
from server.retrieval.loaders.markdown_text import load_markdown
from server.retrieval.loaders.pdf_pages import load_pdf
from server.retrieval.loaders.plain_text import load_plain

_LOADERS: Final[dict[str, Callable[[bytes], Document]]] = {
    ".md": load_markdown,
    ".markdown": load_markdown,
    ".txt": load_plain,
    ".html": load_html,
    ".htm": load_html,
    ".pdf": load_pdf,
    ".docx": load_docx,
    ".csv": load_csv,
    ".json": load_json,
}
SUPPORTED: Final = tuple(_LOADERS)


def is_supported(name: str) -> bool:
    return PurePath(name).suffix.lower() in _LOADERS


def load(name: str, data: bytes) -> Document:
    """The document in `data`; `name` gives the format by its ending.

    A document without blocks holds no text. Raises KnowledgeError with a reason for the user.
    """
    loader = _LOADERS[PurePath(name).suffix.lower()]
    try:
        return loader(data)
    except KnowledgeError:
        raise
    except RecursionError as error:
        raise KnowledgeError("the content is nested too deeply to be read") from error
    except Exception as error:
        raise KnowledgeError(f"the file is damaged: {type(error).__name__}: {error}"[:300]) from error
