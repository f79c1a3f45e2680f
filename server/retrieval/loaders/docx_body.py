"""Word documents: paragraphs and tables in their order, with headings as the path.

Notes and comments stand behind the paragraph that refers to them, text boxes and charts behind the one they hang on;
headers and footers once, at the end. Lists and headings keep their numbers. There are no pages until it is printed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lxml import etree

from server.retrieval.loaders.document import MAX_TITLE, BlockKind, Document, DocumentBuilder, HeadingPath
from server.retrieval.loaders.html_page import load_html
from server.retrieval.loaders.office.charts import chart_texts
from server.retrieval.loaders.office.drawings import diagram_lines
from server.retrieval.loaders.office.equations import linear
from server.retrieval.loaders.office.package import Package, every, local, target_of
from server.retrieval.loaders.word.notes import Notes
from server.retrieval.loaders.word.numbering import BULLET, Numbering
from server.retrieval.loaders.word.story import NOT_CONTENT, Item, Story, row_cells, table_rows
from server.retrieval.loaders.word.styles import Styles
from server.retrieval.loaders.word.text import Attached, Unread, prepare

_EDGES: Final = {"headerReference": "Header", "footerReference": "Footer"}


def load_docx(data: bytes) -> Document:
    package = Package(data, ".docx")
    return _Body(package, package.main_part()).document()


class _Body:
    def __init__(self, package: Package, main: str) -> None:
        self._package, self._main = package, main
        self._builder, self._headings, self._unread = DocumentBuilder(), HeadingPath(), Unread()
        self._styles = Styles(self._first("styles"))
        self._numbering = Numbering(self._first("numbering"), self._styles)
        self._notes = Notes(package, main, self._story)
        self._story_now = self._story(main)
        self._items: list[str] = []
        self._bare: tuple[int, str] | None = None  # a heading that nothing stands under so far
        self._boxes = 0

    def _first(self, kind: str) -> etree._Element | None:
        return next((self._package.xml(part) for part in self._package.related(self._main, kind)), None)

    def _story(self, part: str) -> Story:
        return Story(part, self._styles, self._numbering, self._unread)

    def document(self) -> Document:
        root = self._package.xml(self._main)
        if root is not None:
            self._blocks(prepare(root))
            self._end_list()
            self._end_heading(0)
            for text, story, attached in self._notes.left():
                self._add(text)
                self._attached(attached, story)
            self._edges(root)
        self._say_what_is_left_out()
        return self._builder.build()

    # ── blocks ──

    def _blocks(self, node: etree._Element) -> None:
        for one in node:
            name = local(one)
            if name == "p":
                self._paragraph(one)
            elif name == "tbl":
                self._table(one)
            elif name in ("oMath", "oMathPara"):
                self._add(linear(one))
            elif name == "altChunk":
                self._inserted(one)
            elif name == "subDoc":
                self._builder.omit("a part of a master document, which is a file of its own")
            elif name not in NOT_CONTENT:
                self._blocks(one)

    def _paragraph(self, node: etree._Element) -> None:
        item = self._story_now.item(node)
        text = item.paragraph.text
        level = None if self._boxes else self._styles.level(node)
        if not text:
            pass
        elif level is not None:
            self._enter(level, item)
        elif item.label:
            self._items.append(f"{'  ' * item.level}{item.label} {text}")
        else:
            self._add(text)
        if item.paragraph.attached:
            self._attached(item.paragraph.attached, self._story_now)

    def _enter(self, level: int, item: Item) -> None:
        self._end_list()
        self._end_heading(level)
        label = "" if item.label == BULLET else f"{item.label} "
        title = " ".join(f"{label}{item.paragraph.text}".split())
        self._headings.enter(level, title)
        self._bare = level, title
        if len(title) > MAX_TITLE:  # a path holds less of it
            self._add(title)

    def _end_heading(self, level: int) -> None:
        """Its words are text where neither text nor a heading below it follows."""
        if self._bare is not None and level <= self._bare[0]:
            self._add(self._bare[1])
        self._bare = None

    def _end_list(self) -> None:
        items, self._items = self._items, []
        if items:
            self._add("\n".join(items))

    def _add(self, text: str, kind: BlockKind = BlockKind.TEXT, header: str = "") -> None:
        self._end_list()
        if text.strip():
            self._builder.add(text, self._headings.path, kind=kind, header=header)
            self._bare = None

    def _table(self, table: etree._Element) -> None:
        """As its parts where it only gives them their place on the page."""
        cells = [cell for row in table_rows(table) for cell in row_cells(row)]
        if len(cells) == 1 or any(self._has_heading(cell) for cell in cells):
            for cell in cells:
                self._blocks(cell)
            return
        attached: list[Attached] = []
        text, header = self._story_now.table(table, attached)
        self._add(text, BlockKind.TABLE, header)
        self._attached(attached, self._story_now)

    def _has_heading(self, cell: etree._Element) -> bool:
        return not self._boxes and any(local(one) == "p" and self._styles.level(one) is not None for one in cell)

    def _inserted(self, node: etree._Element) -> None:
        part = target_of(self._package.relations(self._story_now.part), node)
        if not part.lower().endswith((".htm", ".html", ".xhtml", ".txt")):
            self._builder.omit(f"an inserted file ({part.rpartition('/')[2] or 'outside of this one'})")
            return
        page = load_html(self._package.read(part))
        self._end_list()
        for block in page.blocks:
            path = (*self._headings.path, *block.heading)
            self._builder.add(page.text[block.start : block.end], path, kind=block.kind, header=block.header)

    # ── what hangs on a paragraph ──

    def _attached(self, attached: Iterable[Attached], story: Story) -> None:
        relations = self._package.relations(story.part)
        for one in attached:
            if one.kind == "txbxContent":
                self._box(one.node, story)
            elif one.kind == "chart":
                for text, is_table in chart_texts(self._package, target_of(relations, one.node)):
                    kind = BlockKind.TABLE if is_table else BlockKind.TEXT
                    self._add(text, kind, text.split("\n", 1)[0] if is_table else "")
            elif one.kind == "relIds":
                data = self._package.take(target_of(relations, one.node, "dm"))
                self._add("" if data is None else "\n".join(diagram_lines(data)))
            elif note := self._notes.take(one):
                self._add(note[0])
                self._attached(note[2], note[1])

    def _box(self, node: etree._Element, story: Story) -> None:
        """Its headings are not the document's."""
        around, self._story_now = self._story_now, story
        self._boxes += 1
        self._end_list()
        self._blocks(node)
        self._end_list()
        self._boxes -= 1
        self._story_now = around

    # ── the end ──

    def _edges(self, root: etree._Element) -> None:
        relations = self._package.relations(self._main)
        for kind, name in _EDGES.items():
            seen: set[str] = set()
            for part in dict.fromkeys(target_of(relations, node) for node in every(root, kind)):
                edge = self._package.take(part)
                if edge is None:
                    continue
                self._headings = HeadingPath()
                self._headings.enter(1, name)
                story, attached = self._story(part), list[Attached]()
                text = "\n".join(story.lines(prepare(edge), attached))
                if text not in seen and any(char.isalpha() for char in text):  # more than the number of a page
                    self._add(text)
                seen.add(text)
                self._attached(attached, story)

    def _say_what_is_left_out(self) -> None:
        unread = self._unread
        if unread.hidden:
            self._builder.omit(f"{unread.hidden} characters that are formatted as hidden text")
        for count, one, many in (
            (unread.pictures, "picture", "pictures"),
            (unread.embedded, "embedded object", "embedded objects"),
        ):
            if count:
                self._builder.omit(f"{count} {one if count == 1 else many}")
        if unread.symbols:
            fonts = ", ".join(sorted(filter(None, unread.symbols))) or "an unnamed font"
            self._builder.omit(f"signs of {fonts} that stand for no letter")
