from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from server.chat.conversations.records import AnswerRecord, PromptRecord, PromptSummary, Status
from server.chat.conversations.store import ConversationStore, build_history, short_title
from server.chat.events import SectionSize
from server.database import Database
from server.errors import InvalidInput, NotFound
from server.grounding import Citation
from server.types import (
    Compaction,
    Memory,
    MemoryKind,
    Message,
    Passage,
    PromptSection,
    RouteDecision,
    RouteHow,
    RouteScore,
    TurnContext,
    Usage,
    UserId,
)

MINA, JUN = UserId("mina"), UserId("jun")
FACT = Memory(7, MemoryKind.FACT, "Likes tea.", "I like tea", "c", "m", 1.0, 2.0)


@pytest.fixture
def store(tmp_path: Path) -> ConversationStore:
    return ConversationStore(Database(tmp_path / "t.db"))


def full_record() -> AnswerRecord:
    passage = Passage("p1", "support", "a.md", "Within 45 days.", ("Refunds",), 3, 5, None, 0.9)
    return AnswerRecord(
        reasoning="hm",
        route=RouteDecision("support", RouteHow.SIMILAR, 0.7, 0.4, (RouteScore("support", 0.7, "Return?"),)),
        domain="support",
        domain_title="Support",
        adapter="helper",
        context=TurnContext("abcd1234", True, (passage,), (FACT,)),
        folders=("support",),
        generation=3,
        dropped=1,
        prompt=PromptSummary((SectionSize("system", 9),), 9, 8192, 2, 1),
        compaction=Compaction(2, 1),
        citations=(Citation(1, "p1"),),
        invalid_citations=(4,),
        memories_saved=(FACT,),
        usage=Usage(10, 5, 0, 0.0, 0.1, 0.5),
        finish_reason="stop",
    )


def turn(store: ConversationStore, conversation_id: str, parent: str | None, text: str, answer: str) -> str:
    question = store.add_question(MINA, conversation_id, parent, text)
    reply = store.add_answer(MINA, conversation_id, question.id)
    store.update_answer(MINA, reply.id, text=answer, status=Status.COMPLETE, record=AnswerRecord())
    return reply.id


def test_a_checkpoint_never_overwrites_an_answer_that_has_ended(store: ConversationStore) -> None:
    conversation = store.create(MINA, "t")
    question = store.add_question(MINA, conversation.id, None, "q")
    ended, running = (store.add_answer(MINA, conversation.id, question.id) for _ in range(2))
    store.update_answer(MINA, ended.id, text="all of it", status=Status.COMPLETE, record=full_record())
    store.save_partial_answers((user, each.id, "half", AnswerRecord(reasoning="hm"))
                       for each in (ended, running) for user in (MINA, JUN))  # fmt: skip
    assert store.message(MINA, ended.id) == replace(ended, text="all of it", status=Status.COMPLETE,
                                                    answer=full_record())  # fmt: skip
    assert store.message(MINA, running.id) == replace(running, text="half", answer=AnswerRecord(reasoning="hm"))
    store.save_partial_answers([(JUN, running.id, "not theirs", AnswerRecord())])
    assert store.message(MINA, running.id).text == "half"


def test_an_answer_comes_back_as_it_was_stored(store: ConversationStore) -> None:
    conversation = store.create(MINA, "Return a lamp?")
    question = store.add_question(MINA, conversation.id, None, "Return a lamp?")
    answer = store.add_answer(MINA, conversation.id, question.id)
    store.update_answer(MINA, answer.id, text="45 days [1].", status=Status.COMPLETE, record=full_record())
    assert store.message(MINA, answer.id) == replace(
        answer, text="45 days [1].", status=Status.COMPLETE, answer=full_record()
    )


def test_the_prompt_is_kept_word_for_word(store: ConversationStore) -> None:
    conversation = store.create(MINA, "t")
    question = store.add_question(MINA, conversation.id, None, "q")
    answer = store.add_answer(MINA, conversation.id, question.id)
    with pytest.raises(NotFound):
        store.prompt(MINA, answer.id)
    prompt = PromptRecord((PromptSection("system", "한국어 ✓", 4),), (Message("user", "q"),), 9, 8192)
    store.save_prompt(MINA, answer.id, prompt)
    assert store.prompt(MINA, answer.id) == prompt
    with pytest.raises(NotFound):
        store.prompt(JUN, answer.id)


def test_branches_share_their_beginning_and_nothing_is_lost(store: ConversationStore) -> None:
    conversation = store.create(MINA, "t")
    first = turn(store, conversation.id, None, "one", "1")
    second = turn(store, conversation.id, first, "two", "2")
    edited = turn(store, conversation.id, first, "two, edited", "2b")
    assert [m.text for m in store.branch(MINA, second)] == ["one", "1", "two", "2"]
    assert [m.text for m in store.branch(MINA, edited)] == ["one", "1", "two, edited", "2b"]
    assert len(store.messages(MINA, conversation.id)) == 6
    assert store.newest(MINA, conversation.id) == edited
    assert store.branch(MINA, None) == ()


def test_nobody_sees_anothers(store: ConversationStore) -> None:
    conversation = store.create(MINA, "secret")
    reply = turn(store, conversation.id, None, "one", "1")
    assert store.list(JUN) == ()
    for call in (
        lambda: store.get(JUN, conversation.id),
        lambda: store.messages(JUN, conversation.id),
        lambda: store.message(JUN, reply),
        lambda: store.rename(JUN, conversation.id, "mine"),
        lambda: store.choose_domain(JUN, conversation.id, "x"),
        lambda: store.delete(JUN, conversation.id),
    ):
        with pytest.raises(NotFound):
            call()
    assert store.branch(JUN, reply) == ()
    store.update_answer(JUN, reply, text="changed", status=Status.COMPLETE, record=AnswerRecord())
    assert store.message(MINA, reply).text == "1"
    assert store.get(MINA, conversation.id).title == "secret"


def test_list_is_newest_first_and_delete_takes_the_messages(store: ConversationStore) -> None:
    old, new = store.create(MINA, "old"), store.create(MINA, "new")
    turn(store, old.id, None, "again", "1")
    assert [c.title for c in store.list(MINA)] == ["old", "new"]
    reply = turn(store, new.id, None, "q", "a")
    store.delete(MINA, new.id)
    with pytest.raises(NotFound):
        store.message(MINA, reply)
    store.update_answer(MINA, reply, text="late", status=Status.COMPLETE, record=AnswerRecord())
    assert [c.title for c in store.list(MINA)] == ["old"]


def test_a_domain_is_chosen_and_given_back(store: ConversationStore) -> None:
    conversation = store.create(MINA, "t")
    assert store.choose_domain(MINA, conversation.id, "general").domain == "general"
    assert store.choose_domain(MINA, conversation.id, None) == replace(store.get(MINA, conversation.id), domain=None)


def test_titles(store: ConversationStore) -> None:
    assert short_title("  a\n b\tc ") == "a b c"
    assert len(short_title("x" * 500)) == 80
    conversation = store.create(MINA, "t")
    with pytest.raises(InvalidInput, match="empty"):
        store.rename(MINA, conversation.id, "  ")


def test_answers_of_a_dead_server_are_marked(store: ConversationStore) -> None:
    conversation = store.create(MINA, "t")
    question = store.add_question(MINA, conversation.id, None, "q")
    answer = store.add_answer(MINA, conversation.id, question.id)
    done = turn(store, conversation.id, None, "other", "1")
    assert store.mark_interrupted() == 1
    assert store.message(MINA, answer.id).status is Status.INTERRUPTED
    assert store.message(MINA, done).status is Status.COMPLETE


def test_history_pairs_questions_with_answers_and_follows_the_memory(store: ConversationStore) -> None:
    conversation = store.create(MINA, "t")
    question = store.add_question(MINA, conversation.id, None, "q1")
    answer = store.add_answer(MINA, conversation.id, question.id)
    store.update_answer(MINA, answer.id, text="a1", status=Status.STOPPED, record=full_record())
    failed_question = store.add_question(MINA, conversation.id, answer.id, "q2")
    failed = store.add_answer(MINA, conversation.id, failed_question.id)
    store.update_answer(MINA, failed.id, text="", status=Status.FAILED, record=AnswerRecord())
    branch = store.branch(MINA, failed.id)
    edited = replace(FACT, text="Likes coffee.")
    (only_turn,) = build_history(branch, {7: edited})
    assert (only_turn.question, only_turn.answer) == ("q1", "a1")
    assert only_turn.context.memories == (edited,)
    assert only_turn.context.passages == full_record().context.passages
    (forgotten,) = build_history(branch, {})
    assert forgotten.context.memories == ()
