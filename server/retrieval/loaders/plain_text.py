"""Plain text: blank lines separate paragraphs."""

from __future__ import annotations

from server.retrieval.loaders.decoding import decode
from server.retrieval.loaders.document import Block, Document


def load_plain(data: bytes) -> Document:
    text = decode(data)
    blocks: list[Block] = []
    offset = 0
    start: int | None = None
    end = 0
    for line in text.split("\n"):
        if line.strip():
            start = offset if start is None else start
            end = offset + len(line.rstrip())
        elif start is not None:
            blocks.append(Block(start, end))
            start = None
        offset += len(line) + 1
    if start is not None:
        blocks.append(Block(start, end))
    return Document(text, tuple(blocks), numbered=True)
