"""The pages for accounts, in a browser, against the server itself."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import oidc_provider_mock
import pytest
from playwright.sync_api import Browser, Page, expect

from server.accounts import COMMAND_LINE, Action
from server.accounts.throttle import FREE_FAILURES
from tests.fakes import ScriptedEngine
from tests.live import LiveServer, make_app, make_workspace, serving
from tests.web.conftest import fresh_page
from tests.web.steps import send_message

pytestmark = pytest.mark.browser

PASSWORD = "correct horse battery"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveServer]:
    app = make_app(make_workspace(tmp_path), ScriptedEngine(adapters=["helper"]), flags={"server.password": PASSWORD})
    app.state.services.accounts.add("mina", "minas password")
    with serving(app) as served:
        yield served


@pytest.fixture
def page(browser: Browser, live: LiveServer) -> Iterator[Page]:
    with fresh_page(browser, live.url) as opened:
        opened.goto("/")
        yield opened


def log_in(page: Page, name: str = "mina", password: str = "minas password") -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def open_panel(page: Page, name: str) -> None:
    page.locator(".levers").get_by_role("button", name=name).click()
    expect(page.locator(".panel h2")).to_have_text(name)


def test_too_many_failures_are_told_in_words(page: Page) -> None:
    for _ in range(FREE_FAILURES):
        log_in(page, password="a wrong one")
        expect(page.get_by_role("alert")).to_have_text("Wrong name or password.")
        expect(page.get_by_role("button", name="Log in")).to_be_enabled()
    log_in(page, password="a wrong one")
    expect(page.get_by_role("alert")).to_contain_text(re.compile(r"Too many failed logins. Try again in \d second"))


def test_ones_own_account(page: Page, live: LiveServer, tmp_path: Path) -> None:
    elsewhere = httpx.Client(base_url=live.url, timeout=60, headers={"user-agent": "curl/8.0"})
    elsewhere.post("/api/login", json={"name": "mina", "password": "minas password"})
    log_in(page)
    open_panel(page, "Account")
    expect(page.locator(".openings").first).to_contain_text("curl")
    page.get_by_role("button", name="Log out curl").click()
    expect(page.get_by_role("button", name="Log out curl")).to_have_count(0)
    assert elsewhere.get("/api/account").status_code == 401
    elsewhere.close()
    page.get_by_label("What is the key for?").fill("backup")
    page.get_by_role("button", name="Make a key").click()
    secret = page.locator(".new-key code").inner_text()
    headers = {"Authorization": f"Bearer {secret}"}
    assert httpx.get(f"{live.url}/api/account", headers=headers, timeout=60).status_code == 200
    page.get_by_role("button", name="Revoke backup").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Revoke").click()
    expect(page.locator(".panel")).to_contain_text("No keys yet.")
    assert httpx.get(f"{live.url}/api/account", headers=headers, timeout=60).status_code == 401
    with page.expect_download() as download:
        page.get_by_role("link", name="Download everything").click()
    download.value.save_as(tmp_path / "mine.zip")
    assert "account.json" in zipfile.ZipFile(tmp_path / "mine.zip").namelist()


def test_a_new_password(page: Page, live: LiveServer) -> None:
    log_in(page)
    open_panel(page, "Account")
    page.get_by_text("Change password").first.click()
    fields = {"Your password": "a wrong one", "New password (8": "a new password", "New password again": "another one"}
    for label, value in fields.items():
        page.get_by_label(label).fill(value)
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_role("alert")).to_have_text("The two new passwords differ.")
    page.get_by_label("New password again").fill("a new password")
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_role("alert")).to_have_text("That is not your password.")
    page.get_by_label("Your password").fill("minas password")
    page.get_by_role("button", name="Change password").click()
    expect(page.locator(".toast")).to_contain_text("Password changed.")
    live.app.state.services.accounts.login("mina", "a new password")


def test_erasing_ones_account_leads_to_the_login(page: Page, live: LiveServer) -> None:
    log_in(page)
    open_panel(page, "Account")
    page.get_by_role("button", name="Erase my account").click()
    box = page.get_by_role("alertdialog")
    box.get_by_label("Your password").fill("a wrong one")
    box.get_by_role("button", name="Erase my account").click()
    expect(box.get_by_role("alert")).to_have_text("That is not your password.")
    box.get_by_label("Your password").fill("minas password")
    box.get_by_role("button", name="Erase my account").click()
    expect(page.get_by_role("heading", name="Log in to Tailor")).to_be_visible()
    assert [account.name for account in live.app.state.services.accounts.list()] == ["admin"]


def test_an_administrator_manages_people(page: Page, live: LiveServer) -> None:
    services = live.app.state.services
    log_in(page, "admin", PASSWORD)
    open_panel(page, "People")
    page.get_by_role("button", name="Add an account").click()
    box = page.get_by_role("dialog")
    box.get_by_label("Name").fill("jun")
    box.get_by_label("First password").fill("juns password")
    box.get_by_label("curator").check()
    box.get_by_role("button", name="Add an account").click()
    expect(page.locator(".person")).to_have_count(3)
    assert services.accounts.login("jun", "juns password").account.roles == {"user", "curator"}
    page.get_by_role("button", name="Change jun").click()
    box.get_by_label("trainer").check()
    box.get_by_role("button", name="Save roles").click()
    expect(page.locator(".person", has_text="jun")).to_contain_text("trainer")
    page.get_by_role("radio", name="Groups").check()
    page.get_by_label("Name of a new group").fill("sales")
    page.get_by_role("button", name="Add group").click()
    page.get_by_label("Put somebody into sales").select_option("jun")
    expect(page.locator(".tag.member")).to_contain_text("jun")
    assert services.groups.list()[0].members == ("jun",)
    page.get_by_role("radio", name="Accounts").check()
    page.get_by_role("button", name="Remove jun").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Remove").click()
    expect(page.locator(".person")).to_have_count(2)
    page.get_by_role("radio", name="Log").check()
    expect(page.locator(".audit li").first).to_contain_text("admin removed the account jun")
    expect(page.locator(".audit")).to_contain_text("admin logged in")


def test_the_log_says_what_was_done_on_the_command_line(page: Page, live: LiveServer) -> None:
    live.app.state.services.audit.record(Action.USER_ADDED, None, "yuna", address=COMMAND_LINE)
    log_in(page, "admin", PASSWORD)
    open_panel(page, "People")
    page.get_by_role("radio", name="Log").check()
    row = page.locator(".audit li", has_text="yuna")
    expect(row.locator("p")).to_have_text("The command line added the account yuna")
    expect(row.locator("small")).not_to_contain_text("command line")


def test_who_may_not_manage_sees_no_page_for_it(page: Page) -> None:
    log_in(page)
    expect(page.locator(".levers").get_by_role("button", name="Account")).to_be_visible()
    expect(page.locator(".levers").get_by_role("button", name="People")).to_have_count(0)


def test_a_session_that_is_ended_leads_to_the_login(page: Page, live: LiveServer) -> None:
    log_in(page)
    expect(page.locator(".composer")).to_be_visible()
    live.app.state.services.accounts.set_password("mina", "a new password")
    expect(page.get_by_role("heading", name="Log in to Tailor")).to_be_visible()


@pytest.mark.parametrize(("locale", "says"), [("en-US", "too quickly"), ("ko-KR", "너무 빨리")])
def test_a_limit_is_told_in_words(browser: Browser, tmp_path: Path, locale: str, says: str) -> None:
    app = make_app(make_workspace(tmp_path), flags={"limits.messages_per_minute": 1})
    with serving(app) as live:
        context = browser.new_context(base_url=live.url, locale=locale)
        page = context.new_page()
        page.goto("/")
        for text in ("First", "Second"):
            send_message(page, text)
            if text == "First":
                expect(page.locator(".answer")).to_contain_text("All right.")
        expect(page.get_by_role("alert")).to_contain_text(says)
        expect(page.get_by_role("alert")).to_contain_text(re.compile(r"\d"))
        context.close()


def test_logging_in_elsewhere_and_out_again(browser: Browser, tmp_path: Path) -> None:
    users = (oidc_provider_mock.User(sub="kim", claims={"preferred_username": "kim", "email": "kim@example.org"}),)
    with oidc_provider_mock.run_server_in_thread(user_claims=users) as provider:
        issuer = f"http://localhost:{provider.server_port}"  # another site than 127.0.0.1
        flags = {"oidc.issuer": issuer, "oidc.client_id": "tailor", "oidc.client_secret": "x", "oidc.label": "Example"}
        with serving(make_app(make_workspace(tmp_path), flags=flags)) as live, fresh_page(browser, live.url) as page:
            page.goto("/?login=unknown")
            expect(page.get_by_role("alert")).to_contain_text("You have no account here")
            page.get_by_role("link", name="Example").click()
            page.wait_for_url(f"{issuer}/**")
            page.locator("button", has_text="kim").first.click()
            expect(page.locator(".composer")).to_be_visible()  # the strict cookie has come along
            assert page.url.rstrip("/").startswith(live.url)
            open_panel(page, "Account")
            expect(page.locator(".who")).to_contain_text("kim")
            expect(page.get_by_text("Change password")).to_have_count(0)
            page.get_by_role("button", name="Settings").click()
            page.get_by_role("button", name="Log out kim").click()
            page.wait_for_url(f"{issuer}/oauth2/end_session**")
            page.goto("/")
            expect(page.get_by_role("heading", name="Log in to Tailor")).to_be_visible()
