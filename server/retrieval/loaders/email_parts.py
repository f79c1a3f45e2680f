"""E-mail (.eml): the subject is the heading; then who wrote to whom and when, the text, and the names of attachments.

Of a text that comes plain and as HTML the plain one is taken, unless it is blank or only says that there is another.
A forwarded message is read under the heading of its own subject, an attached text file under its name, and an
invitation as lines. Other attachments are named, and said not to be read. A saved page (.mht) is the same without the
letter.
"""

from __future__ import annotations

import codecs
import re
from email import message_from_bytes, policy
from email.errors import HeaderParseError
from email.message import EmailMessage
from typing import Final

from server.errors import KnowledgeError
from server.retrieval.loaders.calendar_entries import calendar_text
from server.retrieval.loaders.decoding import decode
from server.retrieval.loaders.document import Document, DocumentBuilder
from server.retrieval.loaders.html_page import load_html
from server.retrieval.loaders.outline import add_document

MAX_FORWARDED: Final = 8
PLACEHOLDER_CHARS: Final = 600  # of a plain text that only says that the message is HTML
_SHOWN: Final = ("From", "To", "Cc", "Date")
_RAW_BYTES = re.compile("[\udc80-\udcff]")
_PLACEHOLDER = re.compile(
    r"\bhtml\b|(?:view|read|display|see) this (?:e-?mail|message|newsletter)"
    r"|보이지 않|표시되지 않|表示され|表示でき|无法显示",
    re.IGNORECASE,
)
_LOCKED: Final = ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")


def load_email(data: bytes) -> Document:
    message = _parsed(data)
    if not message.keys() and data.strip():
        raise KnowledgeError("not an e-mail: it does not begin with header lines such as 'From:' and 'Subject:'")
    builder = DocumentBuilder()
    _Letter(builder, message, (), MAX_FORWARDED).add()
    document = builder.build()
    if not document.blocks:
        builder.add(_header(message, "Subject"))
    return builder.build()


def load_page_archive(data: bytes) -> Document:
    """A web page saved with its pictures (.mht)."""
    message = _parsed(data)
    if not message.keys():
        raise KnowledgeError("not a saved web page (.mht): it is damaged or something else")
    builder = DocumentBuilder()
    for part in message.walk():
        if part.get_content_type() in ("text/html", "text/plain", "application/xhtml+xml"):
            add_text(
                builder, _bytes(part), part.get_content_charset(), (), html=part.get_content_type() != "text/plain"
            )
    return builder.build()


def add_text(builder: DocumentBuilder, data: bytes, charset: str | None, path: tuple[str, ...], *, html: bool) -> None:
    """A text of a letter, by paragraphs or as a page."""
    if html:
        add_document(builder, load_html(data, charset), path)
        return
    for paragraph in re.split(r"\n[ \t]*\n", decode(data, charset)):
        builder.add(paragraph.strip("\n"), path)


def better_as_page(plain: str) -> bool:
    """The plain text is blank or a stand-in for the page beside it."""
    return not plain.strip() or (len(plain) <= PLACEHOLDER_CHARS and bool(_PLACEHOLDER.search(plain)))


def _parsed(data: bytes) -> EmailMessage:
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or data[:64].count(0) > 16:
        data = decode(data).encode()
    return message_from_bytes(data, policy=policy.default)


class _Letter:
    """Adds one message. `depth` is how many messages may still be inside one another."""

    def __init__(self, builder: DocumentBuilder, message: EmailMessage, above: tuple[str, ...], depth: int) -> None:
        subject = _header(message, "Subject")
        self._builder, self._message, self._depth = builder, message, depth
        self._path = (*above, subject) if subject else above
        self._attached: list[str] = []
        self._inner: list[tuple[str, EmailMessage]] = []  # text files by name and messages, which come last

    def add(self) -> None:
        lines = [f"{name}: {value}" for name in _SHOWN if (value := _header(self._message, name))]
        self._builder.add("\n".join(lines), self._path)
        self._part(self._message)
        unread = [name for name in self._attached if name not in {inner for inner, _ in self._inner}]
        if self._attached:
            self._builder.add(f"Attachments: {', '.join(self._attached)}", self._path)
        if unread:
            self._builder.omit(f"{len(unread)} attachment{'s' * (len(unread) > 1)}: {', '.join(unread)}")
        for name, inner in self._inner:
            if name:
                self._text(inner, (*self._path, name), name)
            elif self._depth:
                _Letter(self._builder, inner, self._path, self._depth - 1).add()
            else:
                self._builder.omit("messages forwarded inside of others many times over")

    def _text(self, part: EmailMessage, path: tuple[str, ...], what: str) -> None:
        """A part that is no text, whatever it says of itself, does not keep the others from being read."""
        html = part.get_content_subtype() == "html"
        try:
            add_text(self._builder, _bytes(part), part.get_content_charset(), path, html=html)
        except KnowledgeError as error:
            self._builder.omit(f"{what}: {error}")

    def _part(self, part: EmailMessage) -> None:
        kind = part.get_content_type()
        name = _file_name(part)
        if kind == "message/rfc822":
            self._inner += [("", one) for one in part.iter_parts() if isinstance(one, EmailMessage)]
        elif kind in _LOCKED:
            self._builder.omit("a text that is encrypted")
            self._attached += [name] if name else []
        elif kind == "multipart/alternative":
            self._alternatives([one for one in part.iter_parts() if isinstance(one, EmailMessage)])
        elif part.is_multipart():
            for one in part.iter_parts():
                if isinstance(one, EmailMessage):
                    self._part(one)
        elif kind == "text/calendar":
            self._builder.add(calendar_text(_lenient(part)), self._path)
        elif part.get_content_maintype() != "text" and not (kind == "application/octet-stream" and is_text_file(name)):
            self._named(part, name, kind)
        elif name and part.get_content_disposition() == "attachment":
            self._attached.append(name)
            self._inner.append((name, part))
        else:
            self._text(part, self._path, name or "a part of the text")

    def _named(self, part: EmailMessage, name: str, kind: str) -> None:
        if name:
            self._attached.append(name)
        elif _bytes(part).strip() and (
            part.get_content_disposition() == "attachment" or part.get_content_maintype() == "application"
        ):
            self._attached.append(f"one without a name ({kind})")

    def _alternatives(self, parts: list[EmailMessage]) -> None:
        """One of those that say the same, and what says more: invitations and files."""
        plain = [part for part in parts if part.get_content_type() == "text/plain"]
        pages = [part for part in parts if part not in plain and _holds_page(part)]
        texts = "\n".join(map(_lenient, plain))
        passed_over = plain if pages and better_as_page(texts) else [one for one in pages if plain]
        for part in parts:
            if part not in passed_over:
                self._part(part)
            else:
                files = (one for one in part.walk() if one.get_content_maintype() not in ("text", "multipart"))
                self._attached += filter(None, map(_file_name, files))


def _lenient(part: EmailMessage) -> str:
    """The text of a part; '' where it is none."""
    try:
        return decode(_bytes(part), part.get_content_charset())
    except KnowledgeError:
        return ""


def _holds_page(part: EmailMessage) -> bool:
    return any(one.get_content_type() == "text/html" for one in part.walk())


def is_text_file(name: str) -> bool:
    return name.lower().endswith((".txt", ".md", ".csv", ".log"))


def _file_name(part: EmailMessage) -> str:
    try:
        return " ".join(str(part.get_filename() or "").split())
    except (HeaderParseError, ValueError, IndexError, AttributeError, TypeError):  # as below
        return "one whose name is damaged"


def _bytes(part: EmailMessage) -> bytes:
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""


def _header(message: EmailMessage, name: str) -> str:
    """Decoded, on one line. Bytes beyond ASCII, which old programs left bare, are recognised as in a text file."""
    raw = next((str(value) for key, value in message.raw_items() if key.lower() == name.lower()), "")
    if _RAW_BYTES.search(raw):
        return " ".join(decode(raw.encode("utf-8", "surrogateescape")).split())
    try:
        return " ".join(str(message.get(name, "")).split())
    except (HeaderParseError, ValueError, IndexError, AttributeError):  # its parser fails on some broken headers
        return " ".join(raw.split())
