from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from server.embedding import SentenceEmbedder
from server.errors import ModelError

pytestmark = pytest.mark.model

KNOWN = [
    "How many days do I have to return a blender?",
    "Reset my MFA token",
    "sshd[2342]: Failed password for invalid user root from 10.0.0.1 port 22",
    "Wie viele Tage habe ich Zeit, um einen Artikel zurückzugeben?",
]
FOREIGN = [
    "환불은 며칠 안에 신청해야 하나요?",
    "iPhone 15 Pro 환불 가능한가요",
    "返品は何日以内に申請すればいいですか",
    "退货需要在几天之内申请",
    "Сколько дней у меня есть, чтобы вернуть товар?",
    "ฉันมีเวลากี่วันในการคืนสินค้า",
    "12345",
    "🙂🙂",
    "",
]


@pytest.fixture(scope="module")
def embedder(embedder_dir: Path) -> SentenceEmbedder:
    return SentenceEmbedder(str(embedder_dir))


def test_vectors_are_unit_float32_in_the_order_of_the_texts(embedder: SentenceEmbedder) -> None:
    texts = ["short", "a much longer text about returning goods to the shop " * 20, "", "mid sized text"] * 12
    vectors = embedder.embed(texts)
    assert vectors.shape == (48, embedder.dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors[:4], vectors[4:8], atol=1e-5)
    assert np.allclose(vectors[3], embedder.embed(["mid sized text"])[0], atol=1e-5)


def test_no_texts_give_no_rows(embedder: SentenceEmbedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_meaning_is_nearer_than_chance(embedder: SentenceEmbedder) -> None:
    question, near, far = embedder.embed(
        ["How do I get my money back?", "Refunds are paid within a week.", "The lamp is made of brass."]
    )
    assert question @ near > question @ far + 0.1


def test_count_sees_the_whole_text_without_special_tokens(embedder: SentenceEmbedder) -> None:
    assert embedder.count("") == 0
    assert embedder.count("hello world") == 2
    assert embedder.count("hello world " * 1000) == 2000


@pytest.mark.parametrize("text", KNOWN)
def test_knows_what_its_vocabulary_has_words_for(embedder: SentenceEmbedder, text: str) -> None:
    assert embedder.knows(text)


@pytest.mark.parametrize("text", FOREIGN)
def test_does_not_know_what_falls_into_pieces(embedder: SentenceEmbedder, text: str) -> None:
    assert not embedder.knows(text)


def test_threads_get_their_own_rows(embedder: SentenceEmbedder) -> None:
    texts = [f"text number {number} about {'cats' if number % 2 else 'tax law'}" for number in range(8)]
    expected = embedder.embed(texts)
    results: dict[int, np.ndarray] = {}

    def work(row: int) -> None:
        for _ in range(3):
            results[row] = embedder.embed([texts[row]])[0]
            embedder.count(texts[row] * 50)

    threads = [threading.Thread(target=work, args=(row,)) for row in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for row, vector in results.items():
        assert np.allclose(vector, expected[row], atol=1e-4)


def test_the_fingerprint_is_the_weights_not_the_path(
    embedder: SentenceEmbedder, embedder_dir: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(embedder_dir, tmp_path / "elsewhere")
    assert SentenceEmbedder(str(copied)).fingerprint == embedder.fingerprint
    settings = copied / "sentence_bert_config.json"
    settings.write_text(settings.read_text().replace("256", "128"))
    assert SentenceEmbedder(str(copied)).fingerprint != embedder.fingerprint


def test_changed_weights_change_the_fingerprint(embedder: SentenceEmbedder, embedder_dir: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    copied = shutil.copytree(embedder_dir, tmp_path / "tuned")
    weights = {name: tensor * 1.01 for name, tensor in load_file(copied / "model.safetensors").items()}
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert SentenceEmbedder(str(copied)).fingerprint != embedder.fingerprint


def test_a_missing_model_is_named_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere.*embedding\.name"):
        SentenceEmbedder(str(tmp_path / "nowhere"))
