"""What lies in deploy/: the unit passes systemd's own checks, and chats, uploads and streams pass real proxies."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from server.config import Settings
from tests.conftest import ROOT
from tests.fakes import ScriptedEngine
from tests.live import LiveServer, make_app, make_workspace, serving

DEPLOY = ROOT / "deploy"
NAME = "chat.example.org"
PASSWORD = "a long password"
PAUSE_S = 0.1
WORDS = 12
UPLOAD_BYTES = 20 << 20


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# ── proxies ──────────────────────────────────────────────────────────────────────────────────────


def certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key), signed by itself."""
    made = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}",
               "-addext", f"subjectAltName=DNS:{NAME}", "-out", str(made[0]), "-keyout", str(made[1])]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return made


def nginx(folder: Path, port: int, upstream: int) -> list[str]:
    """The shipped block in a configuration for a process of its own."""
    cert, key = certificate(folder)
    block = (DEPLOY / "nginx.conf").read_text()
    block = block.replace("127.0.0.1:8321", f"127.0.0.1:{upstream}").replace("listen 443", f"listen 127.0.0.1:{port}")
    block = block.replace("listen 80;", f"listen 127.0.0.1:{free_port()};")
    block = block.replace("/etc/ssl/certs/chat.example.org.pem", str(cert))
    block = block.replace("/etc/ssl/private/chat.example.org.key", str(key))
    temporary = "".join(
        f"{kind}_temp_path {folder};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log {folder}/errors;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{block}\n}}\n"
    )
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def caddy(folder: Path, port: int, upstream: int) -> list[str]:
    cert, key = certificate(folder)
    block = (DEPLOY / "Caddyfile").read_text().replace("127.0.0.1:8321", f"127.0.0.1:{upstream}")
    block = block.replace(f"{NAME} {{", f"https://{NAME}:{port} {{\n\ttls {cert} {key}\n\tbind 127.0.0.1")
    options = f"{{\n\tadmin off\n\tauto_https disable_redirects\n\tstorage file_system {folder}/store\n}}\n"
    (folder / "Caddyfile").write_text(options + block)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    engine = ScriptedEngine(lambda request, prompt: "word " * WORDS, adapters=["helper"], pause=PAUSE_S)
    folder = make_workspace(tmp_path_factory.mktemp("deployed"))
    with serving(make_app(folder, engine, flags={"server.password": PASSWORD})) as live:
        yield live


class Proxied:
    """A client of the proxy that takes its address for the server's name."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.tls = ssl.create_default_context()
        self.tls.check_hostname = False
        self.tls.verify_mode = ssl.CERT_NONE
        self.host = f"{NAME}:{port}"
        self.client = httpx.Client(
            base_url=f"https://127.0.0.1:{port}", verify=self.tls, timeout=60,
            headers={"Host": self.host, "Origin": f"https://{self.host}"},
        )  # fmt: skip

    def log_in(self) -> httpx.Response:
        answer = self.send("POST", "/api/login", json={"name": "admin", "password": PASSWORD})
        self.client.headers["Cookie"] = answer.headers["set-cookie"].partition(";")[0]
        return answer

    def send(self, method: str, path: str, **options: object) -> httpx.Response:
        return self.client.request(method, path, extensions={"sni_hostname": NAME}, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=[nginx, caddy], ids=["nginx", "caddy"])
def proxied(
    request: pytest.FixtureRequest, live: LiveServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    name = request.param.__name__
    if shutil.which(name) is None or shutil.which("openssl") is None:
        pytest.skip(f"{name} or openssl is not installed")
    folder, port = tmp_path_factory.mktemp(name), free_port()
    with (folder / "log").open("w") as log:
        environment = {**os.environ, "HOME": str(folder)}
        process = subprocess.Popen(request.param(folder, port, live.port), stdout=log, stderr=log, env=environment)
    found = Proxied(port)
    try:
        deadline = time.monotonic() + 30
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            with contextlib.suppress(httpx.TransportError):
                found.send("GET", "/api/session")
                break
            time.sleep(0.1)
        yield found
    finally:
        found.client.close()
        process.terminate()
        process.wait(30)


def test_a_login_through_the_proxy_has_a_secure_cookie(proxied: Proxied) -> None:
    answer = proxied.log_in()
    assert answer.status_code == 200, answer.text
    assert "Secure" in answer.headers["set-cookie"]
    assert re.fullmatch(r"[\w.-]{1,64}", answer.headers["x-request-id"])
    assert "max-age" in answer.headers["strict-transport-security"]
    foreign = proxied.send("POST", "/api/memories", json={"text": "x"}, headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 403


async def test_a_chat_passes_over_the_websocket_token_by_token(proxied: Proxied) -> None:
    proxied.log_in()
    headers = {"Cookie": proxied.client.headers["Cookie"]}
    arrived: list[float] = []
    async with connect(
        f"wss://{proxied.host}/ws", host="127.0.0.1", port=proxied.port, ssl=proxied.tls, server_hostname=NAME,
        origin=f"https://{proxied.host}", additional_headers=headers,
    ) as chat:  # fmt: skip
        await chat.send(json.dumps({"type": "send", "request_id": "r", "text": "Hello", "domain": "general"}))
        while (event := json.loads(await chat.recv()))["type"] != "done":
            if event["type"] == "token":
                arrived.append(time.monotonic())
    assert len(arrived) == WORDS
    assert arrived[-1] - arrived[0] > PAUSE_S * WORDS / 2


def test_a_streamed_completion_is_not_held_back(proxied: Proxied) -> None:
    proxied.log_in()
    body = {"model": "base", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    arrived = []
    with proxied.client.stream("POST", "/v1/chat/completions", json=body, extensions={"sni_hostname": NAME}) as answer:
        for line in answer.iter_lines():
            if '"content": "' in line:
                arrived.append(time.monotonic())
    assert len(arrived) >= WORDS
    assert arrived[-1] - arrived[0] > PAUSE_S * WORDS / 2


def test_large_files_pass_and_too_large_ones_do_not(proxied: Proxied) -> None:
    proxied.log_in()
    line = b"The quick brown fox jumps over the lazy dog.\n"
    upload = {"files": ("large.csv", line * (UPLOAD_BYTES // len(line)), "text/csv")}
    answer = proxied.send("POST", "/api/knowledge/uploads", files=upload)
    assert answer.status_code == 200, answer.text
    assert answer.json()["files"][0]["bytes"] > UPLOAD_BYTES - len(line)
    assert proxied.send("DELETE", "/api/knowledge/uploads/large.csv").status_code == 200
    try:
        refused = proxied.send("POST", "/api/knowledge/uploads", files={"files": ("huge.md", b"x" * (40 << 20))})
        assert refused.status_code == 413
    except httpx.WriteError:
        pass  # the proxy closes the connection while it is still being sent


@pytest.mark.parametrize("path", ["/metrics", "/health/ready", "/health/live"])
def test_what_is_for_the_inside_stays_there(proxied: Proxied, path: str) -> None:
    proxied.log_in()
    assert proxied.send("GET", path).status_code == 403


# ── the service ──────────────────────────────────────────────────────────────────────────────────

UNIT = (DEPLOY / "tailor.service").read_text(encoding="utf-8")
MOST_EXPOSURE = 20  # tenths: systemd calls less than 2.0 safe


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / "tailor.service"
    path.write_text(re.sub(r"(?m)^ExecStart=.*", "ExecStart=/bin/true", UNIT))
    return path


def test_systemd_takes_the_unit(unit: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_systemd_finds_it_hardened(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSURE}", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_service_may_take_as_long_as_a_drain() -> None:
    stop = int(re.findall(r"(?m)^TimeoutStopSec=(\d+)$", UNIT)[0])
    assert stop >= Settings().server.drain_seconds + 20
    assert "KillSignal=SIGTERM" in UNIT


def test_the_container_runs_as_nobody_in_particular_and_says_when_it_is_ill() -> None:
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    last = text.split("\nFROM ")[-1]
    assert re.search(r"(?m)^USER 10001$", last)
    assert re.search(r"(?m)^VOLUME /workspace$", last)
    assert "/health/live" in last
    assert not re.search(r"(?m)^ENV .*PASSWORD", text)
    for source in re.findall(r"(?m)^COPY (?!--)(.+) \S+$", text):
        assert all((ROOT / name).exists() for name in source.split()), source


def test_settings_in_the_files_exist() -> None:
    keys = {f"TAILOR_{section}_{key}".upper() for section, value in Settings() for key in type(value).model_fields}
    for path in DEPLOY.iterdir():
        assert set(re.findall(r"TAILOR_[A-Z_]+[A-Z]", path.read_text(encoding="utf-8"))) <= keys, path.name
