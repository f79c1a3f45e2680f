"""Hangul 5 (.hwp): an OLE file whose streams are records, each with a tag and a level of nesting.

Source of the layout: Hancom, "Hangul document file format 5.0, revision 1.3". What asks for a password, documents for
distribution and Hangul 3 are refused with the way out. Pictures are counted, not read.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Final

from server.errors import KnowledgeError
from server.retrieval.loaders.document import Document
from server.retrieval.loaders.hangul_story import (
    COUNTED,
    Inset,
    Paragraph,
    Table,
    add_story,
    alternative,
    outline_level,
)
from server.retrieval.loaders.ole_streams import MAX_UNPACKED, Streams
from server.retrieval.loaders.outline import Outline

MAX_RECORDS: Final = 1_000_000  # of a section: each paragraph has about four
_SAVE_AS: Final = "open it in Hangul and save it as .hwpx"
_COMPRESSED, _PASSWORD, _DISTRIBUTION = 0x1, 0x2, 0x4
_PARA_SHAPE, _STYLE, _PARA_HEADER, _PARA_TEXT, _CTRL, _LIST = 0x19, 0x1A, 0x42, 0x43, 0x47, 0x48
_OLE, _PICTURE, _EQUATION, _WORD_ART, _FORM, _MEMO, _CHART, _VIDEO = 0x54, 0x55, 0x58, 0x5A, 0x5B, 0x5D, 0x5F, 0x62
_TABLE: Final = b" lbt"
_LABELS: Final = {
    b"daeh": "Header", b"toof": "Footer", b"  nf": "Footnote", b"  ne": "Endnote", b"tmct": "Comment",
    b"dces": "Header",  # of a section: the paragraphs of its master page
}  # fmt: skip
_OBJECTS: Final = {_PICTURE: "pictures", _OLE: "embedded objects", _CHART: "charts", _VIDEO: "videos"}
_ONE_UNIT = {0, 10, 13, *range(24, 32)}  # control characters of one code unit; the others take eight
_SPACES = {9: "\t", 10: "\n", 24: "-", 30: " ", 31: " "}
_EXTENDED = {1, 2, 3, *range(11, 19), 21, 22, 23}  # those that have a control of their own among the records
_FORM_WORDS = re.compile(r"(?:Caption|Text|ListBoxRows):wstring:(\d{1,6}):")


class _Record:
    __slots__ = ("children", "data", "tag")

    def __init__(self, tag: int, data: bytes) -> None:
        self.tag, self.data = tag, data
        self.children: list[_Record] = []


def load_hwp(data: bytes) -> Document:
    if data.startswith(b"HWP Document File"):
        raise KnowledgeError(f"the file is in the format of Hangul 3 or older: {_SAVE_AS}")
    streams = Streams(data, ".hwp")
    head = streams.read("FileHeader")
    if not head.startswith(b"HWP Document File") or len(head) < 40:
        raise KnowledgeError("not a .hwp file: it is damaged or something else")
    flags = struct.unpack_from("<I", head, 36)[0]
    if flags & _PASSWORD:
        raise KnowledgeError("the file is encrypted with a password: save it without one")
    if flags & _DISTRIBUTION:
        raise KnowledgeError(
            "the file is a document for distribution, whose text is locked: save the original as .hwpx"
        )
    reader = _Reader(_records(_inflated(streams.read("DocInfo"), flags)))
    outline, said = Outline(), set[str]()
    for name in streams.numbered("BodyText", "Section"):
        add_story(outline, reader.paragraphs(_records(_inflated(streams.read(name), flags))), said)
    reader.say_omitted(outline)
    return outline.build()


def _inflated(data: bytes, flags: int) -> bytes:
    if not flags & _COMPRESSED:
        return data
    unpacker = zlib.decompressobj(-15)
    unpacked = unpacker.decompress(data, MAX_UNPACKED)
    if unpacker.unconsumed_tail:
        raise KnowledgeError(f"a part of the file unpacks to over {MAX_UNPACKED // 1024**2} MB: split it")
    return unpacked


def _records(data: bytes) -> list[_Record]:
    """The records at the top, each with those below it."""
    root = _Record(0, b"")
    above = [root]  # the last record of each level
    at = count = 0
    while at + 4 <= len(data):
        count += 1
        if count > MAX_RECORDS:
            raise KnowledgeError(f"a section of the file holds over {MAX_RECORDS:,} records: split it")
        head = struct.unpack_from("<I", data, at)[0]
        tag, level, size = head & 0x3FF, (head >> 10) & 0x3FF, head >> 20
        at += 4
        if size == 0xFFF and at + 4 <= len(data):
            size = struct.unpack_from("<I", data, at)[0]
            at += 4
        record = _Record(tag, data[at : at + size])
        at += size
        del above[level + 1 :]
        above[-1].children.append(record)
        above.append(record)
    return root.children


class _Reader:
    """Records of the body to paragraphs. `info` has the styles; counts what is not read."""

    def __init__(self, info: list[_Record]) -> None:
        self._shapes: list[int] = []
        self._styles: list[int] = []
        self._counted: list[bool] = []  # shapes whose paragraphs the program numbers
        self._numbers = False
        self._objects: dict[str, int] = {}
        for record in _all(info):
            if record.tag == _PARA_SHAPE and len(record.data) >= 4:
                bits = struct.unpack_from("<I", record.data)[0]
                self._shapes.append(1 + ((bits >> 25) & 7) if (bits >> 23) & 3 == 1 else 0)
                self._counted.append((bits >> 23) & 3 in (1, 2))
            elif record.tag == _STYLE:
                local, at = _string(record.data, 0)
                self._styles.append(outline_level(local) or outline_level(_string(record.data, at)[0]))

    def say_omitted(self, outline: Outline) -> None:
        for what, count in self._objects.items():
            outline.builder.omit(f"{count} {what if count > 1 else what[:-1]}")
        if self._numbers:
            outline.builder.omit(COUNTED)

    def paragraphs(self, records: list[_Record]) -> list[Paragraph]:
        """Of neighbouring records; what is no paragraph is looked into."""
        found: list[Paragraph] = []
        for record in records:
            if record.tag == _PARA_HEADER:
                found.append(self._paragraph(record))
            elif record.tag == _MEMO:
                found.append(Paragraph(parts=[Inset("Comment", self.paragraphs(record.children))]))
            elif record.tag == _CTRL:
                found.append(Paragraph(parts=self._parts(record)))
            else:
                found += self._drawn(record)
        return found

    def _paragraph(self, record: _Record) -> Paragraph:
        level = 0
        if len(record.data) >= 11:
            shape, style = struct.unpack_from("<HB", record.data, 8)
            level = self._shapes[shape] if shape < len(self._shapes) else 0
            self._numbers |= (
                shape < len(self._counted)
                and self._counted[shape]
                and any(child.tag == _PARA_TEXT and len(child.data) > 2 for child in record.children)
            )
            level = level or (self._styles[style] if style < len(self._styles) else 0)
        paragraph = Paragraph(level=level)
        controls = [child for child in record.children if child.tag == _CTRL]
        texts = [child.data for child in record.children if child.tag == _PARA_TEXT]
        paragraph.text = "".join(_text(data, iter(controls)) for data in texts[:1])
        for child in record.children:
            if child.tag == _CTRL:
                paragraph.parts += self._parts(child)
            elif child.tag != _PARA_TEXT:
                paragraph.parts.append(Inset("", self.paragraphs([child])))
        return paragraph

    def _parts(self, control: _Record) -> list[Table | Inset]:
        name = control.data[:4]
        if name == _TABLE:
            return [self._table(control)]
        found = self.paragraphs(control.children)
        if name in (b" osg", b"dqe", b"deqe") and (words := alternative(_string(control.data, 44)[0])):
            found.insert(0, Paragraph(words))
        return [Inset(_LABELS.get(name, ""), found)] if found else []

    def _table(self, control: _Record) -> Table:
        """Lists before the record of the table are its caption, those behind it its cells."""
        table, rows = Table([]), dict[int, list[list[Paragraph]]]()
        cell, seen = table.caption, False
        for child in control.children:
            if child.tag == 0x4D:
                seen = True
            elif child.tag == _LIST and seen and len(child.data) >= 12:
                row = struct.unpack_from("<H", child.data, 10)[0]
                cell = []
                rows.setdefault(row, []).append(cell)
                cell += self.paragraphs(child.children)
            else:
                cell += self.paragraphs([child])
        table.rows = [rows[row] for row in sorted(rows)]
        return table

    def _drawn(self, record: _Record) -> list[Paragraph]:
        words = ""
        if record.tag == _EQUATION:
            words = _string(record.data, 4)[0]
        elif record.tag == _WORD_ART:
            words = _string(record.data, 32)[0]
        elif record.tag == _FORM:
            source = record.data.decode("utf-16-le", "replace")
            words = "\n".join(source[one.end() : one.end() + int(one[1])] for one in _FORM_WORDS.finditer(source))
        elif record.tag in _OBJECTS:
            what = _OBJECTS[record.tag]
            self._objects[what] = self._objects.get(what, 0) + 1
        return [*([Paragraph(words)] if words.strip() else []), *self.paragraphs(record.children)]


def _all(records: list[_Record]) -> Iterator[_Record]:
    for record in records:
        yield record
        yield from _all(record.children)


def _string(data: bytes, at: int) -> tuple[str, int]:
    """A counted string, and where it ends."""
    if at + 2 > len(data):
        return "", at
    end = at + 2 + 2 * struct.unpack_from("<H", data, at)[0]
    return data[at + 2 : end].decode("utf-16-le", "replace"), end


def _text(data: bytes, controls: Iterator[_Record]) -> str:
    """Words of a paragraph; numbers and ruby text, which its controls hold, at their places."""
    units = struct.unpack(f"<{len(data) // 2}H", data[: len(data) // 2 * 2])
    pieces: list[bytes] = []
    at = 0
    while at < len(units):
        unit = units[at]
        if unit >= 32:
            pieces.append(data[2 * at : 2 * at + 2])
            at += 1
            continue
        shown = _SPACES.get(unit, "")
        if unit in _EXTENDED and (control := next(controls, None)) is not None:
            shown = _shown(control.data)
        pieces.append(shown.encode("utf-16-le"))
        at += 1 if unit in _ONE_UNIT else 8
    return b"".join(pieces).decode("utf-16-le", "replace")


def _shown(control: bytes) -> str:
    """The words of a control that stands in the line."""
    name = control[:4]
    if name == b"onta" and len(control) >= 10:
        return str(struct.unpack_from("<H", control, 8)[0])
    if name == b"tudt":
        main, at = _string(control, 4)
        above = _string(control, at)[0]
        return f"{main} ({above})" if above else main
    if name == b"spct":
        return _string(control, 4)[0]
    return ""
