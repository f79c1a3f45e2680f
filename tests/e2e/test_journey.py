"""A stranger's first hour, on the real models, in a real browser, against `tailor serve` as a process.

Chats, drops a file and gets its content cited, is remembered over a restart, and switches to a domain
with an adapter.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsers import TIMEOUT, chromium
from tests.conftest import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(1800)]

ANSWER_MS = 300_000


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, chat_model_dir: Path, embedder_dir: Path) -> Path:
    """The sample workspace as it is shipped, with the models that are already here."""
    folder = tmp_path_factory.mktemp("journey")
    for name in ("prompts", "knowledge", "adapters"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "data").mkdir()
    (folder / "data" / "models").symlink_to(chat_model_dir.parent)
    return folder


@contextmanager
def tailor_serve(workspace: Path) -> Iterator[str]:
    """The address that `tailor serve` prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "serve", "--workspace", str(workspace), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
    )
    assert process.stdout
    printed = ""
    try:
        for line in process.stdout:
            printed += line
            if found := re.search(r"Chat\s+(http://\S+)", line):
                yield found.group(1)
                return
        raise AssertionError(f"the server ended:\n{printed}")
    finally:
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(120) == 0
        finally:
            process.kill()
            process.stdout.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as held:
        yield held


@contextmanager
def visiting(browser: Browser, address: str) -> Iterator[Page]:
    """A page on the server; console errors fail the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    expect(page.get_by_role("textbox", name="Message", exact=True)).to_be_visible()
    yield page
    context.close()
    assert errors == []


def ask(page: Page, text: str) -> str:
    """Sends a message and gives the finished answer's text."""
    before = page.get_by_role("article", name="Answer").count()
    box = page.get_by_role("textbox", name="Message", exact=True)
    box.fill(text)
    expect(page.get_by_role("button", name="Send")).to_be_enabled()  # the connection stands
    box.press("Enter")
    answer = page.get_by_role("article", name="Answer").nth(before)
    expect(answer.get_by_text(re.compile(r"\d+ tokens"))).to_be_visible(timeout=ANSWER_MS)
    return answer.inner_text()


def choose_domain(page: Page, title: str) -> None:
    page.get_by_role("button", name=re.compile("^Domain: ")).click()
    page.get_by_role("menuitemradio", name=re.compile(title)).click()


def test_a_strangers_first_hour(workspace: Path, browser: Browser, tmp_path: Path) -> None:
    with tailor_serve(workspace) as address, visiting(browser, address) as page:
        # a question that the shipped files answer goes to the right domain by itself
        first = ask(page, "How do I reset my password?")
        assert "Support FAQ" in first
        assert "Forgotten password" in first
        assert "account.md" in first

        # a file that is dropped is answered from, cited, and its passage opens
        manual = tmp_path / "zephyr.md"
        manual.write_text("# Zephyr lamp\n\n## Battery\n\nThe battery of the Zephyr lamp lasts 17 hours.\n")
        page.get_by_role("button", name="Knowledge", exact=True).click()
        panel = page.get_by_role("complementary").filter(has_text="Files that answers are taken from")
        panel.get_by_label("Folder").select_option("support")
        panel.locator("input[type=file]").set_input_files(manual)
        row = panel.get_by_role("listitem").filter(has_text="zephyr.md")
        expect(row.filter(has_text="Indexed")).to_be_visible()
        page.keyboard.press("Escape")
        second = ask(page, "How long does the battery of the Zephyr lamp last?")
        assert "17" in second
        source = page.get_by_role("button", name=re.compile("zephyr.md")).last
        source.click()
        passage = page.get_by_role("dialog")
        expect(passage.get_by_text("lasts 17 hours")).to_be_visible()
        page.keyboard.press("Escape")

        # the exact prompt can be seen, by section
        page.get_by_role("button", name="What the model saw").last.click()
        prompt = page.get_by_role("dialog")
        prompt.locator("summary").filter(has_text="Sources").click()
        expect(prompt.get_by_text("lasts 17 hours").first).to_be_visible()
        page.keyboard.press("Escape")

        # what the user says of themself is kept, and shown
        page.get_by_role("button", name="New chat").first.click()
        ask(page, "My name is Mina and I live in Busan.")
        expect(page.get_by_text(re.compile("Saved:")).first).to_be_visible()

    with tailor_serve(workspace) as address, visiting(browser, address) as page:
        # … across a restart, in another chat
        page.get_by_role("button", name="New chat").first.click()
        assert "Mina" in ask(page, "What is my name?")
        expect(page.get_by_text(re.compile(r"\d memor(y|ies)")).first).to_be_visible()

        # a domain with an adapter of its own
        page.get_by_role("button", name="New chat").first.click()
        choose_domain(page, "Review sentiment")
        verdict = ask(page, "It broke after two days and nobody answered my letters. Avoid.")
        assert "negative" in verdict
        page.get_by_role("button", name="Adapters", exact=True).click()
        panel = page.get_by_role("complementary").filter(has_text="Small trained additions")
        expect(
            panel.get_by_role("listitem").filter(has_text="sentiment").get_by_text("Loaded", exact=True)
        ).to_be_visible()
        page.keyboard.press("Escape")

        # old chats are still there
        expect(page.get_by_role("link", name=re.compile("How do I reset my password"))).to_be_visible()
