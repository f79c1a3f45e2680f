"""What Prometheus reads: every count and bound of the engine, in its own format, and who may read it."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import prometheus_client
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from server.engine import EngineStats
from server.errors import EngineDown
from tests.conftest import ROOT
from tests.fakes import ScriptedEngine
from tests.live import LiveServer, chat_session, make_app, make_workspace, serving

PASSWORD = "correct horse battery"
KNOWN_STATS = EngineStats(*range(101, 101 + len(dataclasses.fields(EngineStats))))  # each number tells its field
GAUGES_WITH_BOUNDS = (
    ("tailor_requests_running", "tailor_requests_running_max"),
    ("tailor_requests_waiting", "tailor_requests_waiting_max"),
    ("tailor_kv_bytes", "tailor_kv_max_bytes"),
    ("tailor_prefix_bytes", "tailor_prefix_max_bytes"),
    ("tailor_adapters", "tailor_adapters_max"),
    ("tailor_adapter_bytes", "tailor_adapter_max_bytes"),
)


class EngineWithoutStats(ScriptedEngine):
    """Down, and without a count to give."""

    def stats(self) -> EngineStats:
        raise EngineDown("the model is not loaded yet")


class EngineWithKnownStats(ScriptedEngine):
    def stats(self) -> EngineStats:
        return KNOWN_STATS


def read(address: str, **options: object) -> dict[str, Metric]:
    """The families by name, as Prometheus' own parser reads them."""
    response = httpx.get(f"{address}/metrics", timeout=60, **options)  # type: ignore[arg-type]
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(response.text))
    found = {family.name: family for family in families}
    assert len(found) == len(families)
    return found


def values(families: dict[str, Metric]) -> dict[str, float]:
    return {sample.name: sample.value for family in families.values() for sample in family.samples}


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(lambda request, prompt: "One two three.", adapters=["helper"])


@pytest.fixture
def live(tmp_path: Path, engine: ScriptedEngine) -> Iterator[LiveServer]:
    with serving(make_app(make_workspace(tmp_path), engine)) as served:
        yield served


def test_every_field_of_the_statistics_is_given_once(tmp_path: Path) -> None:
    with serving(make_app(make_workspace(tmp_path), EngineWithKnownStats())) as served:
        given = values(read(served.url))
    assert given.pop("tailor_engine_up") == 1
    assert sorted(given.values()) == sorted(dataclasses.astuple(KNOWN_STATS))
    assert given["tailor_requests_running"] == KNOWN_STATS.running
    assert given["tailor_requests_running_max"] == KNOWN_STATS.max_batch
    assert given["tailor_prompt_tokens_cached_total"] == KNOWN_STATS.cached_tokens
    assert given["tailor_engine_step_seconds_total"] == KNOWN_STATS.step_s
    assert given["tailor_engine_restarts_total"] == KNOWN_STATS.restarts


def test_names_and_types_follow_the_conventions(live: LiveServer) -> None:
    families = read(live.url)
    for family in families.values():
        assert family.documentation
        assert re.fullmatch(r"tailor(_[a-z]+)+", family.name)
        (sample,) = family.samples
        assert sample.labels == {}  # no user, no chat: nothing that grows with them
        assert family.type == ("counter" if sample.name.endswith("_total") else "gauge")
    for level, bound in GAUGES_WITH_BOUNDS:
        assert families[level].type == families[bound].type == "gauge"


def test_levels_stand_beside_their_bounds(live: LiveServer) -> None:
    given = values(read(live.url))
    for level, bound in GAUGES_WITH_BOUNDS:
        assert 0 <= given[level] <= given[bound]
        assert given[bound] > 0
    assert given["tailor_requests_per_user_max"] == 64
    assert given["tailor_answer_tokens_max"] == 4096


async def test_an_answer_is_counted(live: LiveServer) -> None:
    before = values(read(live.url))
    async with chat_session(live) as chat:
        await chat.ask("Hello")
    after = values(read(live.url))
    deadline = time.monotonic() + 60
    while after["tailor_requests_running"] and time.monotonic() < deadline:
        after = values(read(live.url))
    grown = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert grown.pop("tailor_prompt_tokens_total") > 0
    assert grown == {"tailor_completion_tokens_total": 3, "tailor_requests_finished_total": 1}


def test_a_scrape_is_answered_though_the_engine_is_down(live: LiveServer, engine: ScriptedEngine) -> None:
    assert values(read(live.url))["tailor_engine_up"] == 1
    engine.down = "the model failed (RuntimeError: out of memory)"
    given = values(read(live.url))
    assert given["tailor_engine_up"] == 0
    assert given["tailor_requests_running_max"] == 16  # what it still knows is still told
    engine.down = ""
    assert values(read(live.url))["tailor_engine_up"] == 1


def test_an_engine_that_cannot_count_is_down_and_nothing_else(tmp_path: Path) -> None:
    without_stats = EngineWithoutStats()
    without_stats.down = "the model is not loaded yet"
    with serving(make_app(make_workspace(tmp_path), without_stats)) as served:
        assert values(read(served.url)) == {"tailor_engine_up": 0}


def test_servers_of_one_process_share_no_counter(live: LiveServer, tmp_path: Path) -> None:
    other = ScriptedEngine()
    other.finished = 7
    with serving(make_app(make_workspace(tmp_path / "other"), other)) as served:
        assert values(read(served.url))["tailor_requests_finished_total"] == 7
        assert values(read(live.url))["tailor_requests_finished_total"] == 0
    assert "tailor" not in prometheus_client.generate_latest().decode()  # the process-wide registry


# ── who may read ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    app = make_app(make_workspace(tmp_path_factory.mktemp("locked")), flags={"server.password": PASSWORD})
    app.state.services.accounts.add("mina", "minas password")
    with serving(app) as served:
        yield served


def logged_in(locked: LiveServer, name: str, password: str) -> dict[str, str]:
    response = httpx.post(f"{locked.url}/api/login", json={"name": name, "password": password}, timeout=60)
    assert response.status_code == 200, response.text
    return {"Cookie": f"tailor_session={response.cookies['tailor_session']}"}


def test_an_administrator_may_read_and_others_may_not(locked: LiveServer) -> None:
    read(locked.url, headers=logged_in(locked, "admin", PASSWORD))
    refused = httpx.get(f"{locked.url}/metrics", headers=logged_in(locked, "mina", "minas password"), timeout=60)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    assert "API key" in refused.json()["error"]["message"]


@pytest.mark.parametrize("owner", ["admin", "mina"])
def test_an_api_key_may_read(locked: LiveServer, owner: str) -> None:
    """A scraper's account needs no right to change anything."""
    key = locked.app.state.services.accounts.new_api_key(owner)
    assert values(read(locked.url, headers={"Authorization": f"Bearer {key}"}))["tailor_engine_up"] == 1


@pytest.mark.parametrize("sent", [None, "Bearer tlr-wrong", "Bearer", "Basic YWRtaW46eA=="])
def test_nobody_else_learns_anything(locked: LiveServer, sent: str | None) -> None:
    response = httpx.get(f"{locked.url}/metrics", headers={"Authorization": sent} if sent else {}, timeout=60)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")
    assert "tailor_" not in response.text


def test_a_wrong_key_does_not_fall_back_on_the_session(locked: LiveServer) -> None:
    headers = logged_in(locked, "admin", PASSWORD) | {"Authorization": "Bearer tlr-wrong"}
    assert httpx.get(f"{locked.url}/metrics", headers=headers, timeout=60).status_code == 401


def test_a_session_with_an_empty_key_is_read_as_a_session(locked: LiveServer) -> None:
    headers = logged_in(locked, "mina", "minas password") | {"Authorization": "Bearer"}
    assert httpx.get(f"{locked.url}/metrics", headers=headers, timeout=60).status_code == 403


def test_without_a_login_only_this_machines_names_are_served(live: LiveServer) -> None:
    rebound = httpx.get(f"{live.url}/metrics", headers={"Host": "evil.example"}, timeout=60)
    assert (rebound.status_code, rebound.json()["error"]["code"]) == (403, "forbidden")


def test_the_documentation_names_every_metric(live: LiveServer) -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").replace("…_", "tailor_requests_")
    for name in values(read(live.url)):
        assert f"`{name}`" in text, name
