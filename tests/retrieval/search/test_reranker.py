"""A cross-encoder puts the best candidates into order: a tiny one of random weights, and one of set weights."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from server.config import RetrievalSettings
from server.errors import ModelError
from server.retrieval import KnowledgeBase
from server.retrieval.search.reranker import Reranker
from tests.fakes import WordEmbedder

TEXTS = ("The lamp is brass.", "The lamp is brass and steel.", "The lamp is made in Norway of brass.")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "lamp", "is", "brass", "and", "steel", "made", "in", "norway", "of")


def cross_encoder(folder: Path, *, labels: int = 1, wanted: str = "") -> Path:
    """Saves a tiny model. With `wanted`, a pair scores high when it holds this word, whatever else it holds."""
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    from tokenizers import normalizers

    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=64,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, num_labels=labels,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    if wanted:
        _set_weights(model, WORDS.index(wanted))
    model.save_pretrained(folder)
    return folder


def _set_weights(model: BertForSequenceClassification, word: int) -> None:
    """Attention averages over the words; the wanted word alone has the second feature, which is the score."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for norm in (model.bert.embeddings.LayerNorm, *_norms(model)):
            norm.weight.fill_(1.0)
        model.bert.embeddings.word_embeddings.weight[:, 0] = 1.0
        model.bert.embeddings.word_embeddings.weight[word, 1] = 4.0
        layer = model.bert.encoder.layer[0].attention
        layer.self.value.weight.copy_(torch.eye(16))
        layer.output.dense.weight.copy_(torch.eye(16) * 4)
        model.bert.pooler.dense.weight.copy_(torch.eye(16))
        model.classifier.weight[0, 1] = 4.0


def _norms(model: BertForSequenceClassification) -> list[torch.nn.Module]:
    layer = model.bert.encoder.layer[0]
    return [layer.attention.output.LayerNorm, layer.output.LayerNorm]


def knowledge(folder: Path, reranker: str) -> KnowledgeBase:
    shop = folder / "knowledge" / "shop"
    shop.mkdir(parents=True)
    for number, text in enumerate(TEXTS):
        (shop / f"{number}.txt").write_text(text)
    base = KnowledgeBase(
        folder / "knowledge", folder / "index", WordEmbedder(), RetrievalSettings(reranker=reranker, passages=2)
    )
    base.sync()
    return base


def test_a_random_one_gives_a_score_for_each_text(tmp_path: Path) -> None:
    reranker = Reranker(str(cross_encoder(tmp_path)))
    scores = reranker.scores("brass lamp", TEXTS)
    assert scores.shape == (3,)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert len(set(scores.tolist())) == 3
    assert reranker.scores("brass lamp", TEXTS[::-1]).tolist() == pytest.approx(scores[::-1].tolist(), abs=1e-6)
    assert reranker.scores("brass lamp", ()).shape == (0,)


def test_the_order_becomes_the_cross_encoders(tmp_path: Path) -> None:
    plain = knowledge(tmp_path / "plain", "").search("brass lamp", ["shop"], traced=True)
    model = cross_encoder(tmp_path / "model", wanted="norway")
    found = knowledge(tmp_path / "own", str(model)).search("brass lamp", ["shop"], traced=True)
    assert [passage.text for passage in plain.passages] == list(TEXTS[:2])
    assert [passage.text for passage in found.passages] == [TEXTS[2], TEXTS[0]]
    assert plain.trace is not None
    assert found.trace is not None
    assert {one.reranked for one in plain.trace.candidates} == {None}
    scores = [one.reranked for one in found.trace.candidates]
    assert None not in scores
    assert scores == sorted(scores, key=lambda score: -(score or 0))
    assert scores[0] > scores[1]  # type: ignore[operator]
    assert {one.passage.text: one.fused_rank for one in found.trace.candidates} == {
        one.passage.text: one.fused_rank for one in plain.trace.candidates
    }
    assert found.trace.candidates[0].fused_rank == 3


def test_the_gate_stays_as_it_is(tmp_path: Path) -> None:
    base = knowledge(tmp_path, str(cross_encoder(tmp_path / "model", wanted="norway")))
    assert base.search("capital of France", ["shop"]).passages == ()


def test_it_is_loaded_when_it_is_first_asked(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    reranker = Reranker(str(folder))
    cross_encoder(folder)
    assert len(reranker.scores("brass", TEXTS)) == 3
    threads: list[int] = []
    asked = threading.Thread(target=lambda: (reranker.scores("a", TEXTS), threads.append(torch.get_num_threads())))
    asked.start()
    asked.join()
    assert threads == [1]


def test_one_that_cannot_be_loaded_is_named_with_what_to_do(tmp_path: Path) -> None:
    base = knowledge(tmp_path, str(tmp_path / "no-such-model"))
    for _ in range(2):
        with pytest.raises(ModelError, match=r"reranker '.*no-such-model' cannot be loaded: .*retrieval\.reranker"):
            base.search("brass lamp", ["shop"])
    assert base.search("capital of France", ["shop"]).passages == ()  # nothing to put into order
    with pytest.raises(ModelError, match="it gives 3 scores for a pair"):
        Reranker(str(cross_encoder(tmp_path / "three", labels=3))).scores("brass", TEXTS)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="cannot be loaded"):
        Reranker(str(tmp_path / "broken")).scores("brass", TEXTS)


def test_who_reads_files_loads_no_model_library() -> None:
    code = "import sys, server.retrieval; print('torch' in sys.modules or 'sentence_transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
