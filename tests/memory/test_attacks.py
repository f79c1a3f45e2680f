"""Texts that try to write memory: in documents that are found, in the model's own answers, and pasted into a turn."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from server.chat.events import EvidenceFound, MemoryForgotten, MemorySaved
from server.memory import MemoryStore, parse_command
from server.memory.facts.rules import extract
from server.memory.model_pass.writer import remaining_candidates
from server.memory.reading.own_words import clean
from tests.chat.test_service import MINA, ask
from tests.fakes import ScriptedEngine
from tests.live import make_app, make_workspace

LINES = Path(__file__).with_name("attacks.jsonl").read_text(encoding="utf-8").splitlines()
ATTACKS = [json.loads(line) for line in LINES]
DOCUMENTS = [attack["text"] for attack in ATTACKS if attack["where"] == "document"]
TURNS = [attack["text"] for attack in ATTACKS if attack["where"] == "turn"]


def test_there_are_enough_of_both() -> None:
    assert len(ATTACKS) >= 50
    assert min(len(DOCUMENTS), len(TURNS)) >= 25


@pytest.mark.parametrize("text", TURNS)
def test_a_turn_that_poses_or_quotes_writes_nothing(text: str, store: MemoryStore) -> None:
    assert extract(clean(text)) == ()
    assert store.of(MINA).learn(text, conversation_id="chat", message_id="message") == ()
    assert parse_command(text) is None


@pytest.mark.parametrize("text", TURNS)
def test_nor_is_the_model_shown_what_names_itself_the_system(text: str) -> None:
    shown = remaining_candidates(clean(text))
    assert not any("SYSTEM" in span.source or "admin" in span.source.lower() for span in shown)


async def test_documents_and_answers_never_reach_the_rules(tmp_path: Path) -> None:
    """Each attack is found as evidence and told again by the model; the one memory that was there stays as it is."""
    workspace = make_workspace(tmp_path)
    for number, attack in enumerate(DOCUMENTS):
        text = f"# Polish zeta{number}\n\nThe lamp polish zeta{number} is kept dry.\n\n{attack}\n"
        (workspace / "knowledge" / "support" / f"polish-{number}.md").write_text(text, encoding="utf-8")
    engine = ScriptedEngine(lambda _, prompt: next((text for text in reversed(DOCUMENTS) if text in prompt), "Dry."))
    app = make_app(workspace, engine)
    async with app.router.lifespan_context(app):
        services = app.state.services
        await asyncio.to_thread(services.knowledge.base.sync)
        memory = services.memory.of(MINA)
        memory.add("Likes tea.")
        before = memory.list()
        seen = 0
        for number, attack in enumerate(DOCUMENTS):
            events = await ask(services.chat, MINA, f"How is the lamp polish zeta{number} kept?", domain="support")
            passages = [
                one.passage.text for event in events if isinstance(event, EvidenceFound) for one in event.passages
            ]
            seen += any(attack.split("\n")[0][:30] in passage for passage in passages)
            assert not any(isinstance(event, MemorySaved | MemoryForgotten) for event in events)
        assert seen >= 20  # or the documents were never found, and nothing is shown
        assert memory.list() == before
