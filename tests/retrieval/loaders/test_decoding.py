from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import KnowledgeError
from server.retrieval.loaders.decoding import decode

KOREAN = "환불은 상품을 받은 날부터 45일 안에 신청하실 수 있습니다."
JAPANESE = "返品は商品の到着後四十五日以内にお申し込みください。送料は当店が負担いたします。"
CHINESE = "退货需要在收到商品后的四十五天之内申请，运费由本店承担。请保留原包装。"
WESTERN = "Le café est fermé le dimanche; appelez-nous à l'été."


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("plain ASCII", "ascii"),
        (KOREAN, "utf-8"),
        (KOREAN, "utf-8-sig"),
        (KOREAN, "utf-16"),
        (KOREAN, "utf-32"),
        (KOREAN, "cp949"),
        (KOREAN, "euc-kr"),
        ("이름,값\n사과 apple 한 봉지,1000", "euc-kr"),
        ("A long English text saved as UTF-16 without a mark", "utf-16-le"),
        ("A long English text saved as UTF-16 without a mark", "utf-16-be"),
        (WESTERN, "cp1252"),
        (JAPANESE * 5, "shift_jis"),
        (CHINESE * 5, "gb18030"),
    ],
)
def test_encodings_are_distinguished(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_line_ends_become_plain() -> None:
    assert decode(b"one\r\ntwo\rthree\n") == "one\ntwo\nthree\n"


def test_a_declared_encoding_is_used_before_guesses() -> None:
    assert decode("Žluťoučký kůň".encode("iso-8859-2"), "iso-8859-2") == "Žluťoučký kůň"


def test_an_unknown_declared_encoding_is_ignored() -> None:
    assert decode("été".encode("cp1252"), "no-such-encoding") == "été"


@pytest.mark.parametrize(
    "data", [bytes(range(32)) * 50, b"\x89PNG\r\n\x1a\n" + bytes(200), b"text\x00\x01\x02\x03" * 20]
)
def test_a_binary_file_is_refused(data: bytes) -> None:
    with pytest.raises(KnowledgeError, match=r"not text|not recognised"):
        decode(data)


def test_a_broken_mark_is_refused() -> None:
    with pytest.raises(KnowledgeError, match="UTF-8"):
        decode(b"\xff\xfeodd")


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("C",))))
@settings(deadline=None)
def test_every_printable_utf8_text_comes_back(text: str) -> None:
    assert decode(text.encode()) == text


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_any_bytes_give_text_or_a_knowledge_error(data: bytes) -> None:
    try:
        text = decode(data)
    except KnowledgeError:
        return
    assert "\r" not in text
