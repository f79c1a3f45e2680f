"""What was so, what is to be, and what is over; export, erasing, pausing, forgetting; two editors and a full disk."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import pytest

from server.config import MemorySettings
from server.database import Database
from server.errors import Conflict, InvalidInput, NotFound, StorageFull, TooLarge
from server.memory import MemoryStore, UserMemory
from server.memory.facts.findings import Finding
from server.memory.store.table import MIGRATIONS
from server.types import MemoryKind, UserId
from tests.fakes import WordEmbedder
from tests.memory.conftest import MINA

DAY = 86_400.0


def learn(memory: UserMemory, text: str) -> list[str]:
    return [one.text for one in memory.learn(text, conversation_id="c1", message_id="m1")]


def texts(memories: tuple[object, ...]) -> list[str]:
    return [one.text for one in memories]  # type: ignore[attr-defined]


# ── what was so ──────────────────────────────────────────────────────────────────────────────────


def test_the_current_and_the_superseded_answer_can_be_asked_for(mina: UserMemory) -> None:
    learn(mina, "I live in Busan.")
    learn(mina, "I moved from Busan to Seoul.")
    now, was = mina.recall("Where do I live?"), mina.recall("Where did I live before?")
    assert ["Seoul" in one.text for one in now] == [True]
    assert "Busan" in was[0].text
    assert was[0].valid_to is not None
    assert (now[0].why, was[0].why) == ("asked", "asked")
    assert ["Busan" in one.text for one in mina.history(now[0].id)] == [True, False]


def test_a_move_in_one_sentence_saves_both_homes(mina: UserMemory) -> None:
    saved = learn(mina, "I moved from Busan to Seoul.")
    assert len(saved) == 2
    assert len(mina.list()) == 1
    assert len(mina.list(past=True)) == 2


def test_an_expired_answer_never_supersedes_a_current_one(mina: UserMemory) -> None:
    mina.add("Lives in Seoul.")
    mina.add("Lives in Oslo.", valid_from=1.0, valid_to=2.0)
    assert texts(mina.list()) == ["Lives in Seoul."]
    assert "Lives in Oslo." in texts(mina.recall("Where did I live before?"))


def test_an_expired_answer_that_is_typed_supersedes_nothing(mina: UserMemory) -> None:
    mina.add("Lives in Seoul.")
    was = mina.add("Lived in Paris.")
    assert was.valid_to is not None
    assert texts(mina.list()) == ["Lives in Seoul."]
    now = mina.add("Lives in Rome.")
    over = mina.edit(now.id, "Lived in Rome.")
    assert over.valid_to is not None
    assert "Lives in Rome." not in texts(mina.list())


def test_a_past_answer_can_be_deleted_and_the_present_one_stays(mina: UserMemory) -> None:
    for name in ("Ann", "Bea", "Cid"):
        learn(mina, f"My name is {name}")
    (ann, bea, cid) = mina.history(mina.list()[0].id)
    assert mina.delete(bea.id) == bea
    assert [one.id for one in mina.history(cid.id)] == [ann.id, cid.id]
    assert mina.get(ann.id).replaced_by == cid.id
    assert mina.name() == "Cid"
    with pytest.raises(Conflict, match=f"replaced by memory {cid.id}"):
        mina.edit(ann.id, "Name is Zed.")


def test_the_same_question_about_another_is_another_question(mina: UserMemory) -> None:
    mina.add("Lives in Seoul.")
    mina.add("Lives in Berlin.", subject="sister Jiwoo")
    assert len(mina.list()) == 2
    assert texts(mina.recall("Where do I live?"))[0] == "Lives in Seoul."
    assert mina.list(query="jiwoo")[0].subject == "sister Jiwoo"


# ── what is to be, and what is over ──────────────────────────────────────────────────────────────


def test_an_event_is_not_recalled_when_it_is_over(mina: UserMemory) -> None:
    now = time.time()
    mina.add("The dentist visit is on Friday", kind=MemoryKind.EVENT, valid_from=now + DAY, valid_to=now + 2 * DAY)
    question = "When is my dentist visit?"
    assert texts(mina.recall(question)) == ["The dentist visit is on Friday"]
    assert mina.recall(question, now=now + 3 * DAY) == ()
    assert len(mina.recall("When was my dentist visit, did I go before?", now=now + 3 * DAY)) == 1


def test_an_event_that_is_over_is_listed_with_the_past_alone(mina: UserMemory) -> None:
    mina.add("The dentist visit was on Friday", kind=MemoryKind.EVENT, valid_to=time.time() - 1)
    assert mina.list() == mina.current() == ()
    assert len(mina.list(past=True)) == 1


def test_a_future_answer_supersedes_the_current_one_when_it_starts(
    mina: UserMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = time.time()
    mina.add("Lives in Busan.")
    mina.add("Lives in Seoul.", valid_from=start + DAY)
    assert sorted(texts(mina.list())) == ["Lives in Busan.", "Lives in Seoul."]
    monkeypatch.setattr(time, "time", lambda: start + 2 * DAY)
    assert texts(mina.list()) == ["Lives in Seoul."]
    (busan, seoul) = mina.history(mina.list()[0].id)
    assert (busan.replaced_by, busan.valid_to) == (seoul.id, start + DAY)


# ── all of it ────────────────────────────────────────────────────────────────────────────────────


def test_the_profile_is_listed_first(mina: UserMemory) -> None:
    learn(mina, "My name is Mina. Always cite sources. 존댓말로 말해 줘")
    learn(mina, "I like tea.")
    assert texts(mina.current())[:3] == ["Prefers polite Korean (존댓말).", "Name is Mina.", "Always cite sources."]
    assert texts(mina.current())[3:] == ["Likes tea."]


def test_lists_are_narrowed_by_kind_and_words(mina: UserMemory) -> None:
    learn(mina, "My name is Mina. Remember that the Gate is blue.")
    assert texts(mina.list(kind=MemoryKind.IDENTITY)) == ["Name is Mina."]
    assert texts(mina.list(query="gATE blue")) == ["The Gate is blue."]
    assert mina.list(query="gate green") == ()
    assert {one.text for one in mina.from_conversation("c1")} == {"Name is Mina.", "The Gate is blue."}
    assert mina.from_conversation("c2") == ()


def test_the_export_is_json_with_all_that_was(mina: UserMemory) -> None:
    learn(mina, "My name is Mina.")
    learn(mina, "My name is Jun.")
    told = json.loads(json.dumps(mina.export()))
    assert [one["text"] for one in told["memories"]] == ["Name is Jun.", "Name is Mina."]
    assert told["memories"][1]["superseded_by"] == told["memories"][0]["id"]
    assert not {"vector", "user_id"} & set(told["memories"][0])


def test_erasing_leaves_nothing_in_any_file(mina: UserMemory, jun: UserMemory, database: Database) -> None:
    learn(mina, "Remember that Xylophonica rings. My name is Xylophonica.")
    learn(mina, "My name is Jun.")
    jun.add("Keeps this")
    mina.pause(True)
    assert mina.erase() == 3
    assert (mina.list(past=True), mina.paused, mina.recall("Xylophonica")) == ((), False, ())
    assert texts(jun.list()) == ["Keeps this"]
    held = b"".join(path.read_bytes() for path in database.path.parent.iterdir())
    assert b"Xylophonica" not in held
    assert b"Keeps this" in held


def test_a_deleted_text_is_in_no_file(mina: UserMemory, database: Database) -> None:
    saved = mina.add("Xylophonica rings")
    mina.delete(saved.id)
    assert not [path for path in database.path.parent.iterdir() if b"Xylophonica" in path.read_bytes()]


def test_paused_memory_saves_and_recalls_nothing_and_loses_nothing(mina: UserMemory, jun: UserMemory) -> None:
    learn(mina, "My name is Mina.")
    mina.pause(True)
    assert (mina.paused, jun.paused) == (True, False)
    assert learn(mina, "I live in Busan.") == []
    assert (mina.recall("Who am I?"), mina.name()) == ((), "")
    with pytest.raises(Conflict, match="paused"):
        mina.add("Something")
    assert texts(mina.list()) == ["Name is Mina."]
    mina.pause(False)
    assert mina.name() == "Mina"


def test_what_was_used_says_when(mina: UserMemory) -> None:
    first, second = mina.add("One"), mina.add("Two")
    before = time.time()
    mina.mark_used([first.id, 10**6])
    assert before <= (mina.get(first.id).last_used or 0) <= time.time()
    assert mina.get(second.id).last_used is None
    assert mina.get(first.id).updated_at == first.updated_at


# ── forgetting in words ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "about", "gone"),
    [
        (["I like tea.", "I like rice."], "I like tea", ["Likes tea."]),
        (["I like tea.", "I like rice."], "that I like tea", ["Likes tea."]),
        (["저는 차를 좋아해요", "저는 밥을 좋아해요"], "내가 차를 좋아한다는 거", ["차를 좋아해요."]),
        (["My name is Mina.", "My name is Jun.", "I like tea."], "my name", ["Name is Jun.", "Name is Mina."]),
        (["제 이름은 민아예요"], "내 이름", None),
        (["I live in Busan.", "I live in Seoul."], "where I live", ["Lives in Seoul.", "Lives in Busan."]),
        (["Remember that my dog's name is Rex.", "I like tea."], "my dog", ["The user's dog's name is Rex."]),
        (["기억해 줘: 우리 회사 주차장은 지하 2층이야"], "주차장", None),
    ],
)
def test_forgetting_finds_what_is_meant(mina: UserMemory, said: list[str], about: str, gone: list[str] | None) -> None:
    for one in said:
        learn(mina, one)
    before = mina.list(past=True)
    forgotten = mina.forget(about)
    assert sorted(texts(forgotten)) == sorted(texts(before) if gone is None else gone)
    assert {one.id for one in mina.list(past=True)} == {one.id for one in before} - {one.id for one in forgotten}


@pytest.mark.parametrize("about", ["", "I like coffee", "my", "the", "내가 커피를 좋아한다는 거", "?", "x" * 10_000])
def test_what_fits_nothing_forgets_nothing(mina: UserMemory, about: str) -> None:
    learn(mina, "I like tea. My name is Mina. Remember that the gate is blue.")
    assert mina.forget(about) == ()
    assert len(mina.list()) == 3


# ── bad input ────────────────────────────────────────────────────────────────────────────────────


def test_two_editors_of_one_memory(mina: UserMemory) -> None:
    saved = mina.add("The gate is blue")
    first = mina.edit(saved.id, "The gate is green", expected=saved.updated_at)
    with pytest.raises(Conflict, match="'The gate is green'"):
        mina.edit(saved.id, "The gate is red", expected=saved.updated_at)
    assert mina.edit(saved.id, "The gate is red", expected=first.updated_at).text == "The gate is red"


def test_an_edit_to_nothing_or_too_much_changes_nothing(mina: UserMemory) -> None:
    saved = mina.add("The gate is blue")
    for text in (" \x00\u200b", "카드 4111 1111 1111 1111"):
        with pytest.raises(InvalidInput):
            mina.edit(saved.id, text)
    with pytest.raises(TooLarge, match="1,000,000"):
        mina.edit(saved.id, "x" * 1_000_000)
    assert mina.get(saved.id) == saved


def test_times_and_confidence_that_cannot_be_are_refused(mina: UserMemory) -> None:
    with pytest.raises(InvalidInput, match="valid_to is before valid_from"):
        mina.add("A thing", valid_from=2.0, valid_to=1.0)
    for confidence in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidInput, match="from 0 to 1"):
            mina.add("A thing", confidence=confidence)


def test_contradictions_in_one_message_leave_the_last_and_the_first_in_its_history(mina: UserMemory) -> None:
    learn(mina, "I love tea. I hate tea.")
    assert texts(mina.list()) == ["Hates tea."]
    assert texts(mina.history(mina.list()[0].id)) == ["Loves tea.", "Hates tea."]


def test_findings_of_others_are_saved_with_their_quotes(mina: UserMemory) -> None:
    source = "by the way, I play the cello"
    found = Finding(MemoryKind.FACT, "Plays the cello.", source.index("I play"), len(source), confidence=0.8)
    (saved,) = mina.keep([found], source=source, conversation_id="c", message_id="m")
    assert (saved.quote, saved.confidence) == ("I play the cello", 0.8)
    assert mina.keep([found], source=source, conversation_id="c", message_id="m") == ()


def test_a_full_disk_is_an_error_and_loses_nothing(mina: UserMemory, database: Database) -> None:
    held = mina.add("The gate is blue")
    raw = database.connection().conn
    pages = raw.execute("PRAGMA page_count").fetchone()[0]
    raw.execute(f"PRAGMA max_page_count = {pages}")
    fill = [lambda number=number: mina.add(f"Thing {number} " + "long " * 80) for number in range(500)]
    with pytest.raises(StorageFull, match="disk"):
        [one() for one in fill]
    before = mina.list()
    assert held in before
    turns = [f"Remember that door {number} is {'very ' * 60} old." for number in range(500)]
    with pytest.raises(StorageFull):
        [learn(mina, turn) for turn in turns]
    raw.execute("PRAGMA max_page_count = 1073741823")
    assert raw.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert {one.id for one in before} <= {one.id for one in mina.list()}
    assert mina.add("Now there is room").text == "Now there is room"


# ── databases that exist ─────────────────────────────────────────────────────────────────────────


def test_a_database_of_the_first_version_is_carried_over(tmp_path: Path) -> None:
    path = tmp_path / "tailor.db"
    old = Database(path)
    old.migrate("memory", MIGRATIONS[:1])
    insert = (
        "INSERT INTO memories (id, user_id, kind, text, quote, created_at, updated_at, normal, slot, value, "
        "vector, embedder) VALUES (?, ?, 'identity', ?, 'q', ?, ?, ?, 'name', ?, X'', 'words-1')"
    )
    with old.transaction() as db:
        db.execute(insert, [1, MINA, "Name is Ann.", 10.0, 10.0, "name is ann", "Ann"])
        db.execute(insert, [2, MINA, "Name is Bea.", 20.0, 20.0, "name is bea", "Bea"])
        db.execute("UPDATE memories SET superseded_by = 2, superseded_at = 20.0 WHERE id = 1")
    old.close()
    memory = MemoryStore(Database(path), WordEmbedder(), MemorySettings()).of(MINA)
    assert memory.name() == "Bea"
    assert [(one.text, one.valid_to) for one in memory.history(2)] == [("Name is Ann.", 20.0), ("Name is Bea.", None)]
    assert texts(memory.recall("What is my name?")) == ["Name is Bea."]
    memory.delete(2)
    assert memory.name() == "Ann"


def test_memories_deleted_by_hand_are_gone_from_recall(mina: UserMemory, database: Database) -> None:
    mina.add("The gate is blue")
    assert len(mina.recall("Which colour has my gate?")) == 1
    other = sqlite3.connect(database.path)
    with other:
        other.execute("DELETE FROM memories")
    other.close()
    assert mina.recall("Which colour has my gate?") == ()
    with pytest.raises(NotFound):
        mina.get(1)
    assert UserId(MINA) == MINA
