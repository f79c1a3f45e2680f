"""The evaluation sets, read from the folder that is given with `--data`, and texts varied from them.

    korquad/KorQuAD_v1.0_dev.json               passages and Korean questions
    chunking/corpora/*.md, questions_df.csv     texts and questions with the characters that answer

Knows nothing of indexes.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from bench.figure import Unavailable

_T = TypeVar("_T")

KORQUAD: Final = Path("korquad/KorQuAD_v1.0_dev.json")
CHUNKING: Final = Path("chunking")
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")
_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True)
class Asked:
    """A question, the file that answers it, and which article that is from."""

    text: str
    file: str
    article: int = 0


@dataclass(frozen=True)
class Spanned:
    """A question, the file that answers it, and where in it: characters from and to."""

    text: str
    file: str
    spans: tuple[tuple[int, int], ...]

    @property
    def characters(self) -> set[int]:
        return {at for start, end in self.spans for at in range(start, end)}


def korquad(data: Path | None) -> tuple[dict[str, str], list[Asked]]:
    """A file for each passage, and the questions."""
    files: dict[str, str] = {}
    questions: list[Asked] = []
    for number, article in enumerate(json.loads(_text(data, KORQUAD))["data"]):
        for paragraph in article["paragraphs"]:
            name = f"{len(files):04}.txt"
            files[name] = paragraph["context"]
            questions += [Asked(asked["question"], name, number) for asked in paragraph["qas"]]
    return files, questions


def chunking(data: Path | None) -> tuple[dict[str, str], list[Spanned]]:
    """The corpora as files, and the questions."""
    rows = csv.DictReader(_text(data, CHUNKING / "questions_df.csv").splitlines(keepends=True))
    questions = [
        Spanned(
            row["question"],
            f"{row['corpus_id']}.md",
            tuple((one["start_index"], one["end_index"]) for one in json.loads(row["references"])),
        )
        for row in rows
    ]
    names = sorted({question.file for question in questions})
    return {name: _text(data, CHUNKING / "corpora" / name) for name in names}, questions


def sample(items: Sequence[_T], most: int | None) -> list[_T]:
    """At most so many, drawn evenly."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[at * len(items) // most] for at in range(most)]


def varied(texts: Sequence[str], seed: int = 0) -> Iterator[str]:
    """Paragraphs without end, about as long as a chunk: sentences of the texts in new company, with other numbers."""
    sentences = [part for text in texts for part in _SENTENCE.split(text) if 40 <= len(part) <= 300]
    if not sentences:
        raise ValueError("the texts hold no sentence to vary")
    drawn = random.Random(seed)
    while True:
        size, chosen = 0, []
        while size < 480:
            chosen.append(_NUMBER.sub(lambda _: str(drawn.randrange(1, 10_000)), drawn.choice(sentences)))
            size += len(chosen[-1])
        yield " ".join(chosen)


def _text(data: Path | None, place: Path) -> str:
    if data is None:
        raise Unavailable("it needs --data PATH: docs/benchmarks.md says where the sets come from")
    try:
        with (data / place).open(encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        raise Unavailable(f"there is no {place} in {data}: docs/benchmarks.md says where it comes from") from None
