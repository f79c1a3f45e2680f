from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from server.embedding import SentenceEmbedder, TextEncoder, read_pairs
from server.errors import ModelError
from server.relations import Relation, TextRole

pytestmark = pytest.mark.model

SENTENCES = {
    "latin": "How many days do I have to return a blender?",
    "hangul": "환불은 며칠 안에 신청해야 하나요?",
    "kana": "返品は何日以内に申請すればいいですか",
    "han": "退货需要在几天之内申请",
    "cyrillic": "Сколько дней у меня есть, чтобы вернуть товар?",
    "thai": "ฉันมีเวลากี่วันในการคืนสินค้า",
    "hebrew": "כמה ימים יש לי להחזיר מוצר?",
}
NO_LANGUAGE = ["12345", "🙂🙂", ""]


@pytest.fixture(scope="module")
def embedder(embedder_dir: Path) -> SentenceEmbedder:
    return SentenceEmbedder(str(embedder_dir))


@pytest.fixture(scope="module")
def english(english_embedder_dir: Path) -> SentenceEmbedder:
    return SentenceEmbedder(str(english_embedder_dir))


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


def test_count_sees_the_whole_text_without_special_tokens_and_prompts(embedder: SentenceEmbedder) -> None:
    assert embedder.count("") == 0
    assert embedder.count("hello world") == 3
    assert embedder.count(" ".join(["hello world"] * 1000)) == 3000


@pytest.mark.parametrize("script", SENTENCES)
def test_the_default_knows_what_it_was_measured_to_know(embedder: SentenceEmbedder, script: str) -> None:
    assert embedder.knows(SENTENCES[script])


@pytest.mark.parametrize("text", NO_LANGUAGE)
def test_what_has_no_letter_is_of_no_language(embedder: SentenceEmbedder, text: str) -> None:
    assert not embedder.knows(text)


def test_the_small_one_knows_english_alone(english: SentenceEmbedder) -> None:
    assert [script for script, text in SENTENCES.items() if english.knows(text)] == ["latin"]


def test_questions_and_passages_are_told_apart_by_a_model_that_marks_them(
    embedder_dir: Path, english_embedder_dir: Path
) -> None:
    text = ["How long does delivery take?"]
    marked, plain = (TextEncoder(str(folder)) for folder in (embedder_dir, english_embedder_dir))
    assert not np.allclose(marked.embed(text, TextRole.QUERY), marked.embed(text, TextRole.PASSAGE), atol=1e-3)
    assert np.allclose(marked.embed(text, TextRole.QUERY), marked.embed(text, TextRole.TEXT), atol=1e-6)
    assert np.allclose(plain.embed(text, TextRole.QUERY), plain.embed(text, TextRole.PASSAGE), atol=1e-6)


def test_a_question_finds_its_answer_in_another_language(embedder: SentenceEmbedder) -> None:
    question = embedder.embed(["배송은 얼마나 걸리나요?"], TextRole.QUERY)
    passages = ["Delivery takes 2 to 4 working days.", "The lamp is made of brass.", "We open at nine."]
    cosines = (question @ embedder.embed(passages, TextRole.PASSAGE).T)[0]
    answers, *others = embedder.likelihood(Relation.ANSWER, cosines, crossing=True)
    assert answers > 0.8
    assert max(others) < 0.5


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


def test_a_text_that_several_parts_ask_for_is_computed_once(
    embedder: SentenceEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    real = TextEncoder._forward

    def counting(self: TextEncoder, texts: list[str], prompt: str) -> np.ndarray:
        computed.extend(texts)
        return real(self, texts, prompt)

    monkeypatch.setattr(TextEncoder, "_forward", counting)
    text = "Is the kept vector the same as a new one?"
    first = embedder.embed([text], TextRole.QUERY)
    again, of_many = embedder.embed([text], TextRole.QUERY), embedder.embed([text, text], TextRole.QUERY)
    assert computed == [text] * 3
    assert np.array_equal(first, again)
    assert np.allclose(first[0], of_many[0], atol=1e-2)
    first[:] = 0
    assert np.array_equal(embedder.embed([text], TextRole.QUERY), again)
    assert not np.array_equal(embedder.embed([text], TextRole.PASSAGE), again)


def test_the_fingerprint_is_the_weights_not_the_path(embedder_dir: Path, tmp_path: Path) -> None:
    here = TextEncoder(str(embedder_dir)).fingerprint
    copied = shutil.copytree(embedder_dir, tmp_path / "elsewhere")
    assert TextEncoder(str(copied)).fingerprint == here
    assert TextEncoder(str(copied), quantize=False).fingerprint != here
    settings = copied / "sentence_bert_config.json"
    settings.write_text(settings.read_text().replace("512", "128"))
    assert TextEncoder(str(copied)).fingerprint != here


def test_changed_weights_change_the_fingerprint(english_embedder_dir: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    copied = shutil.copytree(english_embedder_dir, tmp_path / "tuned")
    weights = {name: tensor * 1.01 for name, tensor in load_file(copied / "model.safetensors").items()}
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert TextEncoder(str(copied)).fingerprint != TextEncoder(str(english_embedder_dir)).fingerprint


def test_eight_bits_and_a_mapped_vocabulary_leave_vectors_what_they_were(embedder_dir: Path) -> None:
    texts = [record[key] for record in read_pairs()[:10] for key in ("passage_en", "question_ko", "statement_en")]
    fast = TextEncoder(str(embedder_dir)).embed(texts, TextRole.PASSAGE)
    exact = TextEncoder(str(embedder_dir), quantize=False).embed(texts, TextRole.PASSAGE)
    plain = SentenceTransformer(str(embedder_dir), device="cpu", model_kwargs={"dtype": torch.float32})
    expected = plain.encode(texts, prompt="passage: ", normalize_embeddings=True)
    assert np.allclose(exact, expected, atol=1e-3)
    assert float((fast * expected).sum(1).min()) > 0.96
    table = plain[0].auto_model.embeddings.word_embeddings.weight
    assert table.numel() > 1 << 24, "or nothing is mapped"


def test_a_missing_model_is_named_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere.*embedding\.name"):
        SentenceEmbedder(str(tmp_path / "nowhere"))
