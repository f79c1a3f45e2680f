"""What the reader is taught with, and that what was learned is what is read from the file."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from bench.embedder import train_reader
from bench.embedder.train import documents, questions
from bench.embedder.train_reader import Corpus, Trained, document_group, of_documents, of_tydi, report, tydi_group
from server.embedding.reading import shipped_reader
from tests.fakes import WordEmbedder


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    train, _ = documents()
    return of_documents(WordEmbedder(), train[:6])


def test_every_document_asks_what_it_answers_and_what_it_does_not() -> None:
    train, held = documents()
    assert len(held) * 4 == len(train)
    assert not {one["title"] for one in train} & {one["title"] for one in held}
    for document in (*train, *held):
        answered = [question for section in document["sections"] for question in questions(section)]
        assert len(answered) == 16
        assert len(document["unanswered"]) >= 8
        assert not set(answered) & set(document["unanswered"])


def test_the_first_passage_answers_and_the_others_do_not(corpus: Corpus) -> None:
    drawn = random.Random(1)
    for at, (question, right, owner) in enumerate(corpus.asked):
        asked, passages, answered = document_group(corpus, at, drawn)
        assert asked == question
        assert answered == (right >= 0)
        assert len(passages) == 3
        if answered:
            text = corpus.passages[right].partition("\n")[2]
            assert [text in passage for passage in passages] == [True, False, False]
        assert any(
            part.partition("\n")[2] in passages[1]
            for part, of in zip(corpus.passages, corpus.owners, strict=True)
            if of == owner
        )


def test_no_other_passage_has_the_answer_of_a_public_question(tmp_path: Path) -> None:
    for language, word in (("english", "heron"), ("korean", "왜가리")):
        paragraphs = [
            {"context": f"Number {number} is a {word}{number % 3}.", "qas": [{
                "question": f"Which {word} is number {number}?", "answers": [{"text": f"{word}{number % 3}"}],
            }]}
            for number in range(9)
        ]  # fmt: skip
        data = {"data": [{"title": "Birds", "paragraphs": paragraphs}]}
        (tmp_path / f"{language}_tydiqa_train.json").write_text(json.dumps(data))
    tydi, answers = of_tydi(WordEmbedder(), tmp_path, random.Random(1))
    assert len(tydi.asked) == len(answers) == 18
    groups = [tydi_group(tydi, answers, at, random.Random(at)) for at in range(18)]
    assert {group[2] for group in groups if group} == {True, False}
    for answer, group in zip(answers, groups, strict=True):
        assert group is not None
        assert [answer in text for text in group[1]] == [group[2], False, False]


@pytest.mark.model
def test_what_was_learned_is_what_the_file_gives(
    embedder_dir: Path, tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_reader, "QUESTIONS", 1)
    monkeypatch.setattr(train_reader, "REPORTED", 12)
    monkeypatch.setattr(train_reader, "EPOCHS", 3 / len(corpus.asked))

    def model() -> SentenceTransformer:
        return SentenceTransformer(str(embedder_dir), device="cpu", model_kwargs={"dtype": torch.float32})

    trained = Trained(model())
    question, passages, _ = document_group(corpus, 0, random.Random(1))
    before = trained.log_odds(question, passages).detach()
    train_reader.train(trained, corpus, [(corpus, None)], seed=1)
    learned = trained.log_odds(question, passages).detach()
    assert not torch.allclose(before, learned, atol=1e-3)
    assert report(trained, corpus).startswith("first ")
    trained.save(tmp_path / "reader.safetensors", "weights")
    reader = shipped_reader("weights", model(), tmp_path / "reader.safetensors")
    assert reader is not None
    assert torch.allclose(reader.log_odds(reader.encode(question, passages)), learned, atol=0.2)
