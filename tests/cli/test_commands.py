"""The command line as its users type it; against a live server where it talks to one."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

import httpx
import pytest
import uvicorn
from typer.testing import CliRunner

import server.app
from server import terminal
from server.accounts import Accounts
from server.cli import commands as cli
from server.cli import index as index_cli
from server.cli import serve
from server.config import ModelSettings, Settings
from server.database import Database
from server.errors import ConfigError, Conflict, EngineDown, NotFound, TailorError, Unauthorized
from server.retrieval import index_lock
from tests.disks import fill, mounted
from tests.fakes import ScriptedEngine, WordEmbedder
from tests.live import LiveServer, make_app, make_workspace, serving

runner = CliRunner()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    engine = ScriptedEngine(lambda r, p: "Within 45 days [1]." if "45 days" in p else "All right.", adapters=["helper"])
    with serving(make_app(make_workspace(tmp_path_factory.mktemp("cli")), engine)) as served:
        yield served


def run(*arguments: str, text: str | None = None) -> str:
    """Output of a command that succeeds; our own errors come out as they are."""
    result = runner.invoke(cli.app, arguments, input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_every_command_explains_itself() -> None:
    names = [
        "serve",
        "chat",
        "index",
        "embedder",
        "train",
        "compare",
        "adapters",
        "users",
        "backup",
        "restore",
        "doctor",
    ]
    listed = run("--help")
    for name in names:
        assert name in listed
        assert "Usage" in run(name, "--help")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "server.prot=1"], "did you mean 'server.port'"),
        (["--set", "server.port"], "SECTION.KEY=VALUE"),
        (["--port", "99999"], "server.port"),
        (["--device", "abacus"], "model.device"),
        (["--quantize", "int3"], "model.quantize"),
        (["--host", "0.0.0.0"], "server.password"),
    ],
)
def test_bad_settings_stop_the_start(tmp_path: Path, arguments: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        run("serve", "--workspace", str(tmp_path), *arguments)
    assert says in str(error.value)


def test_serve_takes_the_model_as_its_flags_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception): ...

    taken: list[ModelSettings] = []

    def create_app(settings: Settings, **options: object) -> None:
        taken.append(settings.model)
        raise Stop

    monkeypatch.setattr(server.app, "create_app", create_app)
    flags = ("--model", "some/model", "--device", "cpu", "--dtype", "float32", "--quantize", "int8")
    for arguments in ((), flags):
        with pytest.raises(Stop):
            run("serve", "--workspace", str(tmp_path), "--port", "0", *arguments)
    assert taken == [
        ModelSettings(),
        ModelSettings(name="some/model", device="cpu", dtype="float32", quantize="int8"),
    ]


async def test_the_start_says_which_model_runs_and_why_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the engine gives as its reason is printed as it is."""

    async def started(self: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None: ...

    monkeypatch.setattr(uvicorn.Server, "startup", started)
    engine = ScriptedEngine()
    reason = "no CUDA device; [int8] weights, as model.quantize says"
    engine.model = replace(engine.model, reason=reason, path="batched")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app=None)  # type: ignore[arg-type]
        await serve._Server(config, SimpleNamespace(engine=engine), listener).startup()
        port = listener.getsockname()[1]
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{reason}; batched" in printed
    assert f"http://localhost:{port}" in printed


def test_a_taken_port_is_told_before_the_model_loads(tmp_path: Path, live: LiveServer) -> None:
    with pytest.raises(ConfigError, match="choose another with --port"):
        run("serve", "--workspace", str(tmp_path), "--port", str(live.port))
    assert not (tmp_path / "data").exists()


def test_an_index_that_another_server_has_is_told_before_the_model_loads(tmp_path: Path) -> None:
    with index_lock(tmp_path / "data" / "index"), pytest.raises(Conflict, match="another process uses the index"):
        run("serve", "--workspace", str(tmp_path), "--port", "0")


def test_main_prints_one_line_for_our_own_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tailor", "adapters", "list", "--url", "http://127.0.0.1:9"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    errors = capsys.readouterr().err
    assert errors.startswith("tailor: no server answers at http://127.0.0.1:9")
    assert "Traceback" not in errors


def test_main_says_that_the_disk_is_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    make_workspace(tmp_path / "here")
    with mounted(tmp_path / "disk", 64 * 1024) as disk:
        fill(disk)
        options = ["--workspace", str(tmp_path / "here"), "--set", f"paths.data={disk / 'data'}"]
        monkeypatch.setattr(sys, "argv", ["tailor", "backup", str(disk / "backup.tar.gz"), *options])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert ended.value.code == 1
    assert "No space left on device" in capsys.readouterr().err


def test_adapters_are_listed_loaded_and_unloaded(live: LiveServer) -> None:
    assert "available" in run("adapters", "list", "--url", live.url)
    assert "added" in run("adapters", "load", "helper", "--url", live.url)
    assert "loaded" in run("adapters", "list", "--url", live.url)
    assert "removed" in run("adapters", "unload", "helper", "--url", live.url)
    with pytest.raises(TailorError, match="nobody"):
        run("adapters", "load", "nobody", "--url", live.url)


def test_accounts_are_made_changed_and_removed(tmp_path: Path) -> None:
    place = ("--workspace", str(tmp_path))
    run("users", "add", "mina", *place, text="long enough\nlong enough\n")
    run("users", "add", "boss", "--admin", *place, text="long enough\nlong enough\n")
    assert run("users", "list", *place).split("\n")[:2] == ["boss (admin)", "mina"]
    accounts = Accounts(Database(tmp_path / "data" / "tailor.db"))
    key = run("users", "key", "mina", *place).strip()
    account = accounts.by_api_key(key)
    assert account is not None
    assert account.name == "mina"
    run("users", "password", "mina", *place, text="something else\nsomething else\n")
    assert accounts.by_api_key(key) is None
    assert accounts.login("mina", "something else").account.name == "mina"
    run("users", "remove", "mina", "--yes", *place)
    with pytest.raises(NotFound):
        run("users", "key", "mina", *place)


def test_removing_asks_exports_and_erases(tmp_path: Path) -> None:
    make_workspace(tmp_path)
    place = ("--workspace", str(tmp_path))
    for name in ("boss", "mina"):
        run("users", "add", name, *(["--admin"] if name == "boss" else []), *place, text="long enough\nlong enough\n")
    database = Database(tmp_path / "data" / "tailor.db")
    accounts = Accounts(database)
    user = accounts.get("mina").user_id
    with serving(make_app(tmp_path)) as live:
        headers = {"Authorization": f"Bearer {accounts.new_api_key('mina')}"}
        made = httpx.post(f"{live.url}/api/memories", json={"text": "Likes tea."}, headers=headers, timeout=60)
        assert made.status_code == 201
    file = tmp_path / "mina.zip"
    assert (
        runner.invoke(cli.app, ["users", "remove", "mina", "--export", str(file), *place], input="n\n").exit_code == 1
    )
    assert accounts.get("mina").user_id == user  # asked, and told no
    with zipfile.ZipFile(file) as archive:
        assert "Likes tea." in archive.read("memories.json").decode()
        assert json.loads(archive.read("account.json"))["name"] == "mina"
    assert file.stat().st_mode & 0o077 == 0
    run("users", "remove", "mina", *place, text="y\n")
    count = "SELECT count(*) FROM memories WHERE user_id = ?"
    assert database.connection().execute(count, [user]).fetchone()[0] == 0
    assert accounts.erasures() == ()
    run("users", "add", "jun", *place, text="long enough\nlong enough\n")
    with pytest.raises(Conflict, match="only administrator"):
        run("users", "remove", "boss", "--yes", *place)


def test_removing_beside_a_running_server_lets_it_erase(tmp_path: Path) -> None:
    make_workspace(tmp_path)
    place = ("--workspace", str(tmp_path))
    run("users", "add", "boss", "--admin", *place, text="long enough\nlong enough\n")
    run("users", "add", "mina", *place, text="long enough\nlong enough\n")
    with serving(make_app(tmp_path)) as live:
        key = run("users", "key", "mina", *place).strip()
        headers = {"Authorization": f"Bearer {key}"}
        httpx.post(f"{live.url}/api/memories", json={"text": "Likes tea."}, headers=headers, timeout=60)
        run("users", "remove", "mina", "--yes", *place)
        database = Database(tmp_path / "data" / "tailor.db")
        assert database.connection().execute("SELECT count(*) FROM memories").fetchone()[0] == 0
        assert httpx.get(f"{live.url}/api/memories", headers=headers, timeout=60).status_code == 401


def test_roles_groups_keys_and_the_audit_log(tmp_path: Path) -> None:
    place = ("--workspace", str(tmp_path))
    run("users", "add", "boss", "--admin", *place, text="long enough\nlong enough\n")
    run("users", "add", "mina", "--role", "curator", *place, text="long enough\nlong enough\n")
    assert run("users", "roles", "mina", "trainer", "approver", *place) == "mina: approver, trainer, user\n"
    assert run("users", "group", "@sales", "mina", *place) == "@sales: mina\n"
    assert run("users", "list", *place) == "boss (admin)\nmina (approver, trainer, @sales)\n"
    assert run("users", "group", "sales", *place) == run("users", "groups", *place) == "@sales: (nobody)\n"
    run("users", "group", "sales", "--remove", *place)
    assert run("users", "groups", *place) == ""
    accounts = Accounts(Database(tmp_path / "data" / "tailor.db"))
    key = run("users", "key", "mina", "--label", "backup", *place).strip()
    token = accounts.login("mina", "long enough").token
    listed = run("users", "keys", "mina", *place)
    assert "backup" in listed
    assert key not in listed
    key_id = re.search(r"^key +(\w+)", listed, re.MULTILINE)
    assert key_id
    run("users", "revoke", "mina", key_id.group(1), *place)
    assert accounts.by_api_key(key) is None
    run("users", "revoke", "mina", *place)
    assert accounts.session(token) is None
    with pytest.raises(NotFound, match="no key and no session 'x'"):
        run("users", "revoke", "mina", "x", *place)
    told = run("users", "audit", *place).splitlines()
    actions = [line.split()[3] for line in reversed(told)]
    assert actions == [
        *["user.added"] * 2, "user.roles", "group.added", "group.members", "group.removed", "key.made", "key.revoked",
        "session.revoked",
    ]  # fmt: skip
    assert all("command line" in line for line in told)
    assert not any("long enough" in line or key in line for line in told)


@pytest.mark.model
def test_index_brings_the_files_in_and_shows_them(tmp_path: Path, embedder_dir: Path) -> None:
    make_workspace(tmp_path)
    (tmp_path / "knowledge" / "support" / "scan.pdf").write_bytes(b"no PDF")
    output = run("index", "--workspace", str(tmp_path), "--set", f"embedding.name={embedder_dir}")
    assert "refunds.md" in output
    assert "indexed" in output
    assert "failed" in output


@pytest.mark.model
@pytest.mark.usefixtures("few_texts_to_measure")
def test_an_embedder_is_measured(tmp_path: Path, english_embedder_dir: Path) -> None:
    make_workspace(tmp_path)
    name = f"embedding.name={english_embedder_dir}"
    output = flat(run("embedder", "calibrate", "--workspace", str(tmp_path), "--set", name))
    assert re.search(r"answer one 0\.\d\d", output)
    assert "answer two never" in output
    assert re.search(r"latin 9\d\.\d% yes", output)
    assert re.search(r"hangul \d\d\.\d% no", output)
    assert len(list((tmp_path / "data" / "models" / "calibrations").glob("*.npz"))) == 1


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace that no server has, indexed by words."""
    monkeypatch.setattr(server.app, "build_embedder", lambda *_: WordEmbedder())
    return make_workspace(tmp_path)


def flat(table: str) -> str:
    """Its words in order, without the lines and the wrapping."""
    return " ".join(re.sub("[│┃━─┏┓┗┛┡┩└┘┬┴┳┻╇┼├┤]", " ", table).split())


def test_the_index_is_gone_back_and_followed_again(shop: Path) -> None:
    place, file = ("--workspace", str(shop)), shop / "knowledge" / "support" / "refunds.md"
    assert "Generation 1" in run("index", *place)
    file.write_text("# Refunds\n\nNone are given.\n")
    (shop / "knowledge" / "support" / "hours.md").write_text("# Hours\n\nNine to five.\n")
    assert "Generation 1" in run("index", "status", *place)  # it only looks
    assert "Generation 2" in run("index", *place)
    history = run("index", "history", *place)
    assert "1 new, 1 changed: support/hours.md" in flat(history)
    assert history.index(" 2 ") < history.index(" 1 ")
    assert "Generation 3 holds what 1 held" in run("index", "rollback", "1", *place)
    assert "back to 1, 1 changed, 1 gone" in flat(run("index", "history", *place))
    output = run("index", *place)
    assert "Held at what generation 1 was; 2 files on disk differ." in output
    assert "hours.md" not in output
    assert file.read_text().endswith("None are given.\n")
    run("index", "follow", *place)
    output = run("index", "status", *place)
    assert "hours.md" in output
    assert "Held" not in output
    with pytest.raises(Conflict, match="follows the files already"):
        run("index", "follow", *place)
    with pytest.raises(NotFound, match="generation 99 is not kept"):
        run("index", "rollback", "99", *place)
    assert runner.invoke(cli.app, ["index", "rollback", "0", *place]).exit_code == 2


def test_the_index_is_rebuilt(shop: Path) -> None:
    place = ("--workspace", str(shop))
    run("index", *place)
    assert "The index is rebuilt." in run("index", "rebuild", *place)
    assert "Generation 2" in run("index", "status", *place)
    assert flat(run("index", "history", *place)).count("1 new: support/refunds.md") == 1  # the old index is let go


def test_a_server_that_has_the_index_is_asked(live: LiveServer, shop: Path) -> None:
    """At the address of the workspace's settings, or at --url."""
    port = ("--set", f"server.port={live.port}")
    with index_lock(shop / "data" / "index"):  # as a server of this workspace has it
        assert "refunds.md" in run("index", "--workspace", str(shop), *port)
        assert "Generation" in run("index", "status", "--workspace", str(shop), *port)
        with pytest.raises(EngineDown, match="no server answers"):
            run("index", "status", "--workspace", str(shop), "--set", "server.port=9")
    url = ("--url", live.url)
    first = json.loads(urlopen(f"{live.url}/api/knowledge").read())["generation"]
    assert "files" in run("index", "history", *url)
    assert f"holds what {first} held" in run("index", "rollback", str(first), *url)
    assert f"Held at what generation {first} was" in run("index", "status", *url)
    assert "follows the files" in run("index", "follow", *url)
    with pytest.raises(TailorError, match="follows the files already"):
        run("index", "follow", *url)
    assert "being rebuilt" in run("index", "rebuild", *url)
    with pytest.raises(TailorError, match="is not kept"):
        run("index", "rollback", "9999", *url)


def test_the_status_tells_what_is_under_way_and_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    status = {
        "generation": 7, "held": None, "pending": 0, "building": True, "problem": "the index cannot be written: full",
        "folders": [], "progress": {"files": 12, "of_files": 500, "left_s": 41.3},
        "limited": [{"folder": "pay", "problem": ".users names nobody"}, {"folder": "open", "problem": ""}],
    }  # fmt: skip
    index_cli._show_status(status)
    output = capsys.readouterr().out
    for line in ("Generation 7", "Another index is being built beside it.", "12 of 500 files, about 41 s left",
                 "pay: .users names nobody", "the index cannot be written: full"):  # fmt: skip
        assert line in output


def test_compare_and_train_name_a_bad_row(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("not json\n")
    make_workspace(tmp_path)
    with pytest.raises(TailorError, match="line 1"):
        run("compare", str(rows), "--workspace", str(tmp_path))
    with pytest.raises(NotFound, match="nowhere"):
        run("compare", str(rows), "--domain", "nowhere", "--workspace", str(tmp_path))


# ── tailor chat ──────────────────────────────────────────────────────────────────────────────────


def ask(live: LiveServer, *arguments: str) -> str:
    return run("chat", "--url", live.url, *arguments)


def test_one_question_one_answer(live: LiveServer) -> None:
    output = ask(live, "How do I return a lamp?")
    assert "Support: similar" in output
    assert "Within 45 days [1]." in output
    assert "[1] refunds.md › Refunds › Deadline" in output
    assert "(4 tokens)" in output


@pytest.mark.parametrize(
    ("cached", "ttft", "speed", "says"),
    [
        (0, 0.0, 0.0, "42 tokens"),
        (0, 0.305, 15.2, "42 tokens, 15.2/s, first after 0.30 s"),
        (128, 0.5, 15.2, "42 tokens, 15.2/s, first after 0.50 s, 53% of the prompt cached"),
        (1, 0.5, 0.0, "42 tokens, first after 0.50 s, <1% of the prompt cached"),
    ],
)
def test_the_numbers_under_an_answer(cached: int, ttft: float, speed: float, says: str) -> None:
    usage = {"prompt_tokens": 238, "completion_tokens": 42, "cached_tokens": cached, "ttft_s": ttft}
    assert terminal._usage_line(usage, speed) == says


def test_an_unknown_domain_is_an_error_status(live: LiveServer) -> None:
    result = runner.invoke(cli.app, ["chat", "--url", live.url, "--domain", "nowhere", "Hi"])
    assert result.exit_code == 1
    assert "nowhere" in result.output


@pytest.mark.parametrize(
    ("files", "says"),
    [(0, ""), (1, "(1 file is still being read, and not known to this answer)\n"),
     (3, "(3 files are still being read, and not known to this answer)\n")],
)  # fmt: skip
def test_files_that_are_still_being_read_are_told_of(files: int, says: str) -> None:
    assert terminal._unread_notice(files) == says


def test_a_conversation_in_the_terminal(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    told = ["My name is Mina.", "What do you know about me?", "Forget my name", "/temporary", "I like tea."]
    lines = ["/help", "/domain support", "How do I return a lamp?", "/sources", "", "/new", "/sources", "/nonsense"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join([*lines, "/domain auto", *told, "/quit", "never"])))
    written: list[str] = []
    monkeypatch.setattr(sys, "stdout", type("Out", (), {"write": written.append, "flush": lambda self: None})())
    asyncio.run(terminal.chat(live.ws, question=None, domain=None, api_key=None))
    output = "".join(written)
    assert "Domain: support" in output
    assert "(Support: chosen)\n(adapter helper)" in output
    assert "You can return any lamp within 45 days" in output  # the passage, by /sources
    assert "A new conversation." in output
    assert "Domain: auto" in output
    assert "Saved: Name is Mina." in output
    assert "- Name is Mina." in output  # the server's own answer
    assert "Forgotten: Name is Mina." in output
    assert "A new temporary conversation." in output
    assert "tea" not in output
    assert "never" not in output
    assert output.count("/sources       ") == 2  # /help, and after what is no command


def test_nobody_there_and_nobody_let_in(tmp_path: Path) -> None:
    with pytest.raises(EngineDown, match="tailor serve"):
        asyncio.run(terminal.chat("ws://127.0.0.1:9/ws", question="Hi", domain=None, api_key=None))
    app = make_app(make_workspace(tmp_path), flags={"server.password": "long enough"})
    key = app.state.services.accounts.new_api_key("admin")
    with serving(app) as locked:
        with pytest.raises((Unauthorized, EngineDown)):
            asyncio.run(terminal.chat(locked.ws, question="Hi", domain=None, api_key=None))
        assert asyncio.run(terminal.chat(locked.ws, question="Hi", domain=None, api_key=key))


async def test_control_c_stops_the_answer_and_not_the_program() -> None:
    sent: list[str] = []

    class Socket:
        async def send(self, text: str) -> None:
            sent.append(text)

    stopper = terminal._StopOnInterrupt(Socket())  # type: ignore[arg-type]
    with stopper:
        stopper._stop()  # nothing runs yet
        stopper.message_id = "m1"
        stopper._stop()
        await asyncio.sleep(0)
    assert [json.loads(frame) for frame in sent] == [{"type": "stop", "message_id": "m1"}]
