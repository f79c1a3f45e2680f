"""Users who save, recall, edit, delete, export, pause, erase and search at once never see a word of one another.

Every text that a user gives carries a mark of that user's own. Whatever a user is answered, by HTTP, over the
WebSocket or by the OpenAI-compatible routes, and every prompt that is made for them, is searched for all marks.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from server.accounts import Accounts
from server.database import Database
from server.types import GenerationRequest, UserId
from tests.fakes import ScriptedEngine
from tests.live import make_app, make_workspace
from tests.tiers import cases

USERS = ("mina", "jun", "ann", "bo")
MARK = re.compile(r"zq([a-z]+)x\d+", re.IGNORECASE)
STEPS = cases(150, 10_000)
STEPS_OF_ONE = 30

ACTIONS = (
    "say", "say", "ask", "ask", "tell", "forget", "add", "edit", "delete", "list", "history", "export", "pause",
    "resume", "erase", "search", "past", "chats", "of_chat", "delete_chat", "temporary", "openai", "steal", "dead",
    "resume_stream",
)  # fmt: skip
steps = st.lists(
    st.tuples(st.integers(0, len(USERS) - 1), st.sampled_from(ACTIONS), st.integers(0, 50)),
    min_size=STEPS_OF_ONE,
    max_size=STEPS_OF_ONE,
)


class Simulation:
    """One server and its users. `texts` are the model of what each memory store should hold."""

    def __init__(self, folder: Path) -> None:
        self.engine = ScriptedEngine(self._answer)
        accounts = Accounts(Database(make_workspace(folder) / "data" / "tailor.db"))
        self.ids = {accounts.add(name, f"a long password of {name}").user_id: name for name in USERS}
        self.keys = {name: accounts.new_api_key(name) for name in USERS}
        app = make_app(folder, self.engine)
        self.client = TestClient(app, client=("127.0.0.1", 50000), base_url="http://127.0.0.1:8321")
        self.seen: list[str] = []
        self.own: Counter[str] = Counter()  # how often a user saw what they had said themselves
        self.count = 0
        self.steps = 0
        self.memories: dict[str, dict[int, str]] = {name: {} for name in USERS}
        self.chats: dict[str, list[str]] = {name: [] for name in USERS}
        self.answers: dict[str, list[str]] = {name: [] for name in USERS}

    def _answer(self, request: GenerationRequest, prompt: str) -> str:
        self.check(self.ids[UserId(request.user_id or "")], prompt, "prompt")
        return "Noted: " + " ".join(sorted(set(MARK.findall(prompt))))

    def check(self, user: str, text: str, where: str) -> None:
        found = {owner.lower() for owner in MARK.findall(text)}
        self.own[where.split(maxsplit=1)[0]] += user in found
        others = found - {user}
        assert not others, f"{user} saw what {others} said, in {where}: {text[:2000]}"

    def mark(self, user: str) -> str:
        self.count += 1
        return f"zq{user}x{self.count}"

    def http(self, user: str, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.keys[user]}"}
        response = self.client.request(method, path, headers=headers, **options)
        self.check(user, response.text, f"{method} {path}")
        assert response.status_code < 500, response.text
        return response

    def turn(self, user: str, text: str, **fields: Any) -> list[dict[str, Any]]:
        frame = {"type": "send", "request_id": "r", "text": text, "domain": "general", **fields}
        return self.frames(user, frame)

    def frames(self, user: str, frame: dict[str, Any]) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        headers = {"Authorization": f"Bearer {self.keys[user]}"}
        with self.client.websocket_connect("/ws", headers=headers) as socket:
            socket.send_text(json.dumps(frame))
            while not events or events[-1]["type"] not in ("closed", "error"):
                text = socket.receive_text()
                self.check(user, text, "/ws")
                events.append(json.loads(text))
        for event in events:
            if event["type"] == "started":
                self.chats[user].append(event["conversation_id"])
                self.answers[user].append(event["message_id"])
        return events

    def any_of(self, items: Any, n: int) -> Any:
        found = list(items)
        return found[n % len(found)] if found else None

    def sync(self, user: str) -> None:
        """The model follows what the user is shown; `check` has looked at it."""
        body = self.http(user, "GET", "/api/memories").json()
        self.memories[user] = {memory["id"]: memory["text"] for memory in body["memories"]}

    # ── what a user may do ───────────────────────────────────────────────────────────────────────

    def step(self, user: str, action: str, n: int) -> None:
        self.steps += 1
        before = {name: dict(self.memories[name]) for name in USERS if name != user}
        getattr(self, f"do_{action}")(user, n)
        self.sync(user)
        for other, memories in before.items():  # nobody's memory changes by what another does
            if self.steps % 5 == 0:
                self.sync(other)
                assert self.memories[other] == memories

    def do_say(self, user: str, n: int) -> None:
        told = (
            "I like {}.",
            "My name is {}.",
            "Remember that the code word is {}.",
            "I moved to {}.",
            "나는 {}에 살아요.",
        )
        self.turn(user, told[n % len(told)].format(self.mark(user)))

    def do_ask(self, user: str, n: int) -> None:
        asked = ("What is the code word?", "Who am I and what do I like?", "Where did I live before?")
        self.turn(user, asked[n % len(asked)], conversation_id=self.any_of(self.chats[user], n))

    def do_past(self, user: str, n: int) -> None:
        self.turn(user, "What did I say about the code word in my last chat?")

    def do_tell(self, user: str, n: int) -> None:
        self.turn(user, "What do you know about me?")

    def do_forget(self, user: str, n: int) -> None:
        text = self.any_of(self.memories[user].values(), n) or "I like tea"
        self.turn(user, f"Forget that {text.rstrip('.')}")

    def do_add(self, user: str, n: int) -> None:
        self.http(user, "POST", "/api/memories", json={"text": f"The drawer holds {self.mark(user)}."})

    def do_edit(self, user: str, n: int) -> None:
        memory_id = self.any_of(self.memories[user], n) or 1
        self.http(user, "PATCH", f"/api/memories/{memory_id}", json={"text": f"The shelf holds {self.mark(user)}."})

    def do_delete(self, user: str, n: int) -> None:
        self.http(user, "DELETE", f"/api/memories/{self.any_of(self.memories[user], n) or 1}")

    def do_list(self, user: str, n: int) -> None:
        self.http(user, "GET", "/api/memories", params={"past": bool(n % 2), "query": "" if n % 3 else "zq"})

    def do_history(self, user: str, n: int) -> None:
        self.http(user, "GET", f"/api/memories/{self.any_of(self.memories[user], n) or 1}/history")

    def do_export(self, user: str, n: int) -> None:
        self.http(user, "GET", "/api/memories/export")

    def do_pause(self, user: str, n: int) -> None:
        self.http(user, "PUT", "/api/memories/paused", json={"paused": n % 4 == 0})

    def do_resume(self, user: str, n: int) -> None:
        self.http(user, "PUT", "/api/memories/paused", json={"paused": False})

    def do_erase(self, user: str, n: int) -> None:
        if n % 3 == 0:
            self.http(user, "DELETE", "/api/memories", params={"confirm": True})

    def do_search(self, user: str, n: int) -> None:
        self.http(user, "GET", "/api/conversations/search", params={"query": "code word zq"})

    def do_chats(self, user: str, n: int) -> None:
        self.http(user, "GET", "/api/conversations")
        if answer := self.any_of(self.answers[user], n):
            self.http(user, "GET", f"/api/messages/{answer}/prompt")
        if chat := self.any_of(self.chats[user], n):
            self.http(user, "GET", f"/api/conversations/{chat}")

    def do_of_chat(self, user: str, n: int) -> None:
        self.http(user, "GET", f"/api/conversations/{self.any_of(self.chats[user], n)}/memories")

    def do_delete_chat(self, user: str, n: int) -> None:
        chat = self.any_of(self.chats[user], n)
        self.http(user, "DELETE", f"/api/conversations/{chat}", params={"memories": ("keep", "forget")[n % 2]})
        self.chats[user] = [each for each in self.chats[user] if each != chat]

    def do_temporary(self, user: str, n: int) -> None:
        before = dict(self.memories[user])
        self.turn(user, f"I like {self.mark(user)}.", temporary=True)
        self.sync(user)
        assert self.memories[user] == before

    def do_openai(self, user: str, n: int) -> None:
        before = dict(self.memories[user])
        message = {"role": "user", "content": ("What is the code word?", f"I like {self.mark(user)}.")[n % 2]}
        self.http(
            user,
            "POST",
            "/v1/chat/completions",
            json={"model": ("general", "auto", "base")[n % 3], "messages": [message]},
        )
        self.sync(user)
        assert self.memories[user] == before

    def do_dead(self, user: str, n: int) -> None:
        assert self.http(user, "GET", "/api/memories/dead").json() == {"dead": []}
        assert self.http(user, "POST", f"/api/memories/dead/{n + 1}/retry").status_code == 404

    def do_resume_stream(self, user: str, n: int) -> None:
        if answer := self.any_of(self.answers[user], n):
            self.frames(user, {"type": "resume", "message_id": answer})

    def do_steal(self, user: str, n: int) -> None:
        """With the ids of another: each is answered as one that never was."""
        other = USERS[(USERS.index(user) + 1 + n % (len(USERS) - 1)) % len(USERS)]
        if (memory_id := self.any_of(set(self.memories[other]) - set(self.memories[user]), n)) is not None:
            for method, path, body in (
                ("PATCH", f"/api/memories/{memory_id}", {"text": self.mark(user)}),
                ("DELETE", f"/api/memories/{memory_id}", None),
                ("GET", f"/api/memories/{memory_id}/history", None),
            ):
                assert self.http(user, method, path, json=body).status_code == 404
        if chat := self.any_of(self.chats[other], n):
            for method, path in (("GET", f"{chat}/memories"), ("GET", chat), ("DELETE", f"{chat}?memories=forget")):
                assert self.http(user, method, f"/api/conversations/{path}").status_code == 404
            assert self.turn(user, "Hello", conversation_id=chat)[-1]["code"] == "not_found"
        if answer := self.any_of(self.answers[other], n):
            assert self.http(user, "GET", f"/api/messages/{answer}/prompt").status_code == 404
            assert self.frames(user, {"type": "resume", "message_id": answer})[-1]["code"] == "not_found"
            assert (
                self.frames(user, {"type": "regenerate", "request_id": "r", "message_id": answer})[-1]["code"]
                == "not_found"
            )


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    made = Simulation(tmp_path_factory.mktemp("isolation"))
    with made.client:
        yield made


@settings(max_examples=max(1, STEPS // STEPS_OF_ONE))
@given(plan=steps)
def test_no_user_ever_sees_another(simulation: Simulation, plan: list[tuple[int, str, int]]) -> None:
    for number, action, n in plan:
        simulation.step(USERS[number], action, n)


def test_the_check_would_see_a_crossing(simulation: Simulation) -> None:
    with pytest.raises(AssertionError, match="mina saw what"):
        simulation.check("mina", "the code word is zqjunx7", "a test")
    assert {"prompt", "GET", "POST", "/ws"} <= {where for where, times in simulation.own.items() if times}
