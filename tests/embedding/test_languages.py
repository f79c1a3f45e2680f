from __future__ import annotations

import pytest

from server.embedding import identify_language, parallel_texts
from server.embedding.calibration import read_languages

SAID = [
    ("en", "How long does the repair take?"),
    ("en", "thanks"),
    ("en", ""),
    ("en", "12:30 → 4,200"),
    ("ko", "수리하는 데 얼마나 걸리나요?"),
    ("ko", "ㅎㅇ"),
    ("ko", "React에서 state 초기화하는 법"),
    ("ja", "修理にはどのくらいかかりますか"),
    ("zh", "修理需要多长时间？"),
    ("de", "Wie lange dauert die Reparatur?"),
    ("fr", "Combien de temps dure la réparation ?"),
    ("es", "¿Cuánto tarda la reparación?"),
    ("pl", "Jak długo trwa naprawa?"),
    ("tr", "Onarım ne kadar sürer?"),
    ("vi", "Sửa chữa mất bao lâu?"),
    ("ru", "Сколько времени занимает ремонт?"),
    ("el", "Πόσο διαρκεί η επισκευή;"),
    ("he", "כמה זמן לוקח התיקון?"),
    ("ar", "كم تستغرق عملية الإصلاح؟"),
    ("hi", "मरम्मत में कितना समय लगता है?"),
    ("th", "ซ่อมใช้เวลานานเท่าไหร่"),
]


@pytest.mark.parametrize(("language", "text"), SAID)
def test_languages_are_told_apart(language: str, text: str) -> None:
    assert identify_language(text) == language
    assert identify_language(text.upper()) == language


def test_the_language_of_a_long_text_is_that_of_its_beginning() -> None:
    assert identify_language("Wie lange dauert die Reparatur? " * 40 + "how long " * 1_000_000) == "de"


def test_there_are_texts_of_every_language_that_can_be_told() -> None:
    texts = parallel_texts()
    assert set(texts) == {language for language, _ in SAID}
    assert {len(found) for found in texts.values()} == {40}


def test_the_texts_are_those_that_the_calibration_measures_with() -> None:
    texts = parallel_texts()
    for record in read_languages():
        assert record["question"] in texts[record["language"]]
        assert record["passage"] in texts[record["language"]]
