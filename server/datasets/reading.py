"""Reads rows from a file: checked, counted, duplicates dropped.

A file is JSONL, one object a line, in one of two shapes:

    {"question": str, "answer": str, "sources"?: [{"file", "text", "heading"?, "lines"?, "page"?}],
     "memories"?: [str], "history"?: [{"question", "answer", "sources"?, "memories"?}], "system"?: str,
     "check"?: {"contains"?: [str], "cites"?: [int], "abstains"?: bool}, "group"?: str}
    {"messages": [{"role", "content"}, …], "check"?, "group"?}     the last one is the assistant's

`sources: []` means that knowledge was searched and nothing was found; without the key it was not
searched. Knows nothing of models, tokens or prompts: it returns what a turn is made of.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from server.datasets.dataset import Check, Dataset, DatasetReport, Example
from server.errors import DatasetError
from server.types import HistoryTurn, Memory, MemoryKind, Passage, TurnContext

MAX_BROKEN = 0.05  # of the rows; more broken ones than this, and the file is refused
SHOWN_PROBLEMS = 20  # broken rows that a report names


# ── the file's shapes ────────────────────────────────────────────────────────────────────────────

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Source(_Strict):
    file: _Text
    text: _Text
    heading: tuple[str, ...] = ()
    lines: tuple[int, int] | None = None
    page: int | None = None


class _Check(_Strict):
    contains: tuple[_Text, ...] = ()
    cites: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    abstains: bool = False


class _Turn(_Strict):
    question: _Text
    answer: _Text
    sources: tuple[_Source, ...] | None = None
    memories: tuple[_Text, ...] = ()


class _Row(_Turn):
    history: tuple[_Turn, ...] = ()
    system: str = ""
    check: _Check | None = None
    group: str = ""

    @model_validator(mode="after")
    def _cites_exist(self) -> Self:
        for number in (self.check.cites or ()) if self.check else ():
            if number > len(self.sources or ()):
                raise ValueError(f"check.cites names [{number}], but the row has {len(self.sources or ())} sources")
        return self


class _Message(_Strict):
    role: Literal["system", "user", "assistant"]
    content: _Text


class _Chat(_Strict):
    messages: tuple[_Message, ...]
    check: _Check | None = None
    group: str = ""

    @model_validator(mode="after")
    def _order(self) -> Self:
        roles = [message.role for message in self.messages]
        turns = roles[1:] if roles[:1] == ["system"] else roles
        if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
            raise ValueError(
                "messages must be an optional system message, then user and assistant in turn, the assistant last"
            )
        return self


_ROW, _CHAT = TypeAdapter(_Row), TypeAdapter(_Chat)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def read_examples(path: Path, *, max_broken: float = MAX_BROKEN) -> Dataset:
    """The file's rows. A BOM, CRLF and blank lines are fine.

    Broken rows are dropped and counted. Raises DatasetError, naming the first one's line, when more than
    `max_broken` of the rows are broken, and when the file cannot be read or no row is left.
    """
    kept: dict[str, Example] = {}
    turns: Counter[str] = Counter()
    faults: list[DatasetError] = []
    read = duplicates = conflicts = 0
    for number, line in _lines(path):
        read += 1
        try:
            example = parse_example(path, number, line)
        except DatasetError as error:
            faults.append(error)
            continue
        turn = _content_hash(example, answer=False)
        if kept.setdefault(_content_hash(example, answer=True), example) is not example:
            duplicates += 1
        elif turns[turn]:
            conflicts += 1
        turns[turn] += 1
    if len(faults) > max_broken * read:
        raise _refusal(path, faults, read)
    if not kept:
        raise DatasetError(path, 1, "the file holds no rows; write one JSON object a line")
    problems = tuple(f"line {fault.line}: {fault.reason}" for fault in faults[:SHOWN_PROBLEMS])
    report = DatasetReport(read, len(kept), duplicates, conflicts, len(faults), problems)
    return Dataset(tuple(kept.values()), report)


def parse_example(path: Path | str, number: int, line: str) -> Example:
    """The example in one line of JSON. Raises DatasetError naming `path` and line `number`."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DatasetError(path, number, f"not valid JSON at character {error.pos + 1}: {error.msg}") from error
    if not isinstance(value, dict):
        raise DatasetError(path, number, "a row must be a JSON object, in braces")
    try:
        if "messages" in value:
            return _from_chat(_CHAT.validate_python(value), number)
        return _from_row(_ROW.validate_python(value), number)
    except ValidationError as error:
        raise DatasetError(path, number, _reason(error)) from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DatasetError(path, 1, f"the file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        broken = path.read_bytes()[: error.start].count(b"\n") + 1
        raise DatasetError(path, broken, "not UTF-8 text; save the file as UTF-8") from error
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also cut at U+2028 inside a string
        if line.strip():
            yield number, line


def _refusal(path: Path, faults: Sequence[DatasetError], read: int) -> DatasetError:
    first = faults[0]
    if len(faults) == 1:
        return DatasetError(path, first.line, f"{first.reason} (1 of {read} rows is broken; fix it)")
    others = ", ".join(str(fault.line) for fault in faults[1:6]) + (", …" if len(faults) > 6 else "")
    return DatasetError(
        path, first.line, f"{first.reason} ({len(faults)} of {read} rows are broken, also line {others}; fix them)"
    )


def _reason(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"'{where}': {message}" if where else message


def _from_row(row: _Row, number: int) -> Example:
    history = tuple(
        HistoryTurn(turn.question, _context(turn, number, turn_number), turn.answer)
        for turn_number, turn in enumerate(row.history, 1)
    )
    return Example(
        question=row.question, answer=row.answer, context=_context(row, number, 0), history=history,
        system=row.system.strip(), check=_check(row.check), group=row.group or f"row {number}", line=number,
    )  # fmt: skip


def _from_chat(row: _Chat, number: int) -> Example:
    system = row.messages[0].content if row.messages[0].role == "system" else ""
    texts = [message.content for message in row.messages if message.role != "system"]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    question, answer = pairs[-1]
    return Example(
        question=question, answer=answer, context=TurnContext(),
        history=tuple(HistoryTurn(user, TurnContext(), assistant) for user, assistant in pairs[:-1]),
        system=system, check=_check(row.check), group=row.group or f"row {number}", line=number,
    )  # fmt: skip


def _check(check: _Check | None) -> Check | None:
    return None if check is None else Check(check.contains, check.cites, check.abstains)


def _context(turn: _Turn, number: int, turn_number: int) -> TurnContext:
    """The nonce is drawn from the row's number, so that the same file gives the same prompts."""
    passages = tuple(
        Passage(
            id=f"{number}.{turn_number}.{index}", folder="dataset", file=source.file, text=source.text,
            heading=source.heading, page=source.page,
            line_start=source.lines[0] if source.lines else None, line_end=source.lines[1] if source.lines else None,
        )
        for index, source in enumerate(turn.sources or (), 1)
    )  # fmt: skip
    memories = tuple(
        Memory(index, MemoryKind.FACT, text, "", None, None, 0.0, 0.0) for index, text in enumerate(turn.memories, 1)
    )
    nonce = hashlib.sha256(f"{number}:{turn_number}".encode()).hexdigest()[:8]
    return TurnContext(nonce=nonce, searched=turn.sources is not None, passages=passages, memories=memories)


def _content_hash(example: Example, *, answer: bool) -> str:
    """A hash of what the model is shown, folded for case and space, with the answer or without."""
    turns = [(turn.question, turn.context, turn.answer) for turn in example.history]
    parts: list[str] = [example.system]
    for question, context, reply in [*turns, (example.question, example.context, example.answer if answer else "")]:
        parts += [question, reply, str(context.searched)]
        parts += [f"{passage.file}\n{passage.text}" for passage in context.passages]
        parts += [memory.text for memory in context.memories]
    folded = "\0".join(" ".join(part.casefold().split()) for part in parts)
    return hashlib.sha256(folded.encode()).hexdigest()
