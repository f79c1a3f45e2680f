from __future__ import annotations

from pathlib import Path

import pytest

from server.chat import LanguageCost
from server.chat.turn.own_words import _HARDLY_SPEAKS, _NOTHING_FOUND
from server.embedding import parallel_texts
from tests.fakes import ByteTokenizer, ScriptedEngine


class WordsOfEnglish(ByteTokenizer):
    """Has a token for four letters of ASCII, and spells the rest."""

    def count(self, text: str) -> int:
        ascii_letters = sum(map(str.isascii, text))
        return ascii_letters // 4 + len(text.encode()) - ascii_letters


def served(tokenizer: ByteTokenizer) -> ScriptedEngine:
    engine = ScriptedEngine()
    engine.tokenizer = tokenizer
    return engine


def test_a_language_that_is_spelled_out_is_hardly_spoken_and_said_once_in_it() -> None:
    cost = LanguageCost(served(WordsOfEnglish()))
    assert {"ko", "ja", "th", "ru"} <= set(cost.hardly_spoken)
    assert not {"en", "de", "fr"} & set(cost.hardly_spoken)
    said = cost.notice("배송은 언제 오나요?", [])
    assert f"{cost._engine.model.id} 모델은 한국어를 거의 하지 못해요" in said
    assert "Qwen/" in said
    assert cost.notice("환불은요?", ["something else", f"a notice\n{said}"]) == ""
    assert "русского" in cost.notice("Где моя посылка?", [said])
    assert cost.notice("Where is my parcel?", []) == ""


def test_the_start_says_which_languages_the_model_hardly_speaks(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "tailor.chat"):
        LanguageCost(served(WordsOfEnglish())).measure()
        LanguageCost(served(ByteTokenizer())).measure()
    (said,) = [record.getMessage() for record in caplog.records]
    assert "ko 0.9" in said
    assert "en" not in said.split(":")[1]


def test_a_tokenizer_of_bytes_knows_all_languages_alike() -> None:
    assert LanguageCost(served(ByteTokenizer())).hardly_spoken == ()


def test_each_language_has_its_sentences() -> None:
    assert set(_HARDLY_SPEAKS) == set(_NOTHING_FOUND) == set(parallel_texts())
    for language, template in _HARDLY_SPEAKS.items():
        assert all(name in template for name in ("{model}", "{ratio}", "{remedy}")), language
        assert "{folders}" in _NOTHING_FOUND[language]


@pytest.mark.model
def test_the_default_model_spells_korean_and_knows_english(chat_model_dir: Path) -> None:
    from server.engine.model.tokenizer import ModelTokenizer

    cost = LanguageCost(served(ModelTokenizer(str(chat_model_dir))))
    assert "ko" in cost.hardly_spoken
    assert "en" not in cost.hardly_spoken
    assert cost.costs["ko"] > 3 * cost.costs["en"]
