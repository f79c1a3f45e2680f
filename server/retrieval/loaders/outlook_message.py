"""Outlook messages (.msg): as of .eml, from the properties that MAPI stores in an OLE file ([MS-OXMSG]).

The plain text counts unless it is blank or a stand-in; then HTML, then Rich Text. Messages inside are read under their
subjects, attached text files under their names; other attachments are named, and said not to be read.
"""

from __future__ import annotations

import datetime
import re
import struct
from typing import Final

from server.errors import KnowledgeError
from server.retrieval.loaders.compressed_rtf import unpacked_rtf
from server.retrieval.loaders.decoding import decode
from server.retrieval.loaders.document import Document, DocumentBuilder
from server.retrieval.loaders.email_parts import add_text, better_as_page, is_text_file
from server.retrieval.loaders.ole_streams import Streams
from server.retrieval.loaders.outline import add_document
from server.retrieval.loaders.rtf_text import load_rtf

MAX_INSIDE: Final = 8
_SUBJECT, _BODY, _HTML, _RTF, _SENDER, _ADDRESS, _SMTP = "0037", "1000", "1013", "1009", "0C1A", "0C1F", "5D01"
_TO, _CC, _FILE, _SHORT_FILE, _NAME, _HEADERS = "0E04", "0E03", "3707", "3704", "3001", "007D"
_SENT, _RECEIVED, _CODE_PAGE, _PAGE_OF_HTML = 0x0039, 0x0E06, 0x3FFD, 0x3FDE
_TIME: Final = 0x0040
_EPOCH: Final = datetime.datetime(1601, 1, 1, tzinfo=datetime.UTC)


def load_msg(data: bytes) -> Document:
    streams = Streams(data, ".msg")
    if "__properties_version1.0" not in streams.names:
        raise KnowledgeError("not a .msg file: it is damaged or something else")
    builder = DocumentBuilder()
    _Message(streams, "", 32).add(builder, (), MAX_INSIDE)
    return builder.build()


class _Message:
    """The properties in one storage; `head` is the length of its list's beginning."""

    def __init__(self, streams: Streams, prefix: str, head: int) -> None:
        self._streams, self._prefix = streams, prefix
        self._numbers: dict[int, bytes] = {}
        listed = streams.read(f"{prefix}__properties_version1.0")
        for at in range(head, len(listed) - 15, 16):
            kind, name = struct.unpack_from("<HH", listed, at)
            self._numbers[name if kind != _TIME else name | _TIME << 16] = listed[at + 8 : at + 16]

    def add(self, builder: DocumentBuilder, above: tuple[str, ...], depth: int) -> None:
        subject = " ".join(self._text(_SUBJECT).split())
        path = (*above, subject) if subject else above
        sender, address = self._text(_SENDER), self._text(_SMTP) or self._text(_ADDRESS)
        shown = {
            "From": f"{sender} <{address}>" if "@" in address and address != sender else sender or address,
            "To": self._text(_TO), "Cc": self._text(_CC), "Date": self._time(),
        }  # fmt: skip
        lines = [f"{name}: {' '.join(value.split())}" for name, value in shown.items() if value.strip()]
        builder.add("\n".join(lines) or subject, path)
        self._add_body(builder, path)
        self._add_attached(builder, path, depth)

    def _add_body(self, builder: DocumentBuilder, path: tuple[str, ...]) -> None:
        plain = self._text(_BODY)
        page = self._streams.read(f"{self._prefix}__substg1.0_{_HTML}0102")
        page = page or self._text(_HTML).encode("utf-8", "replace")
        rich = self._streams.read(f"{self._prefix}__substg1.0_{_RTF}0102")
        if page.strip() and better_as_page(plain):
            add_text(builder, page, self._code_page(_PAGE_OF_HTML), path, html=True)
        elif rich and not plain.strip():
            add_document(builder, load_rtf(unpacked_rtf(rich)), path)
        else:
            add_text(builder, plain.replace("\r\n", "\n").encode("utf-8", "replace"), "utf-8", path, html=False)

    def _add_attached(self, builder: DocumentBuilder, path: tuple[str, ...], depth: int) -> None:
        pattern = re.compile(rf"{re.escape(self._prefix)}(__attach_version1\.0_#[0-9A-Fa-f]{{8}})/.*", re.DOTALL)
        storages = dict.fromkeys(found[1] for name in self._streams.names if (found := pattern.match(name)))
        names: list[str] = []
        texts: dict[str, bytes] = {}
        inside: list[_Message] = []
        for storage in storages:
            prefix = f"{self._prefix}{storage}/"
            attached = _Message(self._streams, prefix, 8)
            if f"{prefix}__substg1.0_3701000D/__properties_version1.0" in self._streams.names:
                inside.append(_Message(self._streams, f"{prefix}__substg1.0_3701000D/", 24))
            else:
                name = attached._text(_FILE) or attached._text(_SHORT_FILE) or attached._text(_NAME)
                names.append(" ".join(name.split()) or "one without a name")
                if is_text_file(name):
                    texts[names[-1]] = self._streams.read(f"{prefix}__substg1.0_37010102")
        if names:
            builder.add(f"Attachments: {', '.join(names)}", path)
        if unread := [name for name in names if name not in texts]:
            builder.omit(f"{len(unread)} attachment{'s' * (len(unread) > 1)}: {', '.join(unread)}")
        for name, data in texts.items():
            try:
                add_text(builder, data, None, (*path, name), html=False)
            except KnowledgeError as error:
                builder.omit(f"{name}: {error}")
        for message in inside:
            if depth:
                message.add(builder, path, depth - 1)
            else:
                builder.omit("messages inside of others many times over")

    def _text(self, name: str) -> str:
        wide = self._streams.read(f"{self._prefix}__substg1.0_{name}001F")
        if wide:
            return wide.decode("utf-16-le", "replace").rstrip("\0")
        narrow = self._streams.read(f"{self._prefix}__substg1.0_{name}001E").rstrip(b"\0")
        return decode(narrow, self._code_page(_CODE_PAGE)) if narrow else ""

    def _code_page(self, name: int) -> str | None:
        number = struct.unpack("<I", self._numbers[name][:4])[0] if name in self._numbers else 0
        return {
            0: None,
            65001: "utf-8",
            20127: "us-ascii",
            51949: "euc-kr",
            50220: "iso-2022-jp",
            28591: "iso-8859-1",
        }.get(number, f"cp{number}")

    def _time(self) -> str:
        for name in (_SENT, _RECEIVED):
            value = self._numbers.get(name | _TIME << 16)
            if value is not None and (ticks := struct.unpack("<Q", value)[0]) < 1 << 61:
                return f"{_EPOCH + datetime.timedelta(microseconds=ticks // 10):%Y-%m-%d %H:%M} UTC"
        found = re.search(r"^Date:[ \t]{0,20}([^\r\n]{1,100})", self._text(_HEADERS), re.MULTILINE | re.IGNORECASE)
        return found[1] if found else ""
