"""Knowledge over HTTP: generations, a passage with what stands around it, traces, and the box for trying searches."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from server.errors import Conflict
from server.relations import TextRole
from server.retrieval import index_lock
from tests.api.test_rest import ask, wait_for
from tests.fakes import ScriptedEngine, WordEmbedder
from tests.live import LiveServer, chat_session, make_app, make_workspace, only, serving

QUESTION = "Within how many days can I return a lamp?"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return make_workspace(tmp_path)


@pytest.fixture
def live(workspace: Path) -> Iterator[LiveServer]:
    with serving(
        make_app(workspace, ScriptedEngine(adapters=["helper"]), flags={"retrieval.debounce_ms": 20})
    ) as served:
        yield served


@pytest.fixture
def client(live: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url, timeout=60) as http_client:
        wait_for(http_client, "support", "refunds.md", "indexed")
        yield http_client


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def found(client: httpx.Client, question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    response = client.post("/api/knowledge/search", json={"question": question, **fields})
    assert response.status_code == 200, response.text
    return dict(response.json())


def generations(client: httpx.Client) -> dict[str, Any]:
    return dict(client.get("/api/knowledge/generations").json())


# ── generations ──────────────────────────────────────────────────────────────────────────────────


def test_history_names_what_changed_and_going_back_holds_until_it_is_told_to_follow(
    client: httpx.Client, workspace: Path
) -> None:
    path = workspace / "knowledge" / "support" / "refunds.md"
    first = generations(client)["generation"]
    path.write_text(path.read_text().replace("45 days", "60 days"))
    until(lambda: "60 days" in found(client)["passages"][0]["text"], "the new text is found")
    told = generations(client)
    newest = told["generations"][0]
    assert (told["generation"], told["held"]) == (newest["number"], None)
    assert newest["told"] == [{"what": "changed", "file": "support/refunds.md"}]
    assert (newest["added"], newest["changed"], newest["removed"], newest["cause"]) == (0, 1, 0, "files")
    assert [one["number"] for one in told["generations"]] == [first + 1, first]
    assert abs(newest["at"] - time.time()) < 300

    back = client.post("/api/knowledge/rollback", json={"generation": first})
    assert (back.status_code, back.json()) == (200, {"generation": first + 2, "held": first})
    assert "45 days" in found(client)["passages"][0]["text"]
    until(lambda: client.get("/api/knowledge").json()["pending"] == 1, "one file differs")
    assert client.get("/api/knowledge").json()["held"] == first
    assert generations(client)["generations"][0]["cause"] == f"rollback:{first}"
    assert "60 days" in path.read_text()  # files on disk stay as they are

    assert client.post("/api/knowledge/follow").status_code == 202
    until(lambda: "60 days" in found(client)["passages"][0]["text"], "the files are followed again")
    assert client.get("/api/knowledge").json()["held"] is None
    again = client.post("/api/knowledge/follow")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")


def test_a_generation_that_is_not_kept_is_not_found(client: httpx.Client) -> None:
    for number, status in ((9999, 404), (0, 400), (-1, 400), ("x", 400)):
        refused = client.post("/api/knowledge/rollback", json={"generation": number})
        assert refused.status_code == status, number
    assert "kept are" in client.post("/api/knowledge/rollback", json={"generation": 9999}).json()["error"]["message"]


def test_a_rebuild_serves_meanwhile_and_takes_the_place_at_its_end(client: httpx.Client) -> None:
    before = generations(client)["generation"]
    assert client.post("/api/knowledge/rebuild").status_code == 202
    while (status := client.get("/api/knowledge").json())["building"]:
        assert found(client)["passages"], "the old index answers"
        time.sleep(0.01)
    assert status["generation"] > before
    assert "45 days" in found(client)["passages"][0]["text"]


class _Gated(WordEmbedder):
    """Embeds a large group only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = threading.Semaphore(0)

    def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
        if len(texts) > 20:
            assert self.permits.acquire(timeout=120)
        return super().embed(texts, role)


def test_progress_is_told_over_the_socket_while_an_import_is_under_way(workspace: Path, tmp_path: Path) -> None:
    staging = tmp_path / "beside"
    staging.mkdir()
    for number in range(400):
        (staging / f"{number}.md").write_text(f"# Note {number}\n\nThe code of drawer {number} is {number * 7}.\n")
    embedder = _Gated()

    async def watched(live: LiveServer) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        async with chat_session(live) as chat, httpx.AsyncClient(base_url=live.url, timeout=60) as http:

            async def status() -> dict[str, Any]:
                """After the next word of a change."""
                while json.loads(await asyncio.wait_for(chat.socket.recv(), 120)).get("what") != "knowledge":
                    pass
                return dict((await http.get("/api/knowledge", params={"files": "false"})).json())

            async def release_one_by_one() -> None:
                while True:
                    await asyncio.sleep(0.2)
                    embedder.permits.release()

            staging.rename(workspace / "knowledge" / "many")
            releasing = asyncio.create_task(release_one_by_one())
            while not told or told[-1]["progress"]:
                now = await status()
                if now["progress"] or told:
                    told.append(now)
            releasing.cancel()
        return told

    app = make_app(workspace, ScriptedEngine(adapters=["helper"]), embedder)
    with serving(app) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        wait_for(client, "support", "refunds.md", "indexed")
        told = asyncio.run(watched(live))
        embedder.permits.release(100)
        assert wait_for(client, "many", "399.md", "indexed")
        assert len(client.get("/api/knowledge").json()["folders"]) == 2
    steps = [status["progress"] for status in told[:-1]]
    assert all("folders" not in status for status in told)
    assert {step["of_files"] for step in steps} <= {400, 401}  # a file that was just written is read twice
    assert [step["files"] for step in steps] == sorted(step["files"] for step in steps)
    assert all(0 < step["bytes"] < step["of_bytes"] and step["left_s"] >= 0 for step in steps)


def test_a_folder_may_be_called_as_a_command(client: httpx.Client) -> None:
    for name in ("search", "rollback", "follow", "rebuild", "generations"):
        sent = client.post(f"/api/knowledge/{name}", files=[("files", ("a.md", b"# A\n\nThe owl sleeps.\n"))])
        assert sent.status_code == 200, sent.text
        assert sent.json()["files"][0]["file"] == "a.md"
        assert wait_for(client, name, "a.md", "indexed")


def test_a_second_server_on_the_same_index_is_refused(live: LiveServer, workspace: Path) -> None:
    with pytest.raises(Conflict, match="another process uses the index"), index_lock(workspace / "data" / "index"):
        pass


# ── passages ─────────────────────────────────────────────────────────────────────────────────────


def test_a_passage_comes_with_what_stands_around_it(client: httpx.Client, workspace: Path) -> None:
    path = workspace / "knowledge" / "support" / "steps.md"
    path.write_text("\n".join(f"## Step {n}\n\nTurn the {n}th screw of the chandelier.\n" for n in range(1, 10)))
    wait_for(client, "support", "steps.md", "indexed")
    hit = found(client, "Turn the 5th screw of the chandelier")["passages"][0]
    assert "5th" in hit["text"]
    around = client.get(f"/api/passages/{hit['id']}").json()
    assert around["living"]
    assert around["passage"]["place"] == hit["place"]
    assert [one["heading"][-1] for one in around["before"]] == ["Step 2", "Step 3", "Step 4"]
    assert [one["heading"][-1] for one in around["after"]] == ["Step 6", "Step 7", "Step 8"]
    wide = client.get(f"/api/passages/{hit['id']}", params={"reach": 1000}).json()
    assert (len(wide["before"]), len(wide["after"])) == (4, 4)
    alone = client.get(f"/api/passages/{hit['id']}", params={"reach": 0}).json()
    assert alone["before"] == alone["after"] == []
    path.write_text("# Steps\n\nThere are none any more.\n")
    until(lambda: not client.get(f"/api/passages/{hit['id']}").json()["living"], "the passage is old")
    old = client.get(f"/api/passages/{hit['id']}").json()
    assert "5th" in old["passage"]["text"]
    assert old["before"] == old["after"] == []
    path.unlink()
    until(lambda: client.get(f"/api/passages/{hit['id']}").status_code in (200, 404), "it answers")
    missing = client.get("/api/passages/nothing")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


# ── traces ───────────────────────────────────────────────────────────────────────────────────────


def answer_of(client: httpx.Client, events: list[dict[str, Any]]) -> dict[str, Any]:
    started = only(events, "started")
    messages = client.get(f"/api/conversations/{started['conversation_id']}").json()["messages"]
    return next(dict(message) for message in messages if message["id"] == started["message_id"])


def test_an_answer_keeps_why_it_had_its_sources(live: LiveServer, client: httpx.Client) -> None:
    answer = answer_of(client, ask(live, QUESTION, domain="support"))
    trace = client.get(f"/api/messages/{answer['id']}/trace").json()
    assert trace["generation"] == answer["generation"] == client.get("/api/knowledge").json()["generation"]
    assert trace["queries"] == [QUESTION]
    assert trace["folders"] == ["support"]
    best = trace["candidates"][0]
    assert (best["fate"], best["fused_rank"], best["folder"], best["file"]) == ("used", 1, "support", "refunds.md")
    assert best["id"] == answer["passages"][0]["passage"]["id"]
    assert best["gate"] in ("meaning", "words")
    assert best["lexical_rank"] == 1
    assert {one["fate"] for one in trace["candidates"]} - {"used"}, "those that were not used are told, too"
    assert all(len(one["text"]) <= 160 for one in trace["candidates"])
    assert client.get("/api/messages/nothing/trace").status_code == 404


def test_a_trace_tells_what_the_budget_left_out(workspace: Path) -> None:
    """Passages that were found, and for which the prompt had no room."""
    path = workspace / "knowledge" / "support" / "refunds.md"
    path.write_text("\n".join(f"## Lamp {n}\n\nLamp {n} returns: {'within 45 days of its delivery ' * 6}\n"
                              for n in range(6)))  # fmt: skip
    flags = {"prompts.evidence_tokens": 700, "retrieval.min_likelihood": 0.01}
    app = make_app(workspace, ScriptedEngine(adapters=["helper"]), flags=flags)
    with serving(app) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        wait_for(client, "support", "refunds.md", "indexed")
        answer = answer_of(client, ask(live, "Lamp returns within 45 days of delivery", domain="support"))
        trace = client.get(f"/api/messages/{answer['id']}/trace").json()
    fates = [one["fate"] for one in trace["candidates"]]
    assert answer["dropped"] == fates.count("no room") > 0
    assert [one["id"] for one in trace["candidates"] if one["fate"] == "used"] == [
        one["passage"]["id"] for one in answer["passages"]
    ]


def test_an_answer_without_a_search_has_no_trace(live: LiveServer, client: httpx.Client) -> None:
    answer = answer_of(client, ask(live, "Hello there", domain="general"))
    missing = client.get(f"/api/messages/{answer['id']}/trace")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


def test_a_trace_goes_with_its_conversation(live: LiveServer, client: httpx.Client) -> None:
    events = ask(live, QUESTION, domain="support")
    answer = answer_of(client, events)
    client.delete(f"/api/conversations/{only(events, 'started')['conversation_id']}")
    rows = live.app.state.services.chat.store._database.connection().query("SELECT count(*) AS n FROM traces")
    assert next(iter(rows))["n"] == 0
    assert client.get(f"/api/messages/{answer['id']}/trace").status_code == 404


# ── the box for trying searches ──────────────────────────────────────────────────────────────────


def test_a_search_can_be_tried_with_all_its_filters(client: httpx.Client, workspace: Path) -> None:
    old = workspace / "knowledge" / "support" / "old.txt"
    old.write_text("You can return any lamp within 10 days of delivery.\n")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    other = workspace / "knowledge" / "shop" / "lamps.md"
    other.parent.mkdir()
    other.write_text("# Lamps\n\nYou can return any lamp within 99 days of delivery.\n")
    wait_for(client, "support", "old.txt", "indexed")
    wait_for(client, "shop", "lamps.md", "indexed")

    def files(**fields: Any) -> set[str]:
        return {one["file"] for one in found(client, **fields)["trace"]["candidates"]}

    everything = {"refunds.md", "old.txt", "lamps.md"}
    assert files() == everything
    assert files(folders=["shop"]) == {"lamps.md"}
    assert files(folders=[]) == files(folders=["nowhere"]) == set()
    assert files(kinds=[".TXT"]) == {"old.txt"}
    assert files(files=["ref*"]) == {"refunds.md"}
    assert files(until="2001-09-09") == {"old.txt"}
    assert files(since="2001-09-10") == everything - {"old.txt"}
    assert files(since="2001-09-09", until="2001-09-09") <= {"old.txt"}
    follow_up = found(client, "And how long for that?", earlier="Can I return a lamp?")
    assert len(follow_up["trace"]["queries"]) == 2
    assert found(client, "Thank you!")["trace"]["candidates"] == []


def test_a_search_that_cannot_be_made_says_what_is_wrong(client: httpx.Client) -> None:
    bad: list[dict[str, Any]] = [
        {}, {"question": ""}, {"question": "x", "since": "yesterday"}, {"question": "x", "colour": "red"},
        {"question": "x" * 20_001}, {"question": "x", "folders": "support"},
    ]  # fmt: skip
    for body in bad:
        refused = client.post("/api/knowledge/search", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_input"), body
