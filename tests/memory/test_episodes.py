"""Past chats: found by words, meaning and date, kept for one user, and gone when they are deleted."""

from __future__ import annotations

import pytest

from server.config import MemorySettings
from server.database import Database
from server.errors import InvalidInput
from server.memory import Episodes
from tests.fakes import WordEmbedder
from tests.memory.conftest import JUN, MINA

NOW = 1_700_000_000.0


@pytest.fixture
def episodes(database: Database, embedder: WordEmbedder) -> Episodes:
    past = Episodes(database, embedder, MemorySettings())
    past.add(MINA, "trip", "m1", "user", "Shall we go to Busan by train or by bus?", NOW - 300)
    past.add(MINA, "trip", "m2", "assistant", "The train is faster.", NOW - 200)
    past.add(MINA, "cake", "m3", "user", "My oven burns every cake.", NOW - 100)
    past.add(MINA, "cake", "m4", "user", "환불은 이번 주에 받기로 했어요", NOW - 50)
    return past


def found(episodes: Episodes, question: str, **more: object) -> list[str]:
    return [one.message_id for one in episodes.search(MINA, question, now=NOW, **more)]  # type: ignore[arg-type]


def test_a_turn_is_found_by_its_words(episodes: Episodes) -> None:
    assert found(episodes, "What about the cakes?")[0] == "m3"
    assert found(episodes, "환불을 언제 받지?") == ["m4"]
    assert found(episodes, "zebra") == []


def test_another_user_sees_nothing(episodes: Episodes) -> None:
    assert episodes.search(JUN, "cake", now=NOW) == ()


def test_a_deleted_chat_is_gone(episodes: Episodes) -> None:
    assert found(episodes, "cake") != []
    assert episodes.remove_conversation(JUN, "cake") == 0
    assert episodes.remove_conversation(MINA, "cake") == 2
    assert found(episodes, "cake") == []


def test_a_limit_that_makes_no_sense_is_refused(episodes: Episodes) -> None:
    with pytest.raises(InvalidInput, match="1 to 200"):
        found(episodes, "cake", limit=0)
