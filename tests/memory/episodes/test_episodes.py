"""Past chats: found by words, meaning, speaker and date, kept for one user, and gone when they are deleted."""

from __future__ import annotations

import datetime
import math
import threading
import time

import pytest

from server.config import MemorySettings
from server.database import Database
from server.errors import InvalidInput
from server.memory import Episodes
from server.memory.episodes import episodes as module
from server.types import UserId
from tests.fakes import WordEmbedder
from tests.memory.conftest import JUN, MINA

NOW = datetime.datetime(2026, 11, 19, 12).timestamp()  # a Thursday
DAY = 86_400.0


def at(days_ago: float) -> float:
    return NOW - days_ago * DAY


@pytest.fixture
def episodes(database: Database, embedder: WordEmbedder) -> Episodes:
    past = Episodes(database, embedder, MemorySettings())
    past.add(MINA, "trip", "m1", "user", "Shall we go to Busan by train or by bus?", at(9))
    past.add(MINA, "trip", "m2", "assistant", "We decide for the train: it is faster.", at(9))
    past.add(MINA, "cake", "m3", "user", "My oven burns every cake.", at(2))
    past.add(MINA, "cake", "m4", "assistant", "We decide for a lower shelf.", at(2))
    past.add(MINA, "shop", "m5", "user", "환불은 이번 주에 받기로 했어요", at(10))
    past.add(MINA, "shop", "m6", "assistant", "영수증을 챙기세요", at(10))
    past.add(MINA, "plan", "m7", "user", "교환은 다음 달에 하기로 했어요", at(1))
    return past


def found(
    episodes: Episodes, question: str, user: UserId = MINA, limit: int = 10, chat: str | None = None
) -> list[str]:
    return [one.message_id for one in episodes.search(user, question, now=NOW, limit=limit, conversation=chat)]


# ── what is found ────────────────────────────────────────────────────────────────────────────────


def test_a_turn_is_found_by_its_words(episodes: Episodes) -> None:
    assert found(episodes, "What about the cakes?")[0] == "m3"
    assert found(episodes, "영수증은 어디 있어?")[0] == "m6"
    assert found(episodes, "zebra") == []


def test_a_turn_says_where_and_when_it_was_said(episodes: Episodes) -> None:
    (one,) = episodes.search(MINA, "which shelf", now=NOW, limit=1)
    assert (one.conversation_id, one.message_id, one.role, one.at) == ("cake", "m4", "assistant", at(2))
    assert one.text == one.snippet == "We decide for a lower shelf."
    assert one.score > 0


def test_what_was_said_on_the_named_day_comes_first(episodes: Episodes) -> None:
    assert found(episodes, "What did we decide on Tuesday?")[0] == "m4"
    assert found(episodes, "What did we decide last week?")[0] == "m2"
    assert set(found(episodes, "What did we decide?")[:2]) == {"m2", "m4"}


def test_korean_days_are_counted_from_now(episodes: Episodes) -> None:
    assert set(found(episodes, "지난주에 뭘 하기로 했지?", limit=4)) >= {"m5", "m6"}
    assert found(episodes, "지난주에 뭘 하기로 했지?")[0] == "m5"
    assert found(episodes, "어제 뭘 하기로 했지?")[0] == "m7"


def test_a_day_alone_finds_what_was_said_then(episodes: Episodes) -> None:
    assert set(found(episodes, "지난주 화요일에 뭐라고 했지?", limit=2)) == {"m1", "m2"}
    assert set(found(episodes, "지난주 월요일에 뭐라고 했지?", limit=2)) == {"m5", "m6"}
    assert set(found(episodes, "What was it on Tuesday?", limit=2)) == {"m3", "m4"}


def test_the_day_before_the_named_one_is_not_it(episodes: Episodes) -> None:
    episodes.add(MINA, "early", "d1", "user", "We decide for blue paint.", at(3))
    episodes.add(MINA, "late", "d2", "user", "We decide for blue paint.", at(1))
    assert found(episodes, "Which paint did we decide for on Wednesday?")[0] == "d2"
    assert found(episodes, "Which paint did we decide for on Monday?")[0] == "d1"


def test_a_turn_that_mentions_the_day_is_found_though_said_long_before(episodes: Episodes) -> None:
    episodes.add(MINA, "party", "m8", "user", "Jun has his party on 18 November 2026.", at(60))
    episodes.add(MINA, "party", "m9", "user", "Jun likes a party with music.", at(59))
    assert found(episodes, "Is there a party of Jun on 18 November 2026?")[0] == "m8"


def test_neighbours_of_a_match_rank_above_other_turns(episodes: Episodes) -> None:
    episodes.add(MINA, "pet", "p1", "user", "What shall I call the kitten?", at(5))
    episodes.add(MINA, "pet", "p2", "assistant", "Perhaps Momo, a name of long standing.", at(5))
    episodes.add(MINA, "other", "p3", "assistant", "Perhaps Toto, a name of long standing.", at(5))
    order = found(episodes, "the name of the kitten")
    assert order.index("p2") < order.index("p3")


def test_whose_words_are_asked_for_counts(episodes: Episodes) -> None:
    episodes.add(MINA, "tea", "t1", "user", "green tea or black tea", at(5))
    episodes.add(MINA, "milk", "t2", "assistant", "green tea or black tea", at(5))
    assert found(episodes, "What tea did I name?")[0] == "t1"
    assert found(episodes, "What tea did you name?")[0] == "t2"
    assert found(episodes, "내가 말한 tea 기억나?")[0] == "t1"


def test_a_named_speaker_counts(episodes: Episodes) -> None:
    for number, name in enumerate(("Ada", "Bob")):
        episodes.add(MINA, f"chat of {name}", f"n{number}", "user", "I bought a red bicycle.", at(5), speaker=name)
    assert found(episodes, "Which bicycle did Ada buy?")[0] == "n0"
    assert found(episodes, "Which bicycle did Bob buy?")[0] == "n1"


def test_a_search_can_stay_in_one_chat(episodes: Episodes) -> None:
    assert found(episodes, "what did we decide", chat="trip") == ["m2"]
    assert found(episodes, "what did we decide", chat="nowhere") == []


def test_the_limit_holds_and_the_best_come_first(episodes: Episodes) -> None:
    every = episodes.search(MINA, "What did we decide on the train, the cake and the shelf?", now=NOW)
    assert [one.score for one in every] == sorted((one.score for one in every), reverse=True)
    assert len(every) > 2
    assert [one.message_id for one in every[:2]] == found(
        episodes, "What did we decide on the train, the cake and the shelf?", limit=2
    )


def test_the_snippet_of_a_long_turn_is_about_the_question(episodes: Episodes) -> None:
    text = "It was a long day. " * 40 + "The gate code of the harbour is at the desk. " + "Nothing else came up. " * 40
    episodes.add(MINA, "long", "l1", "user", text, at(3))
    (one,) = episodes.search(MINA, "gate code of the harbour", now=NOW, limit=1)
    assert one.snippet.startswith("… The gate code of the harbour is at the desk.")
    assert one.snippet.endswith(" …")
    assert len(one.snippet) <= module.SNIPPET_CHARS + 4
    assert one.text == text.strip()


# ── keeping ──────────────────────────────────────────────────────────────────────────────────────


def test_stored_turns_are_found_after_a_restart(episodes: Episodes, database: Database) -> None:
    again = Episodes(database, WordEmbedder(), MemorySettings())
    assert found(again, "cake") == found(episodes, "cake") != []


def test_a_new_turn_costs_itself_alone(episodes: Episodes, embedder: WordEmbedder) -> None:
    found(episodes, "cake")
    before = embedder.embedded
    assert episodes.add(MINA, "cake", "new", "user", "The cake is fine now.", NOW) is True
    assert embedder.embedded == before + 1
    assert "new" in found(episodes, "cake")
    assert embedder.embedded == before + 2  # the question


def test_a_turn_that_is_there_is_not_embedded_again_and_its_new_text_takes_its_place(
    episodes: Episodes, embedder: WordEmbedder
) -> None:
    before = embedder.embedded
    assert episodes.add(MINA, "cake", "m3", "user", "My oven burns every cake.", at(2)) is False
    assert embedder.embedded == before
    assert episodes.add(MINA, "cake", "m3", "user", "My oven burns every pizza.", at(2)) is True
    assert found(episodes, "pizza")[0] == "m3"
    assert [one.text for one in episodes.search(MINA, "oven", now=NOW, limit=1)] == ["My oven burns every pizza."]


def test_a_blank_turn_is_not_kept(episodes: Episodes) -> None:
    assert episodes.add(MINA, "cake", "blank", "assistant", " \n\t", NOW) is False


def test_what_another_process_writes_and_deletes_is_seen(episodes: Episodes, tmp_path_database: Database) -> None:
    other = Episodes(tmp_path_database, WordEmbedder(), MemorySettings())
    assert "m3" in found(other, "cake")
    episodes.add(MINA, "cake", "more", "user", "Another cake, please.", NOW)
    assert "more" in found(other, "cake")
    episodes.remove_message(MINA, "more")
    assert "more" not in found(other, "cake")


@pytest.fixture
def tmp_path_database(database: Database) -> Database:
    """The same file, opened again."""
    return Database(database.path)


def test_vectors_of_another_embedder_are_made_anew(episodes: Episodes, database: Database) -> None:
    other = WordEmbedder()
    other.fingerprint = "words-2"  # type: ignore[misc]
    changed = Episodes(database, other, MemorySettings())
    assert found(changed, "cake")[0] == "m3"  # by its words
    before = other.embedded
    assert [changed.reembed(3), changed.reembed(3), changed.reembed(3), changed.reembed(3)] == [3, 3, 1, 0]
    assert other.embedded == before + 4  # the Korean ones are not known to it
    stored = database.connection().execute("SELECT DISTINCT embedder FROM episodes").fetchall()
    assert stored == [("words-2",)]
    assert found(changed, "cake")[0] == "m3"


def test_renewed_vectors_reach_an_index_in_use(episodes: Episodes, database: Database) -> None:
    other = WordEmbedder()
    other.fingerprint = "words-2"  # type: ignore[misc]
    changed = Episodes(database, other, MemorySettings())
    (lexical,) = changed.search(MINA, "cake", now=NOW, limit=1)
    while changed.reembed():
        pass
    (both,) = changed.search(MINA, "cake", now=NOW, limit=1)
    assert both.message_id == lexical.message_id
    assert both.score > lexical.score


# ── deleting ─────────────────────────────────────────────────────────────────────────────────────


def test_a_deleted_chat_is_gone_from_search_and_file(episodes: Episodes, database: Database) -> None:
    assert "m3" in found(episodes, "cake")
    assert episodes.remove_conversation(MINA, "cake") == 2
    assert "m3" not in found(episodes, "cake")
    rows = database.connection().execute("SELECT count(*) FROM episodes WHERE conversation_id = 'cake'").fetchone()
    assert rows == (0,)
    assert episodes.remove_conversation(MINA, "cake") == 0


def test_a_deleted_message_is_gone_and_the_rest_stays(episodes: Episodes) -> None:
    assert episodes.remove_message(MINA, "m3") == 1
    assert found(episodes, "oven") == []
    assert found(episodes, "shelf")[0] == "m4"


def test_all_of_a_user_is_erased_and_of_nobody_else(episodes: Episodes) -> None:
    episodes.add(JUN, "jun", "j1", "user", "A cake of my own.", NOW)
    assert episodes.erase(MINA) == 7
    assert found(episodes, "cake") == []
    assert found(episodes, "cake", JUN) == ["j1"]
    episodes.add(MINA, "cake", "m3", "user", "A cake again.", NOW)
    assert found(episodes, "cake") == ["m3"]


# ── isolation ────────────────────────────────────────────────────────────────────────────────────


def test_users_do_not_meet(episodes: Episodes) -> None:
    """The same words, the same chat and message ids."""
    episodes.add(JUN, "cake", "m3", "user", "The cake of Jun burns.", NOW)
    assert [one.text for one in episodes.search(JUN, "cake", now=NOW)] == ["The cake of Jun burns."]
    assert "The cake of Jun burns." not in [one.text for one in episodes.search(MINA, "cake", now=NOW)]
    assert episodes.remove_conversation(JUN, "trip") == 0
    assert episodes.remove_message(JUN, "m1") == 0
    assert episodes.remove_message(JUN, "m3") == 1
    assert found(episodes, "cake")[0] == "m3"


def test_many_threads_read_and_write_without_crossing(episodes: Episodes) -> None:
    users = [UserId(f"user-{number}") for number in range(4)]
    wrong: list[str] = []

    def work(user: UserId) -> None:
        for number in range(15):
            episodes.add(user, "chat", f"{number}", "user", f"secret of {user} number {number}", NOW)
            hits = episodes.search(user, "secret number", now=NOW, limit=50)
            wrong.extend(one.text for one in hits if user not in one.text)
            if len(hits) != number + 1:
                wrong.append(f"{user} found {len(hits)} of {number + 1}")

    threads = [threading.Thread(target=work, args=[user]) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert wrong == []


def test_least_recently_used_indexes_are_evicted_and_rebuilt(
    episodes: Episodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CACHED_TURNS", 3)
    for user in ("a", "b", "c"):
        episodes.add(UserId(user), "chat", "one", "user", f"the cake of {user}", NOW)
        episodes.add(UserId(user), "chat", "two", "user", f"the pie of {user}", NOW)
    for user in ("a", "b", "c", "a"):
        assert [one.text for one in episodes.search(UserId(user), "cake", now=NOW, limit=1)] == [f"the cake of {user}"]
    assert len(episodes._cache) < 4


# ── bad input ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("limit", [0, -1, 201])
def test_a_limit_that_makes_no_sense_is_refused(episodes: Episodes, limit: int) -> None:
    with pytest.raises(InvalidInput, match="1 to 200"):
        found(episodes, "cake", limit=limit)


def test_a_turn_needs_an_owner_ids_a_role_and_a_time(episodes: Episodes) -> None:
    with pytest.raises(InvalidInput, match="owner"):
        episodes.add(UserId(""), "c", "m", "user", "text", NOW)
    with pytest.raises(InvalidInput, match="ids"):
        episodes.add(MINA, "c", "", "user", "text", NOW)
    with pytest.raises(InvalidInput, match="not of 'system'"):
        episodes.add(MINA, "c", "m", "system", "text", NOW)
    with pytest.raises(InvalidInput, match="seconds since 1970"):
        episodes.add(MINA, "c", "m", "user", "text", math.nan)
    with pytest.raises(InvalidInput, match="owner"):
        episodes.search(UserId(""), "cake", now=NOW)


@pytest.mark.parametrize(
    "question", ["", "   ", "\x00", "?!", "🎂", "\ud800", "cake\ud800", "' OR 1=1 --", "a" * 1_000_000]
)
def test_odd_questions_find_nothing_wrong(episodes: Episodes, question: str) -> None:
    assert set(found(episodes, question)) <= {"m1", "m2", "m3", "m4", "m5", "m6", "m7"}


def test_odd_turns_are_kept_and_found(episodes: Episodes) -> None:
    episodes.add(MINA, "odd", "o1", "user", "broken \ud800 kimchi \x07 recipe", NOW)
    episodes.add(MINA, "odd", "o2", "user", "🎂🎂🎂", NOW)
    assert found(episodes, "kimchi")[0] == "o1"


def test_of_a_huge_turn_the_beginning_and_the_end_are_kept(episodes: Episodes) -> None:
    began = time.monotonic()
    episodes.add(MINA, "huge", "h1", "user", "prologue " + "filler " * 200_000 + "epilogue", NOW)
    assert time.monotonic() - began < 60
    (one,) = episodes.search(MINA, "epilogue", now=NOW, limit=1)
    assert one.message_id == "h1"
    assert len(one.text) <= module.MAX_CHARS + 3
    assert found(episodes, "prologue")[0] == "h1"
