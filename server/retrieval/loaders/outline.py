"""What formats with headings and paragraphs have in common: blocks under the headings above them, and none of a
heading's words lost. Knows no format.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from server.retrieval.loaders.document import MAX_TITLE, BlockKind, Document, DocumentBuilder, HeadingPath


class Outline:
    """A heading with nothing under it, and one too long for a path, is text as well."""

    def __init__(self, above: tuple[str, ...] = ()) -> None:
        self.builder = DocumentBuilder()
        self.page: int | None = None
        self._above = above
        self._headings = HeadingPath()
        self._items: list[str] = []
        self._bare: tuple[int, str, tuple[str, ...]] | None = (
            None  # level, words and path of the last heading, alone yet
        )

    @property
    def path(self) -> tuple[str, ...]:
        return (*self._above, *self._headings.path)

    def heading(self, level: int, title: str) -> None:
        title = " ".join(title.split())
        if not title:
            return
        self._flush_items()
        self._flush_bare(level)
        self._headings.enter(level, title)
        self._bare = (level, title, self.path)
        if len(title) > MAX_TITLE:
            self.text(title)

    def text(self, text: str, kind: BlockKind = BlockKind.TEXT, header: str = "") -> None:
        if text.strip():
            self._flush_items()
            self._bare = None
            self.builder.add(text, self.path, kind=kind, header=header, page=self.page)

    def item(self, text: str, depth: int = 0) -> None:
        """Neighbouring items of a list are one block."""
        if text.strip():
            self._bare = None
            self._items.append(f"{'  ' * min(depth, 8)}- {text.strip()}")

    def table(self, rows: Iterable[Sequence[str]]) -> None:
        """Each row a line, the first one the header. A table of one cell is a frame around text."""
        self.lines([table_row(cells) for cells in rows])

    def lines(self, lines: list[str]) -> None:
        """A table whose rows are lines already."""
        lines = list(filter(None, lines))
        if len(lines) == 1:
            self.text(lines[0])
        elif lines:
            self.text("\n".join(lines), BlockKind.TABLE, lines[0])

    def restart(self) -> None:
        """What follows is under no heading. One that has had no text yet is forgotten: its words come again."""
        self._flush_items()
        self._bare = None
        self._headings = HeadingPath()

    def end_page(self) -> None:
        """What was only a heading so far is on this page."""
        self._flush_items()
        self._flush_bare(0)

    def build(self) -> Document:
        self.end_page()
        return self.builder.build()

    def _flush_items(self) -> None:
        items, self._items = self._items, []
        self.builder.add("\n".join(items), self.path, page=self.page)

    def _flush_bare(self, level: int) -> None:
        if self._bare is not None and level <= self._bare[0]:
            self.builder.add(self._bare[1], self._bare[2], page=self.page)
        self._bare = None


def table_row(cells: Sequence[str]) -> str:
    """Cells side by side on one line; '' where none has a word."""
    texts = [" ".join(cell.split()) for cell in cells]
    return " | ".join(texts).strip(" |") if any(texts) else ""


def add_document(builder: DocumentBuilder, inner: Document, above: tuple[str, ...], page: int | None = None) -> None:
    """The blocks of a document inside of another, under the headings `above`, and what was left out of it."""
    for block in inner.blocks:
        text = inner.text[block.start : block.end]
        builder.add(text, (*above, *block.heading), kind=block.kind, header=block.header, page=page)
    for what in inner.omitted:
        builder.omit(what)
