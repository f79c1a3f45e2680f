"""Documents to chunks: structure first, then sentences, sized by a token counter given from outside.

Blocks under one heading (and on one page) are packed together up to the budget; a block over it is
split at sentence ends (prose), between lines (code, tables), and only then at spaces or anywhere. No
chunk crosses a heading or a page. Pure: the same document, counter and budget give the same chunks.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

from server.retrieval.loaders.document import Block, BlockKind, Document
from server.words import sentences

CHUNKER_VERSION = 4  # raise it when the same file may give other chunks

TokenCounter = Callable[[str], int]

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class ChunkText:
    """A chunk before it is assigned to a file: `text` is a slice of the document, after the header of a split table.
    `continues`: it goes on where the chunk before it ends, under the same heading."""

    text: str
    heading: tuple[str, ...]
    line_start: int | None
    line_end: int | None
    page: int | None
    continues: bool = False


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is never split: document text from `start` to `end`. `header` stands before it in a split table."""

    start: int
    end: int
    size: int
    header: str = ""


def chunk(document: Document, count_tokens: TokenCounter, token_budget: int) -> list[ChunkText]:
    """Chunks in the order of the document, each of at most `token_budget` tokens, table headers aside."""
    starts = [0, *(match.end() for match in re.finditer("\n", document.text))] if document.numbered else []
    chunks = []
    for group in _groups(document.blocks):
        first = group[0]
        units = [unit for block in group for unit in _units(document.text, block, count_tokens, token_budget)]
        for number, run in enumerate(_packed(units, token_budget)):
            start, end = run[0].start, run[-1].end
            lines = first.lines
            if document.numbered:
                lines = (bisect_right(starts, start), bisect_right(starts, end - 1))
            text = document.text[start:end]
            chunks.append(
                ChunkText(
                    text=f"{run[0].header}\n{text}" if run[0].header else text,
                    heading=first.heading,
                    line_start=lines[0] if lines else None,
                    line_end=lines[1] if lines else None,
                    page=first.page,
                    continues=number > 0,
                )
            )
    return chunks


def _groups(blocks: tuple[Block, ...]) -> Iterator[list[Block]]:
    """Neighbours that may share a chunk."""

    def group_key(numbered: tuple[int, Block]) -> tuple[tuple[str, ...], int | None, int]:
        number, block = numbered
        return block.heading, block.page, number if block.kind is BlockKind.ROW else -1

    for _, group in groupby(enumerate(blocks), key=group_key):
        yield [block for _, block in group]


def _packed(units: list[_Unit], token_budget: int) -> Iterator[list[_Unit]]:
    """Runs of units up to the budget, of about equal size so that no small rest is left at the end."""
    total = sum(unit.size for unit in units)
    target = total / max(1, math.ceil(total / token_budget))
    run: list[_Unit] = []
    size = 0
    for unit in units:
        if run and (size + unit.size > token_budget or size >= target):
            yield run
            run, size = [], 0
        run.append(unit)
        size += unit.size
    if run:
        yield run


def _units(text: str, block: Block, count_tokens: TokenCounter, token_budget: int) -> Iterator[_Unit]:
    size = count_tokens(text[block.start : block.end])
    if size <= token_budget:
        yield _Unit(block.start, block.end, size)
        return
    by_line = block.kind in (BlockKind.CODE, BlockKind.TABLE)
    spans = _between_lines(text, block) if by_line else sentences(text, block.start, block.end)
    for start, end in spans:
        size = count_tokens(text[start:end])
        header = block.header if start > block.start else ""
        if size <= token_budget:
            yield _Unit(start, end, size, header)
        else:
            for inner_start, inner_end in _split(text, start, end, count_tokens, token_budget):
                yield _Unit(inner_start, inner_end, count_tokens(text[inner_start:inner_end]), header)


def _between_lines(text: str, block: Block) -> Iterator[tuple[int, int]]:
    start = block.start
    header_end = block.start + len(block.header) if text.startswith(block.header, block.start) else block.start
    for match in re.compile("\n").finditer(text, header_end, block.end):
        if text[start : match.start()].strip():
            yield start, match.start()
            start = match.end()
    if start < block.end:
        yield start, block.end


def _split(text: str, start: int, end: int, count_tokens: TokenCounter, token_budget: int) -> Iterator[tuple[int, int]]:
    """A sentence over the budget: halved at the space nearest to its middle until each part fits."""
    if end - start <= 1 or count_tokens(text[start:end]) <= token_budget:
        yield start, end
        return
    middle = (start + end) // 2
    spaces = [gap.span() for gap in _SPACE.finditer(text, start, end) if start < gap.start() and gap.end() < end]
    left, right = min(spaces, key=lambda span: abs(span[0] - middle), default=(middle, middle))
    yield from _split(text, start, left, count_tokens, token_budget)
    yield from _split(text, right, end, count_tokens, token_budget)
