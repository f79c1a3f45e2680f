"""Rich Text (.rtf): paragraphs, outline levels, tables, notes, headers and footers, in every code page it names.

What is hidden or was deleted with changes tracked is left out. Text that Outlook made of HTML, which it carries
inside, is read as that page. Pictures are counted, not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from server.errors import KnowledgeError
from server.retrieval.loaders.document import Document
from server.retrieval.loaders.html_page import load_html
from server.retrieval.loaders.outline import Outline, table_row

MAX_DEPTH: Final = 10_000  # groups in one another
_TOKEN = re.compile(
    rb"\\(?:'([0-9a-fA-F]{2})|([a-zA-Z]{1,32})(-?[0-9]{1,10})? ?|([^a-zA-Z]))|([{}])|([^\\{}\r\n]+)|[\r\n]+", re.DOTALL
)
_SKIPPED: Final = frozenset(
    (
        b"fonttbl colortbl stylesheet info pict fldinst themedata datastore listtable xe tc listoverridetable "
        b"rsidtbl generator objdata sn sv htmltag mhtmltag filetbl revtbl bkmkstart bkmkend latentstyles pgdsctbl "
        b"nonshppict template fontemb private author atnid atnauthor atntime atnref atndate atnparent objclass "
        b"objname falt panose xmlnstbl wgrffmtfilter ffname ffdeftext formfield mmathPr listname leveltext "
        b"levelnumbers"
    ).split()
)
_ASIDE: Final = {
    b"footnote": "Footnote", b"annotation": "Comment", b"header": "Header", b"headerl": "Header", b"headerr": "Header",
    b"headerf": "Header", b"footer": "Footer", b"footerl": "Footer", b"footerr": "Footer", b"footerf": "Footer",
    b"shptxt": "",
}  # fmt: skip
_READ_ANYWAY: Final = frozenset((b"shpinst shptxt footnote annotation shppict background pntext listtext").split())
_CHARS: Final = {
    b"tab": "\t", b"line": "\n", b"emdash": "—", b"endash": "–", b"lquote": "‘", b"rquote": "’", b"ldblquote": "“",
    b"rdblquote": "”", b"bullet": "•", b"emspace": " ", b"enspace": " ", b"qmspace": " ", b"nestcell": " | ",
    b"sect": "\n", b"page": "\n", b"column": "\n",
}  # fmt: skip
_CODE_PAGES: Final = {  # by the number of a font's character set
    0: "cp1252", 77: "mac_roman", 128: "cp932", 129: "cp949", 130: "johab", 134: "cp936", 136: "cp950",
    161: "cp1253", 162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251",
    222: "cp874", 238: "cp1250",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _State:
    """Of a group. `page` is the encoding of its bytes; `unseen` its words are not shown."""

    page: str
    skip: int = 1  # bytes that stand for a Unicode character for old programs
    unseen: bool = False
    skipped: bool = False
    plain_part: bool = False  # inside of what only programs without HTML show
    aside: str | None = None  # what the group is, where its text stands apart
    fonts: bool = False


def load_rtf(data: bytes) -> Document:
    if not data.lstrip().startswith(b"{\\rtf"):
        raise KnowledgeError("not a .rtf file: it is damaged or something else")
    reader = _Reader()
    reader.read(data)
    return reader.done()


class _Reader:
    def __init__(self) -> None:
        self._outline = Outline()
        self._document_page = "cp1252"
        self._state = _State(self._document_page)
        self._stack: list[_State] = []
        self._fonts: dict[int, str] = {}
        self._font = 0
        self._text: list[list[str]] = [[]]  # of the paragraph, and of what stands apart inside of it
        self._after: list[str] = []  # notes of the paragraph
        self._bytes = bytearray()
        self._pending = 0  # bytes to be skipped
        self._high = ""
        self._cells: list[str] = []
        self._rows: list[list[str]] = []
        self._level = 0
        self._starred = False
        self._pictures = 0
        self._said: set[str] = set()
        self._page: list[str] | None = None  # the HTML that the text was made of, where it is in it

    def read(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            found = _TOKEN.match(data, at)
            if found is None:
                at += 1
                continue
            at = found.end()
            code, word, number, symbol, brace, plain = found.groups()
            if code is not None:
                self._byte(bytes([int(code, 16)]))
            elif word is not None:
                if word == b"bin" and number:
                    at += max(0, int(number))
                else:
                    self._word(word, int(number) if number else None)
            elif brace is not None:
                self._brace(brace)
            elif symbol is not None:
                self._symbol(symbol)
            elif plain is not None:
                self._byte(plain)

    def done(self) -> Document:
        if self._page is not None:
            return load_html("".join(self._page).encode("utf-8", "replace"), "utf-8")
        while len(self._text) > 1:
            self._close_aside("")
        self._paragraph()
        self._table()
        if self._pictures:
            self._outline.builder.omit(f"{self._pictures} picture{'s' * (self._pictures > 1)}")
        return self._outline.build()

    # ── characters ───────────────────────────────────────────────────────────────────────────────

    def _byte(self, some: bytes) -> None:
        if self._pending:
            cut = min(self._pending, len(some))
            self._pending -= cut
            some = some[cut:]
        self._bytes += some

    def _flush(self) -> None:
        some, self._bytes = bytes(self._bytes), bytearray()
        if some:
            self._put(some.decode(self._state.page, "replace"))

    def _put(self, text: str) -> None:
        state = self._state
        if state.unseen or state.skipped or state.plain_part:
            return
        if self._page is not None:
            self._page.append(text)
        else:
            self._text[-1].append(text)

    def _unicode(self, number: int) -> None:
        self._flush()
        char = chr(number & 0xFFFF)
        if "\ud800" <= char <= "\udbff":
            self._high = char
        elif "\udc00" <= char <= "\udfff" and self._high:
            self._put((self._high + char).encode("utf-16-le", "surrogatepass").decode("utf-16-le"))
            self._high = ""
        else:
            self._put(char)
        self._pending = self._state.skip

    def _symbol(self, symbol: bytes) -> None:
        if symbol in (b"\\", b"{", b"}"):
            self._byte(symbol)
            return
        self._flush()
        if symbol == b"*":
            self._starred = True
        elif symbol in (b"\n", b"\r"):
            self._word(b"par", None)
        elif symbol in (b"~", b"_"):
            self._put(" " if symbol == b"~" else "-")

    # ── groups and words ─────────────────────────────────────────────────────────────────────────

    def _brace(self, brace: bytes) -> None:
        self._flush()
        self._pending = 0
        self._starred = False
        if brace == b"{":
            if len(self._stack) > MAX_DEPTH:
                raise KnowledgeError("the content is nested too deeply to be read")
            self._stack.append(self._state)
            self._state = replace(self._state, aside=None)
        elif self._stack:
            if self._state.aside is not None:
                self._close_aside(self._state.aside)
            self._state = self._stack.pop()

    def _word(self, word: bytes, number: int | None) -> None:
        self._flush()
        starred, self._starred = self._starred, False
        self._pending = 0
        if word == b"u" and number is not None:
            self._unicode(number)
        elif word == b"fromhtml":
            self._page = []
        elif word == b"htmltag" and self._page is not None:
            self._state = replace(self._state, plain_part=False)
        elif word == b"fonttbl":
            self._state = replace(self._state, skipped=True, fonts=True)
        elif word in _SKIPPED or (starred and word not in _READ_ANYWAY):
            self._pictures += word == b"pict" and not self._state.skipped
            self._state = replace(self._state, skipped=True)
        elif (label := _ASIDE.get(word)) is not None:
            self._state = replace(self._state, aside=label, unseen=self._state.unseen)
            self._text.append([])
        elif word in _CHARS:
            self._put(_CHARS[word])
        elif not self._state.skipped or self._state.fonts:
            self._control(word, number)

    def _control(self, word: bytes, number: int | None) -> None:
        value = 1 if number is None else number
        if word == b"ansicpg":
            self._document_page = _known(f"cp{number}")
            self._state = replace(self._state, page=self._document_page)
        elif word == b"mac":
            self._document_page = "mac_roman"
            self._state = replace(self._state, page=self._document_page)
        elif word == b"uc":
            self._state = replace(self._state, skip=max(0, min(value, 16)))
        elif word == b"f" and self._state.fonts:
            self._font = value
        elif word == b"fcharset" and self._state.fonts:
            if value in _CODE_PAGES and value:
                self._fonts[self._font] = _CODE_PAGES[value]
        elif word == b"f":
            self._state = replace(self._state, page=self._fonts.get(value, self._document_page))
        elif word in (b"v", b"deleted"):
            self._state = replace(self._state, unseen=bool(value))
        elif word == b"plain":
            self._state = replace(self._state, unseen=False, page=self._document_page)
        elif word == b"htmlrtf":
            self._state = replace(self._state, plain_part=bool(value))
        else:
            self._layout(word, value)

    def _layout(self, word: bytes, value: int) -> None:
        if self._state.plain_part:
            return
        if word == b"par" and self._page is None and len(self._text) == 1:
            self._paragraph()
        elif word == b"par":
            self._put("\n")
        elif word == b"outlinelevel":
            self._level = value + 1
        elif word == b"pard":
            self._level = 0
        elif word == b"cell" and len(self._text) == 1:
            self._cells.append(" ".join(["".join(self._text[0]), *self._after]))
            self._text[0], self._after = [], []
        elif word in (b"row", b"nestrow") and len(self._text) == 1:
            self._rows.append(self._cells)
            self._cells = []

    # ── blocks ───────────────────────────────────────────────────────────────────────────────────

    def _close_aside(self, label: str) -> None:
        text = " ".join("".join(self._text.pop()).split()) if len(self._text) > 1 else ""
        said = f"{label}: {text}" if label else text
        if text and said not in self._said:
            self._after.append(said)
            if label in ("Header", "Footer"):
                self._said.add(said)

    def _paragraph(self) -> None:
        text = "".join(self._text[0])
        self._text[0] = []
        if self._cells or (self._rows and not text.strip() and not self._after):
            self._cells = (
                [*self._cells[:-1], f"{self._cells[-1]} {text}"] if self._cells and text.strip() else self._cells
            )
            return
        if text.strip():
            self._table()
            if 1 <= self._level <= 9:
                self._outline.heading(self._level, text)
            else:
                self._outline.text(text.strip())
        for note in self._after:
            self._outline.text(note)
        self._after = []

    def _table(self) -> None:
        rows, self._rows = self._rows, []
        if self._cells:
            rows.append(self._cells)
            self._cells = []
        self._outline.lines([table_row(cells) for cells in rows])


def _known(page: str) -> str:
    try:
        "".encode(page)
    except LookupError:
        return "cp1252"
    return page
