"""The bookmarks of a PDF as the headings of its text.

A bookmark names its page. On the page the line that reads like its title begins its part; where none does, the part
begins with the page if it is the page's only bookmark, else with the next page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from pypdfium2 import PdfDocument, PdfiumError

from server.retrieval.loaders.document import MAX_DEPTH, HeadingPath

MAX_BOOKMARKS: Final = 5_000
MAX_SOUGHT: Final = 200  # characters of a line and of a title
MAX_ON_PAGE: Final = 20  # that are looked for; others count from the next page
_NUMBERING: Final = 10  # characters of a line that may stand before its title
_LINES: Final = 3  # that a title may take


@dataclass(frozen=True, slots=True)
class _Bookmark:
    level: int
    title: str
    squeezed: str


class Outline:
    """To be asked for each page from the first to the last."""

    def __init__(self, pdf: PdfDocument) -> None:
        self._by_page: dict[int, list[_Bookmark]] = {}
        for one in islice(pdf.get_toc(max_depth=MAX_DEPTH), MAX_BOOKMARKS):
            try:
                place = one.get_dest()
                page = None if place is None else place.get_index()
                title = " ".join(one.get_title().split())
            except (PdfiumError, UnicodeDecodeError):
                continue
            if page is not None and title:
                self._by_page.setdefault(page + 1, []).append(
                    _Bookmark(one.level, title, _squeezed(title)[:MAX_SOUGHT])
                )
        self._path = HeadingPath()

    def parts(self, page: int, paragraphs: Iterable[str]) -> Iterator[tuple[tuple[str, ...], str]]:
        """The page's paragraphs, each with its heading path; one that goes on under another heading is cut there."""
        waiting = self._by_page.get(page, [])
        texts = [text.split("\n") for text in paragraphs]
        if len(waiting) == 1 and not any(begun for lines in texts for begun in _beginnings(lines, waiting)):
            self._enter(waiting)
            waiting = []
        for lines in texts:
            start = 0
            for number, found in enumerate(_beginnings(lines, waiting) if waiting else ()):
                begun = [one for one in waiting if one in found]
                if not begun:
                    continue
                yield self._path.path, "\n".join(lines[start:number])
                start = number
                last = waiting.index(begun[0]) + 1
                self._enter(waiting[:last])
                waiting = waiting[last:]
            yield self._path.path, "\n".join(lines[start:])
        self._enter(waiting)

    def _enter(self, bookmarks: Iterable[_Bookmark]) -> None:
        for one in bookmarks:
            self._path.enter(one.level, one.title)


def _beginnings(lines: list[str], bookmarks: list[_Bookmark]) -> list[list[_Bookmark]]:
    """For each line the bookmarks whose title it begins with, after its number."""
    squeezed = [_squeezed(line) for line in lines]
    found = []
    for number, line in enumerate(squeezed):
        window = "".join(squeezed[number : number + _LINES])
        reach = min(_NUMBERING, len(line) - 1)
        found.append([one for one in bookmarks[:MAX_ON_PAGE] if 0 <= window.find(one.squeezed) <= reach])
    return found


def _squeezed(text: str) -> str:
    return "".join(text[:MAX_SOUGHT].split()).casefold()
