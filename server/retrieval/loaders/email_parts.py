"""E-mail (.eml): the subject is the heading; then who wrote to whom and when, the text, and the names of attachments.

Of a text that comes plain and as HTML the plain one is taken. A forwarded message is read under the heading of its
own subject. Attachments are named, not read.
"""

from __future__ import annotations

import codecs
import re
from email import message_from_bytes, policy
from email.errors import HeaderParseError
from email.message import EmailMessage
from typing import Final

from server.errors import KnowledgeError
from server.retrieval.loaders.decoding import decode
from server.retrieval.loaders.document import Document, DocumentBuilder
from server.retrieval.loaders.html_page import load_html

MAX_FORWARDED: Final = 8
_SHOWN: Final = ("From", "To", "Cc", "Date")
_RAW_BYTES = re.compile("[\udc80-\udcff]")


def load_email(data: bytes) -> Document:
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = decode(data).encode()
    message = message_from_bytes(data, policy=policy.default)
    if not message.keys() and data.strip():
        raise KnowledgeError("not an e-mail: it does not begin with header lines such as 'From:' and 'Subject:'")
    builder = DocumentBuilder()
    _add_message(builder, message, (), MAX_FORWARDED)
    return builder.build()


def _add_message(builder: DocumentBuilder, message: EmailMessage, above: tuple[str, ...], depth: int) -> None:
    subject = _header(message, "Subject")
    path = (*above, subject) if subject else above
    builder.add("\n".join(f"{name}: {value}" for name in _SHOWN if (value := _header(message, name))), path)
    body = message.get_body(("plain", "html"))
    attached: list[str] = []
    forwarded: list[EmailMessage] = []
    for part in message.walk():
        if part.get_content_type() == "message/rfc822" and part is not message:
            forwarded += [inner for inner in part.iter_parts() if isinstance(inner, EmailMessage)]
        elif part is not body and part.get_filename():
            attached.append(" ".join(str(part.get_filename()).split()))
    if isinstance(body, EmailMessage):
        _add_text(builder, body, path)
    if attached:
        builder.add(f"Attachments: {', '.join(attached)}", path)
    for inner in forwarded if depth else ():
        _add_message(builder, inner, path, depth - 1)


def _add_text(builder: DocumentBuilder, part: EmailMessage, path: tuple[str, ...]) -> None:
    content = part.get_payload(decode=True)
    data = content if isinstance(content, bytes) else b""
    if part.get_content_subtype() == "html":
        page = load_html(data)
        for block in page.blocks:
            text = page.text[block.start : block.end]
            builder.add(text, (*path, *block.heading), kind=block.kind, header=block.header)
        return
    for paragraph in re.split(r"\n[ \t]*\n", decode(data, part.get_content_charset())):
        builder.add(paragraph.strip("\n"), path)


def _header(message: EmailMessage, name: str) -> str:
    """Decoded, on one line. Bytes beyond ASCII, which old programs left bare, are recognised as in a text file."""
    raw = next((str(value) for key, value in message.raw_items() if key.lower() == name.lower()), "")
    if _RAW_BYTES.search(raw):
        return " ".join(decode(raw.encode("utf-8", "surrogateescape")).split())
    try:
        return " ".join(str(message.get(name, "")).split())
    except (HeaderParseError, ValueError, IndexError, AttributeError):  # its parser fails on some broken headers
        return " ".join(raw.split())
