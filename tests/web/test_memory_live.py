"""The client against the real server: what is said is kept, shown, changed, found again and let go of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsers import TIMEOUT
from tests.live import LiveServer, make_app, make_workspace, serving
from tests.web.steps import expect_connected, open_client, send_message, wait_until

pytestmark = pytest.mark.browser


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveServer]:
    with serving(make_app(make_workspace(tmp_path))) as server:
        yield server


@pytest.fixture
def page(browser: Browser, live: LiveServer) -> Iterator[Page]:
    context = browser.new_context(base_url=live.url, locale="en-US", viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    context.close()
    assert not problems, problems


def send_and_wait(page: Page, text: str) -> None:
    """Sends a message and waits for the end of its answer."""
    before = page.locator("article.answer[aria-busy=false]").count()
    send_message(page, text)
    expect(page.locator("article.answer[aria-busy=false]")).to_have_count(before + 1)


def memories(page: Page) -> list[str]:
    return [item["text"] for item in page.request.get("/api/memories").json()["memories"]]


def test_from_a_word_in_a_chat_to_its_time_line_and_back_to_the_chat(page: Page) -> None:
    open_client(page)
    send_and_wait(page, "I live in Busan.")
    expect(page.locator(".receipt")).to_contain_text("Saved: Lives in Busan. — from I live in Busan")
    send_and_wait(page, "I moved to Seoul.")
    expect(page.locator(".receipt").last).to_contain_text("Seoul")
    page.get_by_role("navigation").get_by_role("button", name="Memory").click()
    sheet = page.get_by_role("complementary", name="Memory")
    now = sheet.locator(".memory").filter(has_text="Seoul")
    expect(now).to_have_count(1)
    now.get_by_role("button", name="History").click()
    moments = now.get_by_role("list", name="History").get_by_role("listitem")
    expect(moments.first).to_contain_text("Lives in Busan.")
    expect(moments.last).to_contain_text("now")
    sheet.get_by_role("checkbox", name="Past ones too").check()
    expect(sheet.locator(".memory.past")).to_contain_text("Lives in Busan.")
    sheet.get_by_role("searchbox", name="Search memories").fill("busan")
    expect(sheet.locator(".memory")).to_have_count(1)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("article.question")).to_have_count(0)
    sheet.get_by_role("link", name="Show where you said it: Lives in Busan.").click()
    expect(page.locator(".pointed .bubble")).to_have_text("I live in Busan.")


def test_two_pages_edit_one_fact_and_see_each_other(page: Page, live: LiveServer) -> None:
    open_client(page)
    send_and_wait(page, "I live in Busan.")
    page.locator(".receipt").get_by_role("button", name="Edit").click()
    (saved,) = page.request.get("/api/memories").json()["memories"]
    page.request.patch(f"/api/memories/{saved['id']}", data={"text": "Lives in Daegu."})  # the other device
    field = page.get_by_role("textbox", name="Edit memory")
    field.fill("Lives in Jeju.")
    field.press("Enter")
    dialog = page.get_by_role("alertdialog", name="Changed in two places")
    expect(dialog).to_contain_text("Lives in Daegu.")
    dialog.get_by_role("radio", name="What you wrote").check()
    dialog.get_by_role("button", name="Keep this one").click()
    expect(page.locator(".receipt")).to_contain_text("Lives in Jeju.")
    assert memories(page) == ["Lives in Jeju."]
    page.get_by_role("navigation").get_by_role("button", name="Memory").click()
    sheet = page.get_by_role("complementary", name="Memory")
    expect(sheet.locator(".memory-text")).to_have_text("Lives in Jeju.")
    page.request.delete(f"/api/memories/{saved['id']}")
    expect(sheet.get_by_text("Nothing yet.")).to_be_visible()
    expect(page.locator(".receipt")).to_have_text("Not remembered: Lives in Busan.")


def test_memories_that_are_used_say_why_and_words_forget_them(page: Page) -> None:
    open_client(page)
    send_and_wait(page, "Please call me Mina.")
    page.get_by_role("button", name="New chat").click()
    send_and_wait(page, "Write a line about lamps.")
    page.get_by_role("button", name="1 memory used").click()
    expect(page.get_by_role("dialog")).to_contain_text("part of your profile")
    page.keyboard.press("Escape")
    send_and_wait(page, "What do you know about me?")
    expect(page.locator("article.answer").last).to_contain_text("Mina")
    send_and_wait(page, "Forget that I want to be called Mina.")
    expect(page.locator(".receipt").last).to_contain_text("Forgotten:")
    wait_until(page, lambda: memories(page) == [], "nothing is left")
    page.reload()
    expect_connected(page)
    expect(page.locator(".receipt").last).to_have_text("1 memory forgotten.")


def test_pause_export_and_erase(page: Page) -> None:
    open_client(page)
    send_and_wait(page, "I live in Busan.")
    page.get_by_role("navigation").get_by_role("button", name="Memory").click()
    sheet = page.get_by_role("complementary", name="Memory")
    sheet.get_by_role("button", name="Pause").click()
    expect(sheet.get_by_text("Memory is paused: nothing new is saved")).to_be_visible()
    send_and_wait(page, "I have a dog named Rex.")
    assert memories(page) == ["Lives in Busan."]
    with page.expect_download() as started:
        sheet.get_by_role("link", name="Export").click()
    assert "Lives in Busan." in json.dumps(json.loads(Path(started.value.path()).read_text(encoding="utf-8")))
    sheet.get_by_role("button", name="Erase all…").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Erase 1 memory").click()
    expect(sheet.get_by_text("Nothing yet.")).to_be_visible()
    assert memories(page) == []
    expect(page.locator(".receipt")).to_have_text("Not remembered: Lives in Busan.")


def test_a_temporary_chat_leaves_nothing_and_is_not_found(page: Page) -> None:
    open_client(page)
    page.get_by_role("button", name="Temporary chat").click()
    send_and_wait(page, "I live in Busan, near the whale statue.")
    expect(page.locator(".header").get_by_text("Temporary", exact=True)).to_be_visible()
    page.reload()
    expect_connected(page)
    expect(page.locator(".composer.temporary")).to_be_visible()
    page.get_by_role("button", name="New chat").click()
    send_and_wait(page, "Tell me of the whale museum.")
    field = page.get_by_role("searchbox", name="Search chats")
    field.fill("whale")
    expect(page.locator(".turn").first).to_be_visible()
    expect(page.locator(".turn", has_text="statue")).to_have_count(0)
    assert memories(page) == []


def test_what_was_said_is_found_opened_and_forgotten_with_its_chat(page: Page) -> None:
    open_client(page)
    send_and_wait(page, "I live in Busan, near the whale statue.")
    page.get_by_role("button", name="New chat").click()
    send_and_wait(page, "Good morning to you.")
    field = page.get_by_role("searchbox", name="Search chats")
    field.fill("whale statue")
    turn = page.locator(".turn", has_text="whale").first
    expect(turn).to_contain_text("You:")
    turn.click()
    expect(page).to_have_url(re.compile(r"#/c/\w+/\w+$"))
    expect(page.locator(".pointed .bubble")).to_have_text("I live in Busan, near the whale statue.")
    field.fill("")
    row = page.locator(".chat-row", has_text="I live in Busan")
    row.hover()
    row.get_by_role("button").click()
    page.get_by_role("menuitem", name="Delete").click()
    dialog = page.get_by_role("alertdialog", name="Delete this chat?")
    dialog.get_by_role("checkbox").check()
    dialog.get_by_role("button", name=re.compile("Delete and forget")).click()
    expect(page.locator(".chat-row")).to_have_count(1)
    assert memories(page) == []
