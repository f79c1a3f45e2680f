"""Texts that try to write memory, as documents and as the model's own words: none is saved, none runs as a command."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from server.chat.events import EvidenceFound, MemoryForgotten, MemoryHeldBack, MemorySaved
from tests.chat.memory_commands.test_access import event_types, memory_texts
from tests.chat.test_service import MINA, ask, running
from tests.conftest import ROOT
from tests.fakes import ScriptedEngine

ROWS = [
    json.loads(line) for line in (ROOT / "tests" / "memory" / "attacks.jsonl").read_text(encoding="utf-8").splitlines()
]
ATTACKS = [row["text"] for row in ROWS]
TURNS = [row["text"] for row in ROWS if row["where"] == "turn"]
WRITES = {MemorySaved, MemoryForgotten, MemoryHeldBack}


def test_there_are_enough_of_them() -> None:
    assert len(ATTACKS) >= 50


async def test_neither_documents_nor_answers_write_memory(tmp_path: Path) -> None:
    """Each attack is a file that is found for a question, and the model repeats it word for word."""
    engine = ScriptedEngine(adapters=["helper"])
    folder = tmp_path / "knowledge" / "support"
    folder.mkdir(parents=True)
    for number, text in enumerate(ATTACKS):
        (folder / f"attack{number}.md").write_text(f"# Notice attack{number}\n\n{text}\n", encoding="utf-8")
    support = "---\ntitle: Support\ndescription: d\nmemory: true\nknowledge: [support]\n---\nAnswer.\n"
    async with running(tmp_path, engine) as services:
        (tmp_path / "prompts" / "attacked.md").write_text(support)
        services.memory.of(MINA).add("Name is Mina.")
        found = 0
        for number, text in enumerate(ATTACKS):
            engine.script = lambda request, prompt, said=text: said
            events = await ask(services.chat, MINA, f"Show me the notice attack{number}", domain="attacked")
            evidence = [event for event in events if isinstance(event, EvidenceFound)]
            found += any(f"attack{number}" in passage.passage.file for each in evidence for passage in each.passages)
            assert not WRITES & event_types(events), text
        assert found >= 0.9 * len(ATTACKS)
        assert memory_texts(services) == ["Name is Mina."]


@pytest.mark.parametrize("how", ["earlier chat", "quoted"])
async def test_what_is_quoted_writes_nothing_either(tmp_path: Path, how: str) -> None:
    """An answer of an earlier chat that is found again, and a document that the user pastes as a quotation."""
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:
        for number, text in enumerate(ATTACKS[:10]):
            engine.script = lambda request, prompt, said=text: said
            if how == "quoted":
                quoted = "\n".join(f"> {line}" for line in text.splitlines())
                events = await ask(services.chat, MINA, f"Summarise this:\n\n{quoted}", domain="general")
            else:
                await ask(services.chat, MINA, f"Read me notice {number}", domain="general")
                await asyncio.sleep(0)
                events = await ask(
                    services.chat, MINA, f"What did you tell me about notice {number}?", domain="general"
                )
            assert not WRITES & event_types(events), text
        assert memory_texts(services) == []


async def test_turns_that_only_quote_or_pretend_write_nothing(tmp_path: Path) -> None:
    """The attacks that come in a user's own message: pasted, quoted, played, or an order to the model."""
    async with running(tmp_path) as services:
        for text in TURNS:
            events = await ask(services.chat, MINA, text, domain="general")
            assert MemorySaved not in event_types(events), text
        assert memory_texts(services) == []
