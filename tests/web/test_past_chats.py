"""Past chats: searched for what was said, made temporary, and deleted with what was remembered from them."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.web.backend import Backend
from tests.web.memory_backend import memory
from tests.web.steps import expect_connected, open_client, send_message, wait_until

pytestmark = pytest.mark.browser


# ── search ───────────────────────────────────────────────────────────────────────────────────────


def store_chats(backend: Backend) -> None:
    backend.store_chat(
        "lamps",
        {"id": "q", "role": "user", "text": "Which lamp for the hall? " * 30 + "The brass one, <b>perhaps</b>?"},
        {"id": "a", "role": "assistant", "text": "The brass lamp gives more light.", "parent_id": "q"},
        title="Hall",
    )
    backend.store_chat("brass", {"id": "b", "role": "user", "text": "Something else"}, title="Brass polish")


def test_what_was_said_is_found_and_opened_at_its_message(page: Page, backend: Backend) -> None:
    store_chats(backend)
    open_client(page)
    page.get_by_role("searchbox", name="Search chats").fill("brass")
    found = page.get_by_role("region", name="In messages").get_by_role("listitem")
    expect(found).to_have_count(2)
    expect(page.locator(".chat-row")).to_have_text(["Brass polish"])  # by its title
    expect(found.nth(0)).to_contain_text("You:")
    expect(found.nth(0)).to_contain_text("The brass one, <b>perhaps</b>?")
    expect(found.nth(0).locator("mark")).to_have_text("brass")
    expect(found.nth(1)).to_contain_text("Answer: The brass lamp gives more light.")
    found.nth(1).get_by_role("link").click()
    expect(page).to_have_url(re.compile(r"#/c/lamps/a$"))
    expect(page.locator(".pointed")).to_contain_text("The brass lamp gives more light.")
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("New chat")


def test_the_search_is_driven_by_keys(page: Page, backend: Backend) -> None:
    store_chats(backend)
    open_client(page)
    field = page.get_by_role("searchbox", name="Search chats")
    field.fill("more light")
    expect(page.locator(".turn")).to_have_count(1)
    field.press("ArrowDown")
    expect(page.locator(".turn")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(field).to_be_focused()
    field.press("Escape")
    expect(field).to_have_value("")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator(".chat-row")).to_have_count(2)


def test_a_search_that_finds_nothing_or_fails_says_so(page: Page, backend: Backend) -> None:
    store_chats(backend)
    open_client(page)
    field = page.get_by_role("searchbox", name="Search chats")
    field.fill("zebra")
    expect(page.get_by_text("No chat has these words.")).to_be_visible()
    field.fill("Brass polish")
    expect(page.get_by_text("No message has these words.")).to_be_visible()
    backend.failing_paths["/api/conversations/search"] = 500
    field.fill("lamp")
    expect(page.get_by_role("alert")).to_contain_text("the disk is full")
    backend.failing_paths.clear()
    page.get_by_role("navigation").get_by_role("button", name="Retry").click()
    expect(page.locator(".turn")).to_have_count(2)


@pytest.mark.parametrize(
    ("text", "query", "marked"),
    [
        ("The Brass lamp, brass again", "brass LAMP", ["Brass", "lamp", "brass"]),
        ("지난주에 황동 램프를 샀어요", "황동 램프", ["황동", "램프"]),
        ("🪔🪔 costs 5 (five) $", "(five) $", ["(five)"]),
        ("nothing of it", "else", []),
        ("x", "", []),
    ],
)
def test_the_words_looked_for_are_marked(page: Page, text: str, query: str, marked: list[str]) -> None:
    page.goto("/")
    look = "async ([text, query]) => (await import('/static/js/search.js')).snippet(text, query)"
    pieces = page.evaluate(look, [text, query])
    assert "".join(piece["text"] for piece in pieces) == text
    assert [piece["text"] for piece in pieces if piece["marked"]] == marked


def test_a_snippet_of_a_long_text_begins_near_the_word(page: Page) -> None:
    page.goto("/")
    look = "async ([text, query]) => (await import('/static/js/search.js')).snippet(text, query)"
    pieces = page.evaluate(look, ["one two " * 200 + "needle " + "three four " * 200, "needle"])
    whole = "".join(piece["text"] for piece in pieces)
    assert whole.startswith("… ")
    assert whole.endswith("…")
    assert whole.index("needle") < 60
    assert len(whole) < 200


# ── temporary chats ──────────────────────────────────────────────────────────────────────────────


def test_a_temporary_chat_is_chosen_before_anything_is_said_and_marked(page: Page, backend: Backend) -> None:
    open_client(page)
    switch = page.get_by_role("button", name="Temporary chat")
    switch.press("Enter")
    expect(switch).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("textbox", name="Message")).to_be_focused()
    expect(page.locator(".composer")).to_contain_text("Nothing said here is remembered")
    backend.script("Of course.")
    send_message(page, "A secret plan")
    expect(page.locator("article.answer")).to_contain_text("Of course.")
    assert backend.frames[0]["temporary"] is True
    mark = page.locator(".header").get_by_text("Temporary", exact=True)
    expect(mark).to_be_visible()
    expect(page.locator(".composer.temporary")).to_contain_text("Temporary chat.")
    expect(page.get_by_role("link", name="Temporary chat: A secret plan")).to_be_visible()
    page.reload()
    expect_connected(page)
    expect(mark).to_be_visible()
    send_message(page, "And on")
    wait_until(page, lambda: len(backend.frames) == 2, "the second message was sent")
    assert "temporary" not in backend.frames[1]  # a chat is temporary from its first message on
    page.get_by_role("button", name="New chat").click()
    expect(switch).to_have_attribute("aria-pressed", "false")  # the next one is an ordinary one
    expect(page.locator(".composer.temporary")).to_have_count(0)


def test_a_temporary_chat_that_is_refused_is_temporary_when_it_is_tried_again(page: Page, backend: Backend) -> None:
    backend.refuse_next = ("busy", "too many are waiting")
    open_client(page)
    page.get_by_role("button", name="Temporary chat").click()
    send_message(page, "A secret plan")
    expect(page.get_by_role("alert")).to_contain_text("too many are waiting")
    page.get_by_role("main").get_by_role("button", name="Retry").click()
    expect(page.locator("article.answer")).to_be_visible()
    assert [frame["temporary"] for frame in backend.frames] == [True, True]


# ── deleting ─────────────────────────────────────────────────────────────────────────────────────


def open_delete_dialog(page: Page, title: str) -> None:
    open_client(page)
    page.get_by_role("link", name=title).hover()
    page.get_by_role("button", name=f"Menu of “{title}”").click()
    page.get_by_role("menuitem", name="Delete").click()


def test_deleting_a_chat_offers_to_forget_what_came_from_it(page: Page, backend: Backend) -> None:
    backend.store_chat("one", {"id": "q", "role": "user", "text": "First"}, title="First")
    backend.memories = [
        memory(1, "Has two cats.", conversation_id="one"),
        memory(2, "Lives in Busan.", conversation_id="one"),
        memory(3, "Likes tea.", conversation_id="other"),
    ]
    open_delete_dialog(page, "First")
    dialog = page.get_by_role("alertdialog", name="Delete this chat?")
    expect(dialog).to_contain_text("It left 2 memories")
    expect(dialog.get_by_role("checkbox")).to_have_count(3)
    expect(dialog).not_to_contain_text("Likes tea.")
    dialog.get_by_role("checkbox", name="Has two cats.").check()
    dialog.get_by_role("button", name="Delete and forget 1").click()
    expect(page.get_by_text("Chat deleted, 1 memory forgotten.")).to_be_visible()
    assert [item["id"] for item in backend.memories] == [2, 3]
    assert not backend.conversations


@pytest.mark.parametrize("all_of_them", [True, False])
def test_all_of_them_at_once_or_none(page: Page, backend: Backend, all_of_them: bool) -> None:
    backend.store_chat("one", {"id": "q", "role": "user", "text": "First"}, title="First")
    backend.memories = [memory(n, f"Fact {n}.", conversation_id="one") for n in (1, 2)]
    open_delete_dialog(page, "First")
    dialog = page.get_by_role("alertdialog")
    every = dialog.get_by_role("checkbox", name="All of them")
    every.check()
    expect(dialog.get_by_role("button", name="Delete and forget 2")).to_be_visible()
    if not all_of_them:
        every.uncheck()
    dialog.get_by_role("button", name="Delete", exact=not all_of_them).click()
    expect(page.get_by_text("Chat deleted")).to_be_visible()
    assert len(backend.memories) == (0 if all_of_them else 2)


def test_when_a_memory_cannot_be_forgotten_the_chat_stays(page: Page, backend: Backend) -> None:
    backend.store_chat("one", {"id": "q", "role": "user", "text": "First"}, title="First")
    backend.memories = [memory(n, text, conversation_id="one") for n, text in ((1, "Has two cats."), (2, "Has a dog."))]
    open_delete_dialog(page, "First")
    dialog = page.get_by_role("alertdialog")
    dialog.get_by_role("checkbox", name="Has two cats.").check()
    backend.failing_paths["/api/memories/1"] = 500
    dialog.get_by_role("button", name="Delete and forget 1").click()
    expect(dialog.get_by_role("alert")).to_contain_text("the disk is full")
    assert "one" in backend.conversations
    backend.failing_paths.clear()
    dialog.get_by_role("button", name="Delete and forget 1").click()
    expect(page.get_by_text("Chat deleted, 1 memory forgotten.")).to_be_visible()
