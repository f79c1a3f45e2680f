"""The command for knowledge: its options, its sets, and a run of every figure on tiny sizes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from bench import command
from bench.figure import Unavailable
from bench.knowledge import __main__ as knowledge
from bench.knowledge import quality, sets
from bench.knowledge.embedders import Fast, Remembering
from bench.knowledge.quality import Overlap
from bench.knowledge.run import Run
from bench.knowledge.scale import percentile
from bench.knowledge.sets import Spanned
from bench.knowledge.victim import Words, word
from server.relations import TextRole
from server.types import Passage

SENTENCES = [
    "The harbour museum opens at nine in the morning on every day of the week but Monday.",
    "Its lighthouse was built by fishermen who had lost a boat in the winter storm of 1871.",
    "Visitors may climb the stairs with a guide who tells of the lamp and of the oil it burned.",
    "The boat in the yard belonged to the last keeper and was painted green by his daughter.",
]
QUESTIONS = [
    ("When does the harbour museum open in the morning?", 0),
    ("Who built the lighthouse after the winter storm?", 1),
    ("Who tells visitors of the lamp on the stairs?", 2),
    ("What colour was the boat of the last keeper painted?", 3),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Both sets, of the same small text, in the layout that they come in."""
    folder = tmp_path / "data"
    (folder / "chunking" / "corpora").mkdir(parents=True)
    (folder / "korquad").mkdir()
    filler = " ".join(f"On day {day} the sea was calm, and nobody wrote more than that." for day in range(60))
    text = "\n\n".join(f"{sentence} {filler}" for sentence in SENTENCES)
    (folder / "chunking" / "corpora" / "harbour.md").write_text(text)
    rows = ["question,references,corpus_id"]
    for question, number in QUESTIONS:
        start = text.index(SENTENCES[number])
        spans = json.dumps([{"content": "", "start_index": start, "end_index": start + len(SENTENCES[number])}])
        quoted = spans.replace('"', '""')
        rows.append(f'{question},"{quoted}",harbour')
    (folder / "chunking" / "questions_df.csv").write_text("\n".join(rows) + "\n")
    paragraphs = [
        {"context": f"{SENTENCES[number]} {filler[:300]}", "qas": [{"question": question}]}
        for question, number in QUESTIONS
    ]
    (folder / "korquad" / "KorQuAD_v1.0_dev.json").write_text(
        json.dumps({"data": [{"paragraphs": paragraphs[:2]}, {"paragraphs": paragraphs[2:]}]})
    )
    return folder


# ── the command ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "korquad,nonsense"], "no figure nonsense; there are korquad,"),
        (["--write", "--only", "korquad"], "--write takes the whole table"),
        (["--write", "--quick"], "--write takes the whole table"),
        (["--rounds", "0"], "--rounds"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        knowledge.main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_the_document_names_every_figure(tmp_path: Path) -> None:
    text = command.DOCUMENT.read_text(encoding="utf-8")
    names = [figure.name for figure in knowledge.figures(Run(tmp_path, None))]
    assert [name for name in names if f"`{name}`" not in text] == []
    assert "<!-- results on knowledge: begin -->" in text


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(900)
def test_a_quick_run_measures_every_figure(
    data: Path,
    tmp_path: Path,
    english_embedder_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "WORK", tmp_path / "work")
    code = knowledge.main(["--data", str(data), "--quick", "--rounds", "1", "--embedder", str(english_embedder_dir)])
    printed = capsys.readouterr().out
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| `")]
    shown = {(row[0].strip("| `"), row[1].split(":")[0]) for row in rows}
    assert {name for name, _ in shown} == {
        "korquad", "chunking", "gate", "chunkers", "langchain", "lexical",
        "search", "saved", "change", "start", "note", "swaps", "kills",
    }  # fmt: skip
    assert not any("failed:" in row[-1] for row in rows), printed
    for row in rows:  # what does not depend on speed holds at any size
        if row[0].strip("| `") in {"swaps", "kills"} and row[2]:
            assert "met" in row[-1], row
    assert code == (1 if any("missed" in row[-1] for row in rows) else 0)
    assert list((tmp_path / "work").iterdir()) == [], "a run leaves nothing behind"


# ── the sets ─────────────────────────────────────────────────────────────────────────────────────


def test_the_sets_are_read(data: Path) -> None:
    files, asked = sets.korquad(data)
    assert sorted(files) == ["0000.txt", "0001.txt", "0002.txt", "0003.txt"]
    assert [one.article for one in asked] == [0, 0, 1, 1]
    assert [(one.text, one.file) for one in asked] == [(text, f"{at:04}.txt") for text, at in QUESTIONS]
    texts, spanned = sets.chunking(data)
    for one, (_, number) in zip(spanned, QUESTIONS, strict=True):
        ((start, end),) = one.spans
        assert texts[one.file][start:end] == SENTENCES[number]


@pytest.mark.parametrize("folder", [None, "nowhere"])
def test_without_the_sets_it_says_where_they_come_from(folder: str | None, tmp_path: Path) -> None:
    data = None if folder is None else tmp_path / folder
    with pytest.raises(Unavailable, match=r"docs/benchmarks\.md says where"):
        sets.korquad(data)
    with pytest.raises(Unavailable, match=r"docs/benchmarks\.md says where"):
        sets.chunking(data)


def test_varied_texts_are_many_alike_and_repeatable() -> None:
    made = list(itertools.islice(sets.varied(SENTENCES), 200))
    assert made == list(itertools.islice(sets.varied(SENTENCES), 200))
    assert len(set(made)) > 190
    assert all(480 <= len(text) <= 900 for text in made)
    assert made[:50] != list(itertools.islice(sets.varied(SENTENCES, seed=1), 50))
    with pytest.raises(ValueError, match="no sentence"):
        next(sets.varied(["too short."]))


def test_a_sample_is_even_and_no_longer_than_what_there_is() -> None:
    assert sets.sample(range(10), 5) == [0, 2, 4, 6, 8]
    assert sets.sample(range(3), 5) == [0, 1, 2]
    assert sets.sample(range(3), None) == [0, 1, 2]


# ── scoring ──────────────────────────────────────────────────────────────────────────────────────


def passage(file: str, text: str, line: int) -> Passage:
    return Passage("id", "folder", file, text, (), line, line, None, 1.0)


def test_overlap_counts_characters_once() -> None:
    texts = {"a.md": "abcdefghij\nabcdefghij", "b.md": "abcdefghij"}
    question = Spanned("?", "a.md", ((0, 4), (11, 17)))
    assert quality.overlap(question, [passage("a.md", "abcdefgh", 1)], texts) == Overlap(4 / 10, 4 / 14)
    both = [passage("a.md", "abcdefgh", 2), passage("a.md", "abcdefghij", 2)]
    assert quality.overlap(question, both, texts) == Overlap(6 / 10, 6 / 14)
    assert quality.overlap(question, [passage("b.md", "abcd", 1)], texts) == Overlap(0, 0)
    assert quality.overlap(question, [], texts) == Overlap(0, 0)
    with pytest.raises(ValueError, match="substring"):
        quality.overlap(question, [passage("a.md", "abcd", 3)], texts)


def test_percentiles_are_values() -> None:
    assert percentile([5, 1, 4, 2, 3], 0.5) == 3
    assert percentile(list(range(100)), 0.95) == 95
    assert percentile([7], 0.95) == 7


# ── embedders ────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_embedded_twice_and_time_is_kept() -> None:
    class Counting(Words):
        embedded = 0

        def embed(self, texts: list[str], role: TextRole = TextRole.TEXT) -> np.ndarray:  # type: ignore[override]
            self.embedded += len(texts)
            return super().embed(texts, role)

    inside = Counting()
    embedder = Remembering(inside)
    first = embedder.embed(["a b", "c", "a b"])
    assert np.array_equal(first, Words().embed(["a b", "c", "a b"]))
    assert np.array_equal(embedder.embed(["c"]), first[1:2])
    assert embedder.embed([]).shape == (0, 64)
    assert inside.embedded == 2
    assert embedder.seconds > 0


def test_the_stand_in_bears_the_name_and_keeps_likeness() -> None:
    fast = Fast(Words())
    assert (fast.fingerprint, fast.dimension) == ("hashed-words", 64)
    texts = ["the boat in the yard was green", "the boat in the yard was painted", "oil lamps of the keeper"]
    vectors = fast.embed(texts)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_each_file_of_the_victim_has_its_word() -> None:
    assert len({word(number) for number in range(10_000)}) == 10_000
