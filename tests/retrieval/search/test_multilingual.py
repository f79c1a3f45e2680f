"""Another embedder by one line of settings: one that knows Korean lets a Korean question find an English file.

The model is real and small: sentence-transformers' StaticEmbedding, whose words of both languages are learnt here from
pairs that mean the same.
"""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from server.app import create_app
from server.config import RetrievalSettings
from server.embedding import Calibration, SentenceEmbedder, TextEncoder
from server.relations import Relation
from server.retrieval import KnowledgeBase
from tests.fakes import ScriptedEngine
from tests.live import make_settings, make_workspace, serving

MEANINGS = (
    ("return", "반품"), ("days", "며칠"), ("deadline", "기한"), ("refund", "환불"), ("shipping", "배송"),
    ("lamp", "램프"), ("sender", "보내는"), ("pays", "내나요"), ("warranty", "보증"), ("brass", "황동"),
)  # fmt: skip
GRAMMAR = ("the", "is", "of", "within", "a", "you", "can", "any", "45", "을", "안에", "하나요", "은", "언제까지")


@pytest.fixture(scope="module")
def bilingual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words that mean the same have the same direction; words of grammar have nearly none."""
    words = ["[UNK]", *(word for pair in MEANINGS for word in pair), *GRAMMAR]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    drawn = np.random.default_rng(7)
    weights = 0.01 * drawn.standard_normal((len(words), 32)).astype(np.float32)
    for at in range(len(MEANINGS)):
        weights[1 + 2 * at : 3 + 2 * at] = drawn.standard_normal(32)
    folder = tmp_path_factory.mktemp("bilingual")
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)]).save(str(folder))
    return folder


def calibrate(model: Path, folder: Path) -> Path:
    """As if it had been measured: the words that it has are not those of the texts that models are measured on."""
    curves = {(relation, crossing): (24.0, -6.0) for relation in Relation for crossing in (False, True)}
    folder.mkdir(parents=True)
    calibration = Calibration({}, curves, {"latin": 1.0, "hangul": 1.0})
    (folder / f"{TextEncoder(str(model)).fingerprint}.npz").write_bytes(calibration.to_bytes())
    return folder


def test_a_korean_question_finds_what_an_english_file_says(bilingual: Path, tmp_path: Path) -> None:
    embedder = SentenceEmbedder(str(bilingual), calibrations=calibrate(bilingual, tmp_path / "calibrations"))
    assert embedder.knows("반품 기한 며칠")
    folder = tmp_path / "knowledge" / "shop"
    folder.mkdir(parents=True)
    (folder / "returns.md").write_text("# Return\n\nThe deadline of a return is 45 days.\n")
    (folder / "lamps.md").write_text("# Lamp\n\nThe lamp is made of brass.\n")
    base = KnowledgeBase(tmp_path / "knowledge", tmp_path / "index", embedder, RetrievalSettings())
    base.sync()
    found = base.search("반품 기한 며칠", ["shop"], traced=True)
    assert [passage.file for passage in found.passages] == ["returns.md"]
    assert found.trace is not None
    assert found.trace.candidates[0].gate == "meaning"
    assert base.search("황동 램프", ["shop"]).passages[0].file == "lamps.md"


def test_one_line_of_settings_is_enough(bilingual: Path, tmp_path: Path) -> None:
    make_workspace(tmp_path)
    calibrate(bilingual, tmp_path / "data" / "models" / "calibrations")
    (tmp_path / "tailor.toml").write_text(f'[embedding]\nname = "{bilingual.as_posix()}"\n')
    app = create_app(make_settings(tmp_path), engine=ScriptedEngine(adapters=["helper"]))
    with serving(app) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            body = {"question": "반품 기한 며칠", "folders": ["support"]}
            passages = client.post("/api/knowledge/search", json=body).json()["passages"]
            if passages:
                break
            time.sleep(0.1)
        assert "within 45 days" in passages[0]["text"], passages
