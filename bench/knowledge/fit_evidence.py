"""Fits the weights of `server/retrieval/search/evidence.py`, and reports them on questions they were not fitted with.

    python -m bench.knowledge.fit_evidence --data PATH

Each set is a folder, questions that it answers, and questions that it does not: the documents that the default embedder
was not tuned with, and what is asked of their subjects; the calibration's pairs, whose sibling questions are on a
passage's subject and not answered by it; KorQuAD, a half of whose articles is the folder and the
other half asks what is not there; the chunking set, with and without the corpus that answers. A question is fitted with
or reported on by its hash; 300 of a set are asked. Every set and side weighs the same. About 20 minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.embedder.train import Document, documents, questions
from bench.knowledge import sets
from bench.knowledge.run import Run
from server.config import RetrievalSettings
from server.embedding import read_pairs
from server.retrieval import KnowledgeBase

GIVEN: Final = 5
ASKED: Final = 300  # of a set
READ: Final = RetrievalSettings().read
MEANING: Final = 5  # columns without the reader's
RIDGE: Final = 1.0
Columns = NDArray[np.float64]
THRESHOLDS: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True)
class Question:
    """`answers`: whether a passage of a file, by its text, does; None where nothing in the folder does."""

    text: str
    answers: Callable[[str, str], bool] | None


@dataclass(frozen=True)
class Row:
    """One question's best rows: their columns, the last what the reader finds, and which of them answer."""

    name: str
    text: str
    columns: NDArray[np.float32]
    right: NDArray[np.bool_]
    answerable: bool

    def best(self) -> int:
        """Of those that answer, where one does."""
        chosen = np.flatnonzero(self.right) if self.answerable else np.arange(len(self.right))
        read = self.columns.shape[1] > MEANING
        return int(chosen[self.columns[chosen, -1].argmax()] if read else chosen[0])

    @property
    def is_training(self) -> bool:
        return zlib.crc32(self.text.encode()) % 2 == 0


def question_sets(run: Run) -> Iterable[tuple[str, dict[str, str], list[Question]]]:
    _, held = documents()
    files = {f"{at:02}.md": _as_markdown(document) for at, document in enumerate(held)}
    asked = [
        Question(text, _of_section(section["text"]))
        for document in held
        for section in document["sections"]
        for text in questions(section)
    ]
    yield "documents", files, [*asked, *(Question(text, None) for document in held for text in document["unanswered"])]
    pairs = read_pairs()
    for languages in (("en", "ko"), ("en",), ("ko",)):
        files = {f"{at:03}.{one}.md": record[f"passage_{one}"] for at, record in enumerate(pairs) for one in languages}
        found = []
        for at, record in enumerate(pairs):
            own = _in_file(f"{at:03}.")
            for one in ("en", "ko"):
                found += [Question(record[f"{key}_{one}"], own) for key in ("question", "paraphrase")]
                found.append(Question(record[f"sibling_{one}"], None))
        yield f"pairs {'+'.join(languages)}", files, found
    passages, korean = sets.korquad(run.data)
    for half in (0, 1):
        inside = {one.file: passages[one.file] for one in korean if one.article % 2 == half}
        mine = [one for one in korean if one.article % 2 == half]
        others = [one for one in korean if one.article % 2 != half]
        yield (
            f"KorQuAD {half}",
            inside,
            [
                *(Question(one.text, _in_file(one.file)) for one in sets.sample(mine, 400)),
                *(Question(one.text, None) for one in sets.sample(others, 200)),
            ],
        )
    texts, spanned = sets.chunking(run.data)
    yield "chunking", dict(texts), [Question(one.text, _has(texts[one.file], one.spans)) for one in spanned]
    for name in texts:
        rest = {other: text for other, text in texts.items() if other != name}
        mine_spanned = [one for one in spanned if one.file == name]
        yield f"without {name}", rest, [Question(one.text, None) for one in sets.sample(mine_spanned, 40)]


def _as_markdown(document: Document) -> str:
    sections = (f"## {section['heading']}\n\n{section['text']}\n" for section in document["sections"])
    return f"# {document['title']}\n\n" + "\n".join(sections)


def _in_file(start: str) -> Callable[[str, str], bool]:
    return lambda file, text: file.startswith(start)


def _of_section(section: str) -> Callable[[str, str], bool]:
    """A passage of it, however it was cut."""
    whole = "".join(section.split())
    return lambda file, text: "".join(text.split()) in whole or whole in "".join(text.split())


def _has(whole: str, spans: Sequence[tuple[int, int]]) -> Callable[[str, str], bool]:
    wanted = ["".join(whole[start:end].split()) for start, end in spans]
    return lambda file, text: any(part in "".join(text.split()) for part in wanted)


def rows_of(name: str, base: KnowledgeBase, folder: str, questions: Sequence[Question]) -> list[Row]:
    found = []
    for question in questions:
        best = base.evidence(question.text, [folder], READ)
        if best:
            right = [question.answers is not None and question.answers(one.file, one.text) for _, one in best]
            columns = np.stack([columns for columns, _ in best])
            found.append(Row(name, question.text, columns, np.array(right), question.answers is not None))
    return found


def fit(rows: Sequence[Row]) -> Columns:
    """Logistic regression by Newton's method: of a question that is answered, its best passage that answers; of one
    that is not, its best passage. The best is that which the reader finds so, if it was asked."""
    chosen = [
        (row.columns[row.best()], row.answerable, f"{row.name} {row.answerable}")
        for row in rows
        if row.is_training and (row.right.any() or not row.answerable)
    ]
    counts = Counter(group for _, _, group in chosen)
    sides = Counter(group.endswith("True") for group in counts)
    x = np.array([columns for columns, _, _ in chosen], np.float64)
    y = np.array([answers for _, answers, _ in chosen], np.float64)
    weight = np.array([1000 / counts[group] / sides[answers] for _, answers, group in chosen])
    found = np.zeros(x.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(x @ found, -30, 30)))
        gradient = x.T @ (weight * (y - p)) - RIDGE * found
        found += np.linalg.solve((x * (weight * p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(len(found)), gradient)
    return found


def report(rows: Sequence[Row], weights: Columns) -> None:
    """Of the questions that were not fitted with: how many are given the passage that answers, and how many are given
    something though nothing answers."""
    print("likelihood", *(f"{name:>24}" for name in dict.fromkeys(row.name for row in rows)), sep=" | ")
    for threshold in THRESHOLDS:
        right, answerable, given, unanswerable = (defaultdict[str, int](int) for _ in range(4))
        for row in rows:
            if row.is_training:
                continue
            likely = 1 / (1 + np.exp(-np.clip(row.columns @ weights, -30, 30)))
            passes = likely.max() >= threshold
            if row.answerable:
                answerable[row.name] += 1
                right[row.name] += bool(passes and row.right[np.argsort(-likely)[:GIVEN]].any())
            else:
                unanswerable[row.name] += 1
                given[row.name] += bool(passes)
        cells = []
        for name in dict.fromkeys(row.name for row in rows):
            found = f"right {right[name] / answerable[name]:.0%}" if answerable[name] else ""
            wrong = f"given {given[name] / unanswerable[name]:.0%}" if unanswerable[name] else ""
            cells.append(f"{found} {wrong}".strip())
        print(f"{threshold:10.2f}", *(f"{cell:>24}" for cell in cells), sep=" | ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the evaluation sets")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), arguments.data)
        for weight in (RetrievalSettings().dense_weight, 0.0):
            rows: list[Row] = []
            for number, (name, files, asked) in enumerate(question_sets(run)):
                place = f"set-{number}-{weight:g}"
                base = run.base(place, files, RetrievalSettings(dense_weight=weight))
                rows += rows_of(name, base, place, sets.sample(asked, ASKED))
            fits = {"WITH_READER": MEANING + 1, "WITH_MEANING": MEANING} if weight else {"WORDS_ALONE": MEANING}
            for name, count in fits.items():
                best = READ if count > MEANING else GIVEN
                seen = [replace(row, columns=row.columns[:best, :count], right=row.right[:best]) for row in rows]
                weights = fit(seen)
                print(name, "=", tuple(round(float(one), 3) for one in weights))
                report(seen, weights)


if __name__ == "__main__":
    main()
