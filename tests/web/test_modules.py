"""The client's pure modules, called in the browser they are written for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.web.conftest import fresh_page, serve_backend

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def client(browser: Browser) -> Iterator[Page]:
    """One page for all of them: the modules are pure, and opening it takes longer than they do."""
    with serve_backend() as (_, address), fresh_page(browser, address) as page:
        page.goto("/")
        page.wait_for_selector(".composer")
        yield page


def run(page: Page, module: str, body: str, argument: Any = None) -> Any:
    """Runs `body` with `m`, the module, and `a`, the argument."""
    return page.evaluate(f"async (a) => {{ const m = await import('/static/js/{module}.js'); {body} }}", argument)


# ── tree ─────────────────────────────────────────────────────────────────────────────────────────

#   q1 ── a1 ── q2 ── a2
#    │     └─── q3 ── a3      (q3: an edit of q2)
#    └─── a4                  (another answer to q1)
TREE = [
    {"id": "q1", "parent_id": None}, {"id": "a1", "parent_id": "q1"},
    {"id": "q2", "parent_id": "a1"}, {"id": "a2", "parent_id": "q2"},
    {"id": "q3", "parent_id": "a1"}, {"id": "a3", "parent_id": "q3"},
    {"id": "a4", "parent_id": "q1"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("choices", "shown"),
    [
        ({}, ["q1", "a4"]),  # the newest child, where nothing is chosen
        ({"q1": "a1"}, ["q1", "a1", "q3", "a3"]),
        ({"q1": "a1", "a1": "q2"}, ["q1", "a1", "q2", "a2"]),
        ({"q1": "gone"}, ["q1", "a4"]),
    ],
)
def test_the_shown_branch(client: Page, choices: dict[str, str], shown: list[str]) -> None:
    assert run(client, "tree", "return m.branch(a.tree, a.choices)", {"tree": TREE, "choices": choices}) == shown


def test_siblings_share_a_parent_and_roots_are_siblings_too(client: Page) -> None:
    assert run(client, "tree", "return m.siblings(a, 'a4')", TREE) == {"ids": ["a1", "a4"], "index": 1}
    assert run(client, "tree", "return m.siblings(a, 'a2')", TREE) == {"ids": ["a2"], "index": 0}
    edited = [*TREE, {"id": "q9", "parent_id": None}]
    assert run(client, "tree", "return m.siblings(a, 'q1')", edited) == {"ids": ["q1", "q9"], "index": 0}


def test_choices_lead_to_a_message_and_leave_the_rest_alone(client: Page) -> None:
    body = "const c = m.choicesFor(a, {x: 'y'}, 'q2'); return [c, m.branch(a, c)]"
    choices, shown = run(client, "tree", body, TREE)
    assert choices == {"x": "y", "": "q1", "q1": "a1", "a1": "q2"}
    assert shown == ["q1", "a1", "q2", "a2"]


def test_a_broken_tree_neither_hangs_nor_hides_messages(client: Page) -> None:
    circle = [{"id": "a", "parent_id": "b"}, {"id": "b", "parent_id": "a"}]
    assert run(client, "tree", "m.choicesFor(a, {}, 'a'); return m.branch(a, {})", circle) == []
    orphan = [{"id": "a", "parent_id": "never seen"}]
    assert run(client, "tree", "return m.branch(a, {})", orphan) == ["a"]


# ── turn ─────────────────────────────────────────────────────────────────────────────────────────

STARTED = {"type": "started", "message_id": "m2", "seq": 1, "user_message_id": "m1", "parent_id": None}


def grow(page: Page, *events: dict[str, Any]) -> dict[str, Any]:
    numbered = [{"message_id": "m2", "seq": n, **event} for n, event in enumerate(events, start=2)]
    body = "return a.events.reduce(m.applyEvent, m.createAnswer(a.started, 1))"
    return dict(run(page, "turn", body, {"started": STARTED, "events": numbered}))


def test_an_answer_grows_by_its_events(client: Page) -> None:
    answer = grow(
        client,
        {"type": "reasoning", "text": "Hm"},
        {"type": "reasoning", "text": "m."},
        {"type": "token", "text": "Four"},
        {"type": "token", "text": "ty"},
        {"type": "done", "finish_reason": "stop", "usage": {"completion_tokens": 2}, "tokens_per_second": 9.5},
        {"type": "something new"},
    )
    assert answer["reasoning"] == "Hmm."
    assert answer["text"] == "Fourty"
    assert (answer["status"], answer["speed"], answer["seq"]) == ("complete", 9.5, 7)


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([{"type": "done", "finish_reason": "cancelled", "usage": None, "tokens_per_second": 0}], "stopped"),
        ([{"type": "error", "code": "busy", "message": "full"}], "failed"),
        ([{"type": "closed"}], "interrupted"),
        ([{"type": "done", "finish_reason": "length", "usage": None, "tokens_per_second": 0}, {"type": "closed"}],
         "complete"),
    ],
)  # fmt: skip
def test_how_an_answer_ends(client: Page, events: list[dict[str, Any]], status: str) -> None:
    assert grow(client, *events)["status"] == status


def test_a_stored_answer_has_every_field_even_when_the_server_left_it_null(client: Page) -> None:
    stored = {
        "id": "m2",
        "parent_id": "m1",
        "role": "assistant",
        "text": "Hi",
        "status": "complete",
        "usage": None,
        "passages": None,
        "memories_saved": None,
        "route": None,
    }
    message = run(client, "turn", "return m.fromStored(a)", stored)
    assert (message["passages"], message["memories_saved"], message["searched"]) == ([], [], False)
    found = run(client, "turn", "return m.fromStored(a)", stored | {"folders": ["support"]})
    assert found["searched"] is True


def test_the_speed_of_a_stored_answer_comes_from_its_usage(client: Page) -> None:
    usage = {"completion_tokens": 31, "total_s": 3.5, "ttft_s": 0.5}
    assert run(client, "turn", "return m.fromStored({id: 'x', usage: a}).speed", usage) == 10


# ── overlapping fetches ──────────────────────────────────────────────────────────────────────────

OVERLAP = """
const answers = [];
const delivered = [];
const load = m.latestOnly(
  () => new Promise((resolve, reject) => answers.push({ resolve, reject })),
  (found, error) => delivered.push(found ?? error.message),
);
const ended = [];
const first = load().then(() => ended.push('first'));
const second = load().then(() => ended.push('second'));
"""


def test_of_overlapping_fetches_only_the_latest_counts_whichever_comes_first(client: Page) -> None:
    late = "answers[1].resolve('new'); await second; answers[0].resolve('old'); await first; return [delivered, ended]"
    assert run(client, "latestOnly", OVERLAP + late) == [["new"], ["second", "first"]]
    failed = "answers[0].reject(Error('old')); answers[1].resolve('new'); await first; await second; return delivered"
    assert run(client, "latestOnly", OVERLAP + failed) == ["new"]


def test_an_overtaken_fetch_ends_with_the_newer_one(client: Page) -> None:
    body = """
      answers[0].resolve('old');
      await new Promise((done) => setTimeout(done, 20));
      const early = [...ended];
      answers[1].reject(Error('broken'));
      await Promise.all([first, second]);
      return [early, delivered, ended.length];"""
    assert run(client, "latestOnly", OVERLAP + body) == [[], ["broken"], 2]


# ── small things ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("count", "shown"), [(0, "0 B"), (999, "999 B"), (2310, "2.3 KB"), (9_700_000, "9.7 MB")])
def test_sizes(client: Page, count: int, shown: str) -> None:
    assert run(client, "format", "return m.bytes(a)", count) == shown


def test_chats_are_grouped_by_day(client: Page) -> None:
    body = """
      const now = new Date(2026, 4, 20, 9);
      const at = (day, hour) => ({ when: new Date(2026, 4, day, hour) / 1000 });
      const items = [at(20, 1), at(19, 23), at(19, 1), at(14, 5), at(1, 1), at(-60, 1)];
      return m.groupByDay(items, (item) => item.when, now).map((group) => [group.label, group.items.length]);"""
    assert run(client, "format", body) == [
        ["Today", 1], ["Yesterday", 2], ["Last 7 days", 1], ["Last 30 days", 1], ["Older", 1]
    ]  # fmt: skip


def test_strings_are_filled_and_follow_the_chosen_language(client: Page) -> None:
    body = "m.setLang(a); const s = m.t('usage.tokens', {n: 3}); m.setLang(''); return s"
    assert run(client, "i18n", body, "en") == "3 tokens"
    assert run(client, "i18n", body, "ko") == "3토큰"
    assert run(client, "i18n", "return m.t('used.chip', {n: 1})") == "1 memory used"


@pytest.mark.parametrize(
    ("name", "fine"),
    [("contracts", True), ("계약서", True), ("a/b", False), ("..", False), ("", False), ("a\\b", False)],
)
def test_folder_names(client: Page, name: str, fine: bool) -> None:
    assert (run(client, "knowledge", "return m.folderProblem(a)", name) == "") is fine
