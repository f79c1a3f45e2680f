"""The default embedder reads question and passage together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from server.embedding import SentenceEmbedder, TextEncoder
from server.embedding.reading import SHIPPED, shipped_reader
from server.relations import Reader, TextRole

pytestmark = pytest.mark.model

MAX_BYTES = 4_000_000
FEE = "Parking > Residents\nA yearly permit costs 45 euro and is sent by post within ten working days of payment."
LOST = "Parking > Lost permits\nA lost permit is replaced once for 10 euro; bring the police report to the counter."
KOREAN = "도서관 > 대출\n한 사람이 한 번에 책을 다섯 권까지 십사 일 동안 빌릴 수 있습니다."
CASES = [
    ("what do I pay for parking in front of my house for a year", FEE, [LOST, KOREAN]),
    ("my permit is gone, what do you need from me?", LOST, [FEE, KOREAN]),
    ("책은 몇 권까지 빌릴 수 있나요?", KOREAN, [FEE, LOST]),
    ("how many books can I take home at once", KOREAN, [FEE, LOST]),
]


@pytest.fixture(scope="module")
def embedder(embedder_dir: Path) -> SentenceEmbedder:
    return SentenceEmbedder(str(embedder_dir))


@pytest.mark.parametrize(("question", "right", "wrong"), CASES)
def test_it_tells_the_passage_that_answers(
    embedder: SentenceEmbedder, question: str, right: str, wrong: list[str]
) -> None:
    assert isinstance(embedder, Reader)
    odds = embedder.answers(question, [*wrong, right])
    assert odds is not None
    assert odds.dtype == np.float32
    assert int(odds.argmax()) == len(wrong)


def test_how_many_are_read_at_a_time_changes_no_odds(embedder: SentenceEmbedder) -> None:
    passages = [FEE, LOST, KOREAN, f"{FEE}\n{LOST}", "Parking"]
    together, alone = embedder.answers("what is a permit?", passages), [
        embedder.answers("what is a permit?", [one]) for one in passages
    ]  # fmt: skip
    assert together is not None
    assert np.allclose(together, np.concatenate([one for one in alone if one is not None]), atol=0.15)
    none = embedder.answers("what is a permit?", [])
    assert none is not None
    assert none.shape == (0,)


def test_texts_keep_their_vectors(embedder_dir: Path) -> None:
    encoder = TextEncoder(str(embedder_dir))
    before = encoder.embed([FEE, KOREAN], TextRole.PASSAGE)
    assert encoder.answers("what is a permit?", [FEE]) is not None
    assert np.array_equal(encoder.embed([FEE, KOREAN], TextRole.PASSAGE), before)


def test_questions_and_passages_of_any_length_are_read(embedder: SentenceEmbedder) -> None:
    for question in ("", "?", "permit " * 2000, "허가증 " * 2000):
        odds = embedder.answers(question, ["", FEE, KOREAN * 50])
        assert odds is not None
        assert np.isfinite(odds).all()


def test_another_model_reads_nothing(english_embedder_dir: Path) -> None:
    assert TextEncoder(str(english_embedder_dir)).answers("what is a permit?", [FEE]) is None


def test_what_ships_is_small_and_for_one_model(embedder_dir: Path, tmp_path: Path) -> None:
    assert SHIPPED.stat().st_size <= MAX_BYTES
    tensors = load_file(SHIPPED)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
    other = tmp_path / "reader.safetensors"
    save_file(tensors, str(other), metadata={"weights": "of another"})
    encoder = TextEncoder(str(embedder_dir))
    assert shipped_reader(encoder.weights, encoder._model, other) is None
    assert shipped_reader(encoder.weights, encoder._model, tmp_path / "none") is None
