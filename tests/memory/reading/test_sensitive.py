"""What is too dangerous to keep, and what only looks a little like it."""

from __future__ import annotations

import pytest

from server.memory.reading.sensitive import is_sensitive


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111111",
        "card 4111 1111 1111 1111",
        "my visa: 4111-1111-1111-1111.",
        "amex 3782 822463 10005",
        "４１１１ １１１１ １１１１ １１１１",
        "900101-1234567",
        "주민번호 900101 2345678",
        "9001011234567",
        "외국인등록번호 900101-5234567",
        "SSN 123-45-6789",
        "the password is hunter2",
        "password: hunter2",
        "my wifi password for home is abc",
        "PIN code = 1234",
        "비밀번호는 1234야",
        "비밀번호 hunter2",
        "현관 비번은 1234",
        "인증번호 = 998877",
        "sk-proj-abcdefghij0123456789",
        "sk_live_abcdefghijklmnop1234",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "AKIAIOSFODNN7EXAMPLE",
        "xoxb-1234567890-abcdefghij",
        "tlr-abcdefghijklmnop0123456789",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc",
        "-----BEGIN RSA PRIVATE KEY-----",
        "token 9f8A7b6C5d4E3f2A1b0C9d8E7f6A5b4C",
    ],
)
def test_secrets(text: str) -> None:
    assert is_sensitive(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Name is Mina.",
        "order 4111111111111112",          # the check digit is wrong
        "0000 0000 0000 0000",
        "1234567890",
        "phone 010-1234-5678",
        "+82 10 1234 5678",
        "991399-1234567",                  # no month 13
        "000-12-3456",
        "date 2024-05-03 10:30:00",
        "Uses a password manager",
        "Forgets passwords often",
        "비밀번호 관리자를 써요",
        "The login page is blue",
        "The password policy is strict",
        "비밀번호 관리자가 있어요",
        "https://example.org/a/long/path/to/some/page/that/goes/on",
        "server/memory/facts/korean_self.py",
        "supercalifragilisticexpialidocious",
        "a_very_long_identifier_with_words_only",
        "skiing in the alps is nice",
        "version 3.14159265358979323846",
    ],
)  # fmt: skip
def test_harmless(text: str) -> None:
    assert not is_sensitive(text)
