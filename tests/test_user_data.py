"""Everything of one user: as a file, and erased, while others keep theirs."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

from server.api.services import Services
from server.chat import ConversationStore
from server.chat.conversations.records import Status
from server.config import MemorySettings
from server.database import Database
from server.memory import Episodes
from server.memory.model_pass.queue import TurnQueue
from server.types import UserId
from server.user_data import ErasureReceipt, UserData
from tests.chat.test_service import JUN, MINA, ask, conversation_of, running
from tests.fakes import ScriptedEngine, WordEmbedder


def rows_of(folder: Path, user: UserId) -> dict[str, int]:
    """How many rows each table has of the user; none left out."""
    found = {}
    with closing(sqlite3.connect(folder / "data" / "tailor.db")) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
            if "user_id" in columns:
                count = db.execute(f"SELECT count(*) FROM {table} WHERE user_id = ?", [user]).fetchone()[0]
                if count:
                    found[table] = count
    return found


async def furnish(services: Services, user: UserId, word: str) -> str:
    """A chat, a second one with a search, a memory with its history, a queued message, settings; the first chat."""
    chat, memory = services.chat, services.memory.of(user)
    first = await ask(chat, user, f"I live in {word}.", domain="general")
    await ask(chat, user, f"How do I return a lamp within 45 days of delivery to {word}?", domain="support")
    memory.add("Lives in Seoul.")
    memory.set_enabled_in("support", False)
    memory.pause(True)
    database = services.memory._database
    TurnQueue(database).add(user, "c", "m", f"waits in {word}")
    Episodes(database, WordEmbedder(), MemorySettings()).add(user, "c", "m", "user", f"said {word}", 1.0)
    return conversation_of(first)


def opened(data: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: json.loads(archive.read(name)) for name in archive.namelist()}


async def test_the_export_has_everything_of_the_user_and_nothing_of_others(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        chat_id = await furnish(services, MINA, "Busan")
        await furnish(services, JUN, "Oslo")
        target = io.BytesIO()
        data = UserData(services.memory._database, may_see=lambda user, folder: user == MINA)
        counts = await asyncio.to_thread(data.export, MINA, target, extra={"account": {"name": "mina"}})
        files = opened(target.getvalue())
        assert (counts["conversations"], counts["messages"], counts["queued"]) == (2, 4, 1)
        assert "Oslo" not in str(files)
        assert files["account.json"] == {"name": "mina"}
        texts = [message["text"] for message in files[f"chats/{chat_id}.json"]["messages"]]
        assert texts == ["I live in Busan.", "All right."]
        assert [one["text"] for one in files["memories.json"]["memories"]] == ["Lives in Seoul.", "Lives in Busan."]
        assert (files["memories.json"]["paused"], files["memories.json"]["domains_off"]) == (True, ["support"])
        assert files["queued.json"][0]["text"] == "waits in Busan"
        (asked,) = [value for name, value in files.items() if name.startswith("chats/") and chat_id not in name]
        answer = asked["messages"][1]
        assert answer["search"]["candidates"]
        assert "45 days" in str(answer["prompt"])
        assert answer["answer"]["context"]["passages"]


async def test_an_export_holds_no_sources_that_the_user_may_not_see(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        await ask(services.chat, MINA, "How do I return a lamp within 45 days?", domain="support")
        target = io.BytesIO()
        await asyncio.to_thread(UserData(services.memory._database).export, MINA, target)
        files = opened(target.getvalue())
        assert "delivery" not in str(files)
        assert "How do I return a lamp" in str(files)


async def test_erasing_leaves_no_row_of_the_user_and_every_row_of_others(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        await furnish(services, MINA, "Busan")
        await furnish(services, JUN, "Oslo")
        before = rows_of(tmp_path, JUN)
        assert {"conversations", "messages", "traces", "memories", "memory_queue", "episodes", "memory_domains_off",
                "memory_users"} <= before.keys()  # fmt: skip
        receipt = await UserData(services.memory._database, services.chat).erase(MINA)
        assert receipt == ErasureReceipt(2, 4, 1, 2, 1, receipt.episodes, pending=False)
        assert rows_of(tmp_path, MINA) == {}
        assert rows_of(tmp_path, JUN).keys() == before.keys()
        again = await UserData(services.memory._database, services.chat).erase(MINA)
        assert again == ErasureReceipt()


async def test_running_answers_are_stopped_and_store_nothing_after_it(tmp_path: Path) -> None:
    async with running(tmp_path, ScriptedEngine(lambda *_: "word " * 500, pause=0.01)) as services:
        stream = await services.chat.send(MINA, "I like tea.", domain="general")
        async for event in stream.follow():
            if event.type == "token":
                break
        receipt = await UserData(services.memory._database, services.chat).erase(MINA)
        assert receipt.messages == 2
        assert [event async for event in stream.follow()][-1].type == "closed"
        assert rows_of(tmp_path, MINA) == {}


def test_without_a_server_an_empty_workspace_has_nothing_to_erase(tmp_path: Path) -> None:
    data = UserData(Database(tmp_path / "tailor.db"))
    assert data.erase_stored(MINA) == ErasureReceipt()
    target = tmp_path / "mina.zip"
    assert data.export(MINA, target)["conversations"] == 0
    assert opened(target.read_bytes())["memories.json"]["memories"] == []


def test_a_chat_deeper_than_a_cascade_may_go_is_deleted(tmp_path: Path) -> None:
    database = Database(tmp_path / "tailor.db")
    data, store = UserData(database), ConversationStore(database)
    parent = None
    with store.transaction():
        chat = store.create(MINA, "long")
        for _ in range(1200):
            parent = store._add(MINA, chat.id, parent, "user", "more", Status.COMPLETE).id
    assert data.erase_stored(MINA).messages == 1200
