"""What is revoked ends at once: sockets, frames, running answers, and what a removed account stored."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from server.accounts import Accounts, Session
from server.api import revocation
from server.database import Database
from tests.fakes import ScriptedEngine
from tests.live import ChatClient, LiveServer, chat_session, make_app, make_workspace, serving

BOUND_S = 10.0  # half a second on a machine with nothing else to do


def slow_on_demand(request: object, prompt: str) -> str:
    return "word " * 100_000 if "slowly" in prompt else "All right."


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("ws"))


@pytest.fixture(scope="module")
def live(workspace: Path) -> Iterator[LiveServer]:
    engine = ScriptedEngine(slow_on_demand, adapters=["helper"], pause=0.005)
    with serving(make_app(workspace, engine, flags={"server.password": "correct horse battery"})) as served:
        yield served


@pytest.fixture(scope="module")
def elsewhere(workspace: Path, live: LiveServer) -> Accounts:
    """The accounts as another process sees them: nothing but the file is shared."""
    return Accounts(Database(workspace / "data" / "tailor.db"))


@pytest.fixture
def session(elsewhere: Accounts) -> Iterator[Session]:
    elsewhere.add("mina", "minas password")
    yield elsewhere.login("mina", "minas password")
    if "mina" in [account.name for account in elsewhere.list()]:
        elsewhere.remove("mina")


@asynccontextmanager
async def socket_of(live: LiveServer, session: Session) -> AsyncIterator[ChatClient]:
    async with chat_session(live, additional_headers={"Cookie": f"tailor_session={session.token}"}) as chat:
        yield chat


async def closes(chat: ChatClient) -> str:
    """Why the socket was closed."""

    async def read_on() -> None:
        while True:
            await chat.socket.recv()

    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(read_on(), BOUND_S)
    frame = closed.value.rcvd
    assert frame is not None
    assert frame.code == 1008
    return frame.reason


Revoke = Callable[[Accounts, Session], object]
REVOCATIONS: dict[str, Revoke] = {
    "logout": lambda accounts, session: accounts.logout(session.token),
    "revoked": lambda accounts, session: accounts.revoke_session(session.account.user_id, session.id),
    "password": lambda accounts, session: accounts.set_password("mina", "a new password"),
    "removed": lambda accounts, session: accounts.remove("mina"),
}


@pytest.mark.parametrize("how", REVOCATIONS)
async def test_another_process_ends_open_sockets(
    live: LiveServer, elsewhere: Accounts, session: Session, how: str
) -> None:
    async with socket_of(live, session) as one, socket_of(live, session) as two:
        await one.ask("Hello")
        REVOCATIONS[how](elsewhere, session)
        for chat in (one, two):
            assert "log in again" in await closes(chat)


async def test_the_socket_of_a_key_ends_with_the_key_and_no_other(
    live: LiveServer, elsewhere: Accounts, session: Session
) -> None:
    user = session.account.user_id
    (gone, gone_secret), (_, kept_secret) = elsewhere.make_api_key(user, "a"), elsewhere.make_api_key(user, "b")
    async with (
        chat_session(live, additional_headers={"Authorization": f"Bearer {gone_secret}"}) as ending,
        chat_session(live, additional_headers={"Authorization": f"Bearer {kept_secret}"}) as staying,
        socket_of(live, session) as also_staying,
    ):
        elsewhere.revoke_api_key(user, gone.id)
        await closes(ending)
        for chat in (staying, also_staying):
            assert (await chat.ask("Still there?"))[-1]["type"] == "closed"


async def test_a_session_that_expires_ends_its_socket(live: LiveServer, elsewhere: Accounts, session: Session) -> None:
    short = elsewhere.login("mina", "minas password", days=2 / 86_400)
    async with socket_of(live, short) as chat:
        await closes(chat)


@pytest.mark.parametrize("frame", ['{"type": "send", "request_id": "r", "text": "Hello"}', '{"type": "stop"}', "junk"])
async def test_a_frame_of_a_revoked_socket_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: str
) -> None:
    """Before the next look at all sessions: the frame itself is refused."""
    monkeypatch.setattr(revocation, "POLL_S", 3_600.0)
    app = make_app(make_workspace(tmp_path), flags={"server.password": "correct horse battery"})
    services = app.state.services
    session = services.accounts.login("admin", "correct horse battery")
    with serving(app) as live:
        async with socket_of(live, session) as chat:
            services.accounts.logout(session.token)
            await chat.socket.send(frame)
            await closes(chat)
        assert services.engine.requests == []
        assert services.chat.store.list(session.account.user_id) == ()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def test_a_removed_account_stops_answering_and_leaves_nothing(
    live: LiveServer, elsewhere: Accounts, session: Session, workspace: Path
) -> None:
    user = session.account.user_id
    services = live.app.state.services
    async with socket_of(live, session) as chat:
        await chat.ask("My name is Mina.", domain="general")
        await chat.frame(type="send", request_id="r", text="Talk slowly")
        await chat.until("token")
        assert services.engine.running == 1
        elsewhere.remove("mina")
        await closes(chat)
        await asyncio.to_thread(until, lambda: services.engine.running == 0 and elsewhere.erasures() == ())
    db = Database(workspace / "data" / "tailor.db").connection()
    tables = [row["name"] for row in db.query("SELECT name FROM sqlite_master WHERE type = 'table'")]
    owned = [name for name in tables if "user_id" in {column.name for column in db[name].columns}]
    assert {"conversations", "messages", "memories", "sessions"} <= set(owned)
    assert {name: db[name].count_where("user_id = ?", [user]) for name in owned} == dict.fromkeys(owned, 0)


async def test_a_running_completion_ends_with_its_key(live: LiveServer, elsewhere: Accounts, session: Session) -> None:
    secret = elsewhere.new_api_key("mina")
    body = {"model": "base", "messages": [{"role": "user", "content": "slowly"}], "stream": True, "max_tokens": 4096}
    async with (
        httpx.AsyncClient(base_url=live.url, timeout=60) as client,
        client.stream(
            "POST", "/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {secret}"}
        ) as answer,
    ):
        lines = answer.aiter_lines()
        await anext(lines)
        elsewhere.set_password("mina", "a new password")
        async with asyncio.timeout(BOUND_S):
            told = [line async for line in lines]
    told = [line for line in told if line]
    assert json.loads(told[-1].removeprefix("data: "))["error"]["code"] == "unauthorized"
    assert live.app.state.services.engine.running == 0


def test_an_erasure_that_was_cut_off_is_finished_at_the_next_start(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    database = Database(workspace / "data" / "tailor.db")
    accounts = Accounts(database)
    accounts.add("root", "correct horse", admin=True)
    user = accounts.add("mina", "minas password").user_id
    with serving(make_app(workspace)) as live:
        headers = {"Authorization": f"Bearer {accounts.new_api_key('mina')}"}
        assert httpx.post(
            f"{live.url}/api/memories", json={"text": "Likes tea."}, headers=headers, timeout=60
        ).is_success
    accounts.remove("mina")
    count = "SELECT count(*) FROM memories WHERE user_id = ?"
    assert database.connection().execute(count, [user]).fetchone()[0] == 1
    with serving(make_app(workspace)):
        until(lambda: accounts.erasures() == ())
    assert database.connection().execute(count, [user]).fetchone()[0] == 0
