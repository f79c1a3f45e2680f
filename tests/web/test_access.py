"""For everybody: keyboard, screen readers, contrast, phones, languages; and the browser's own safeguards."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsers import TIMEOUT
from tests.web.backend import PASSAGE, ROUTE, SECTIONS, Backend
from tests.web.memory_backend import memory
from tests.web.steps import expect_connected, open_client, send_message, wait_until_settled

pytestmark = pytest.mark.browser

FULL = {
    "before": [
        {"type": "route", "decision": ROUTE, "title": "Support FAQ"},
        {"type": "memories", "memories": [memory(1, "Likes brass", quote="I like brass", why="profile")]},
        {"type": "evidence", "searched": True,
         "passages": [{"n": 1, "place": "", "passage": PASSAGE}], "folders": ["support"],
         "generation": 1, "dropped": 1},
        {"type": "prompt", "sections": [{"name": s["name"], "tokens": s["tokens"]} for s in SECTIONS], "tokens": 238,
         "context_length": 8192, "trimmed_turns": 2, "trimmed_evidence": 0, "adapter": "grounded"},
        {"type": "reasoning", "text": "Hm."},
    ],
    "after": [
        {"type": "citations", "citations": [{"n": 1, "passage_id": "p1"}], "invalid": [5]},
        {"type": "memory_saved", "memories": [memory(7, "Has two cats", quote="I have two cats")]},
        {"type": "memory_forgotten", "memories": [memory(8, "Likes tea")]},
        {"type": "memory_held_back", "items": [{"text": "4111 1111 1111 1111", "reason": "secret"}]},
    ],
}  # fmt: skip
ANSWER = """Within **45 days** [1], see [5].

- `code` and [a link](https://example.org)

```py
x = 1
```

| a |
|---|
| 1 |"""

Open = Callable[..., Page]


@pytest.fixture
def open_with(browser: Browser, served: tuple[Backend, str]) -> Iterator[Open]:
    """`open_with(locale="ko-KR", …)`: the client in a browser of those settings, at its first page."""
    contexts = []

    def open_page(**settings: object) -> Page:
        settings = {"viewport": {"width": 1280, "height": 800}, "locale": "en-US"} | settings
        context = browser.new_context(base_url=served[1], **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT)
        page.goto("/")
        page.wait_for_selector(".composer, .login")
        if page.locator(".composer").count():
            expect_connected(page)
        return page

    yield open_page
    for context in contexts:
        context.close()


def chat_with_everything(page: Page, backend: Backend) -> None:
    backend.memories = [memory(1, "Likes brass", quote="I like brass")]
    backend.dead_letters = [
        {"id": 1, "text": "A long story", "reason": "no JSON", "created_at": 1.0, "conversation_id": None}
    ]
    backend.script(ANSWER, **FULL)
    send_message(page, "A question")
    page.wait_for_selector(".receipt.offer")
    wait_until_settled(page)


def each_view(page: Page) -> Iterator[str]:
    """Walks through every panel and dialog of the page as it stands."""
    phone = page.viewport_size["width"] < 760
    yield "chat"
    page.locator(".route-button").click()
    page.locator(".candidates").wait_for()
    yield "candidates"
    for selector in (".source", ".why-sources", ".answer .chip >> nth=-1", ".answer footer button >> nth=-1"):
        page.locator(selector).first.click()
        page.locator("dialog").wait_for()
        wait_until_settled(page)
        yield selector
        page.keyboard.press("Escape")
        expect(page.locator("dialog")).to_have_count(0)
    page.locator(".composer .pill").click()
    page.locator(".popup").wait_for()
    yield "domains"
    page.keyboard.press("Escape")
    expect(page.locator(".popup")).to_have_count(0)
    if phone:
        page.locator(".header .icon-button").first.click()
    page.locator(".chat-row").first.hover()
    page.locator(".row-menu").first.click()
    page.get_by_role("menuitem").last.click()
    page.locator(".forget-too").wait_for()
    wait_until_settled(page)
    yield "deleting a chat"
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    if phone:
        page.keyboard.press("Escape")
    for index in range(5):
        if phone:
            page.locator(".header .icon-button").first.click()
        page.locator(".lever").nth(index).click()
        page.locator("dialog" if index == 4 else ".panel").wait_for()
        wait_until_settled(page)
        yield f"lever {index}"
        if index == 1:
            yield from each_view_of_the_index(page)
        if index == 2:
            yield from each_view_of_memory(page)
        page.keyboard.press("Escape")
        if phone and index == 4:
            page.keyboard.press("Escape")


def each_view_of_the_index(page: Page) -> Iterator[str]:
    """Its history, and the box for trying searches with what it finds."""
    page.locator(".history > summary").click()
    page.locator(".generation").first.wait_for()
    wait_until_settled(page)
    yield "history"
    page.locator(".panel-tools button").click()
    page.locator(".trial summary").click()
    page.locator(".trial input").first.fill("How long can I return a lamp?")
    page.locator(".trial button[type=submit]").click()
    page.locator(".found .trace").wait_for()
    wait_until_settled(page)
    yield "trial"
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)


def each_view_of_memory(page: Page) -> Iterator[str]:
    """A time line and the domains unfolded, and the box that asks before erasing."""
    page.locator(".memory [aria-expanded]").first.click()
    page.locator(".moment").first.wait_for()
    page.locator(".panel .section > summary").click()
    page.locator(".memory-domains").wait_for()
    wait_until_settled(page)
    yield "time line"
    page.locator(".memory [aria-expanded] + button").first.click()
    page.locator(".edit-memory").wait_for()
    yield "editing a memory"
    page.keyboard.press("Escape")
    page.locator(".memory-data button").click()
    page.locator("dialog").wait_for()
    wait_until_settled(page)
    yield "erasing"
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)


# ── the browser's safeguards ─────────────────────────────────────────────────────────────────────


def test_no_view_breaks_the_content_security_policy(page: Page, backend: Backend) -> None:
    page.add_init_script(
        """window.broken = [];
        addEventListener('securitypolicyviolation', (e) => broken.push(e.violatedDirective + ' ' + e.blockedURI))"""
    )
    open_client(page)
    chat_with_everything(page, backend)
    views = list(each_view(page))
    assert len(views) == 18
    assert page.evaluate("broken") == []


def test_the_policy_is_in_force(open_with: Open) -> None:
    page = open_with()
    script = """() => {
      const inline = document.createElement('script');
      inline.textContent = 'window.ran = 1';
      document.body.append(inline);
      return window.ran ?? null;
    }"""
    with page.expect_console_message(lambda message: "Content Security Policy" in message.text):
        assert page.evaluate(script) is None


def test_nothing_is_asked_of_another_host(page: Page, backend: Backend, served: tuple[Backend, str]) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_client(page)
    chat_with_everything(page, backend)
    list(each_view(page))
    assert len(asked) > 40
    assert [address for address in asked if not address.startswith((served[1], "data:"))] == []


# ── names, structure, contrast ───────────────────────────────────────────────────────────────────

UNNAMED = """
() => {
  const named = (e) => (e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.innerText || '').trim() ||
    document.getElementById(e.getAttribute('aria-labelledby') || '')?.innerText;
  const kinds = 'button, a[href], input, select, textarea, summary, dialog, aside, nav, main, [role=menu]';
  const shown = [...document.querySelectorAll(kinds)]
    .filter((e) => e.checkVisibility());
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  return [
    ...shown.filter((e) => !named(e)).map((e) => e.outerHTML.slice(0, 120)),
    ...ids.filter((id, at) => ids.indexOf(id) !== at),
    ...[...document.querySelectorAll('[aria-labelledby], [aria-describedby]')]
      .flatMap((e) => [e.getAttribute('aria-labelledby'), e.getAttribute('aria-describedby')])
      .filter((id) => id && !document.getElementById(id)),
  ];
}
"""


def test_every_control_has_a_name_in_every_view(page: Page, backend: Backend) -> None:
    open_client(page)
    assert page.evaluate(UNNAMED) == []
    chat_with_everything(page, backend)
    for view in each_view(page):
        assert page.evaluate(UNNAMED) == [], view


def test_landmarks_and_one_heading_of_the_first_level(page: Page, backend: Backend) -> None:
    page.goto("/")
    for role in ("main", "navigation"):
        expect(page.get_by_role(role)).to_have_count(1)  # type: ignore[arg-type]
    expect(page.get_by_role("heading", level=1)).to_have_count(1)


CONTRAST = """
() => {
  const pixel = Object.assign(document.createElement('canvas'), { width: 1, height: 1 });
  const canvas = pixel.getContext('2d', { willReadFrequently: true });
  const paint = (...colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const grounds = (e) => (e ? [...grounds(e.parentElement), getComputedStyle(e).backgroundColor] : ['#fff']);
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility({ opacityProperty: true })) continue;
    if (element.closest(':disabled, option, [inert]') || element.closest('.unseen, .skip')) continue;
    const behind = grounds(element);
    const pair = [light(paint(...behind)), light(paint(...behind, getComputedStyle(element).color))];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    const text = walker.currentNode.data.trim().slice(0, 40);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${text} (${element.className})`);
  }
  return poor;
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(open_with: Open, backend: Backend, scheme: str) -> None:
    backend.problems = [{"file": "prompts/x.md", "line": 2, "reason": "broken"}]
    backend.files["support"].append(backend.file("scan.pdf", "failed", "no PDF"))
    backend.files["support"].append(backend.file("late.pdf", "indexing"))
    page = open_with(color_scheme=scheme)
    wait_until_settled(page)
    assert page.evaluate(CONTRAST) == []
    chat_with_everything(page, backend)
    for view in each_view(page):
        wait_until_settled(page)
        assert page.evaluate(CONTRAST) == [], view


@pytest.mark.parametrize(("scheme", "locale"), [("light", "en-US"), ("dark", "ko-KR")])
def test_a_model_that_is_down_is_told_legibly(open_with: Open, backend: Backend, scheme: str, locale: str) -> None:
    page = open_with(color_scheme=scheme, locale=locale, viewport={"width": 390, "height": 844})
    backend.model_failure = "the model failed (RuntimeError: out of memory)"
    backend.script("Half", fail=("engine_down", f"{backend.model_failure}; try again"))
    send_message(page, "go")
    banner = page.locator(".banner")
    expect(banner).to_contain_text("The model is restarting" if locale == "en-US" else "모델이 다시 시작하는 중")
    expect(page.get_by_role("alert")).to_contain_text("The model stopped" if locale == "en-US" else "모델이 멈춰")
    wait_until_settled(page)
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(".header .icon-button").first.click()  # the banner covers nothing
    expect(page.locator(".sidebar")).to_be_visible()


def test_the_answer_is_announced_once_at_its_end(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.pause_before = "HOLD"
    backend.script("One **bold** ", "HOLD word")
    send_message(page, "go")
    expect(page.locator(".markdown")).to_have_text("One bold")
    live = page.locator(".unseen[aria-live=polite]")
    expect(live).to_be_empty()
    assert page.locator(".answer[aria-live], .scroller[aria-live], [role=log]").count() == 0
    backend.pause_before = None
    expect(live).to_have_text("Answer: One bold HOLD word")


# ── keyboard and focus ───────────────────────────────────────────────────────────────────────────


def test_a_dialog_keeps_the_focus_and_gives_it_back(page: Page, backend: Backend) -> None:
    open_client(page)
    chat_with_everything(page, backend)
    chip = page.locator(".source")
    chip.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    for key in ["Tab"] * 6 + ["Shift+Tab"] * 6:
        page.keyboard.press(key)
        assert page.evaluate("document.querySelector('dialog').contains(document.activeElement)"), key
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(chip).to_be_focused()


def test_a_click_beside_a_dialog_closes_it(page: Page, backend: Backend) -> None:
    page.goto("/")
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.mouse.click(5, 5)
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_panel_takes_the_focus_and_gives_it_back(page: Page, backend: Backend) -> None:
    page.goto("/")
    opener = page.get_by_role("navigation").get_by_role("button", name="Memory")
    opener.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Memory")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("complementary")).to_have_count(0)
    expect(opener).to_be_focused()


def test_a_menu_is_driven_by_arrows(page: Page, backend: Backend) -> None:
    page.goto("/")
    pill = page.get_by_role("button", name="Domain: Auto")
    pill.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitemradio", name=re.compile("^Auto"))).to_be_focused()
    expect(page.get_by_role("menuitemradio", name="Log parsing")).to_be_visible()  # the domains have come
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("menuitemradio", name="Support FAQ")).to_be_focused()
    page.keyboard.press("Escape")
    expect(pill).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitemradio", name=re.compile("^Auto"))).to_be_focused()
    page.keyboard.press("End")
    expect(page.get_by_role("menuitemradio", name="Log parsing")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Domain: Log parsing")).to_be_visible()


def test_a_click_on_its_button_closes_a_menu(page: Page, backend: Backend) -> None:
    page.goto("/")
    pill = page.locator(".composer .pill")
    for shown in (1, 0, 1, 0):
        pill.click()
        expect(page.locator(".popup")).to_have_count(shown)
    pill.click()
    expect(page.locator(".popup")).to_have_count(1)
    page.mouse.click(700, 60)
    expect(page.locator(".popup")).to_have_count(0)


def test_the_few_global_keys(page: Page, backend: Backend) -> None:
    backend.store_chat("one", {"id": "q", "role": "user", "text": "First"}, title="First")
    open_client(page, "/#/c/one")
    expect(page.locator(".bubble")).to_have_text("First")
    page.locator(".scroller").focus()
    page.keyboard.press("/")
    field = page.locator(".composer textarea")
    expect(field).to_be_focused()
    page.keyboard.type("a/b")
    expect(field).to_have_value("a/b")
    page.keyboard.press("Control+k")
    expect(page.get_by_role("heading", level=1)).to_have_text("New chat")
    expect(field).to_be_focused()
    backend.pause_before = "never"
    backend.script("words", "never")
    send_message(page, "go")
    expect(page.locator(".markdown")).to_have_text("words")
    page.keyboard.press("Control+.")
    expect(page.locator(".ending")).to_contain_text("Stopped")


def test_motion_is_off_for_those_who_ask(open_with: Open, backend: Backend) -> None:
    page = open_with(reduced_motion="reduce")
    backend.pause_before = "never"
    backend.script("never")
    send_message(page, "go")
    expect(page.locator(".dots").first).to_have_css("animation-name", "none")


# ── phone ────────────────────────────────────────────────────────────────────────────────────────

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SMALL = """
() => [...document.querySelectorAll('button, a[href], select, input:not([type=radio], [type=file]), summary')]
  .filter((e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true }))
  .filter((e) => !e.closest('[inert], .markdown, .skip, .reasoning'))
  .map((e) => [(e.closest('label') ?? e).getBoundingClientRect(), e.outerHTML.slice(0, 90)])
  .filter(([box]) => box.width > 0 && (box.height < 39.5 || box.width < 39.5))
  .map(([box, name]) => `${Math.round(box.width)}x${Math.round(box.height)} ${name}`)
"""


def test_on_a_phone_everything_fits_and_can_be_touched(open_with: Open, backend: Backend) -> None:
    page = open_with(**PHONE)
    wide = "document.documentElement.scrollWidth"
    _tap_chat(page, backend)
    for view in each_view(page):
        assert page.evaluate(wide) <= 390, view
        assert page.evaluate(SMALL) == [], view
    source = page.locator(".source").first
    source.locator("span").evaluate("element => { element.textContent = 'a long heading '.repeat(30); }")
    box = source.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 390
    size = page.locator(".composer textarea").evaluate("element => getComputedStyle(element).fontSize")
    assert float(size.removesuffix("px")) >= 16  # smaller makes phones zoom in


def _tap_chat(page: Page, backend: Backend) -> None:
    """Without a Shift key Enter is a new line; the button sends."""
    backend.memories = [memory(1, "Likes brass", quote="I like brass")]
    backend.script(ANSWER, **FULL)
    field = page.locator(".composer textarea")
    field.fill("A question")
    field.press("Enter")
    expect(field).to_have_value("A question\n")
    page.get_by_role("button", name="Send").tap()
    page.wait_for_selector(".receipt")


def test_the_list_is_a_drawer_that_holds_the_focus(open_with: Open, backend: Backend) -> None:
    backend.store_chat("one", {"id": "q", "role": "user", "text": "First"}, title="First")
    page = open_with(viewport={"width": 390, "height": 844})
    expect(page.locator(".sidebar")).not_to_be_visible()
    page.get_by_role("button", name="Open the list of chats").click()
    expect(page.get_by_role("link", name="First")).to_be_visible()
    expect(page.locator("main")).to_have_js_property("inert", True)
    page.keyboard.press("Escape")
    expect(page.locator(".sidebar")).not_to_be_visible()
    page.get_by_role("button", name="Open the list of chats").click()
    page.get_by_role("link", name="First").click()
    expect(page.locator(".bubble")).to_have_text("First")
    expect(page.locator(".sidebar")).not_to_be_visible()


def test_the_keyboard_of_a_phone_does_not_cover_the_composer(open_with: Open) -> None:
    page = open_with(viewport={"width": 390, "height": 844})
    page.evaluate(
        """() => {
          Object.defineProperty(visualViewport, 'height', { value: 420, configurable: true });
          visualViewport.dispatchEvent(new Event('resize'));
        }"""
    )
    page.wait_for_function("document.querySelector('.composer').getBoundingClientRect().bottom <= 420")


# ── language, theme, login ───────────────────────────────────────────────────────────────────────


def test_korean_for_a_korean_browser_and_by_choice(open_with: Open, backend: Backend) -> None:
    page = open_with(locale="ko-KR")
    expect(page.get_by_role("button", name="새 채팅")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "ko"
    chat_with_everything(page, backend)
    expect(page.locator(".route-button")).to_contain_text("가장 알맞음 (0.71)")
    expect(page.locator(".source")).to_contain_text("3-9행")
    page.get_by_role("button", name="설정").click()
    page.get_by_role("radio", name="English").check()
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="New chat")).to_be_visible()


def test_no_view_in_korean_shows_a_key_or_english_words(open_with: Open, backend: Backend) -> None:
    page = open_with(locale="ko-KR")
    chat_with_everything(page, backend)
    for view in each_view(page):
        text = page.locator("body").inner_text()
        assert not re.search(r"\b[a-z]+\.[a-z]+_[a-z_]+\b", text), view
        assert not re.search(r"\b(Settings|Memory|Knowledge|Retry|Close|Loaded|Indexed)\b", text), view


def test_the_theme_follows_the_system_until_one_is_chosen(open_with: Open) -> None:
    page = open_with(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("radio", name="Light").check()
    light = page.evaluate(ground)
    assert light != dark
    page.reload()
    page.wait_for_selector(".composer")
    assert page.evaluate(ground) == light


def test_login_is_asked_for_refused_and_granted(open_with: Open, backend: Backend) -> None:
    backend.password = "right"
    page = open_with()
    expect(page.get_by_role("heading", name="Log in to Tailor")).to_be_visible()
    assert page.evaluate(UNNAMED) == []
    page.get_by_label("Name").fill("mina")
    page.get_by_label("Password").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("Wrong name or password.")
    page.get_by_label("Password").fill("right")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator(".composer")).to_be_visible()


def test_a_session_that_ends_leads_to_the_login(open_with: Open, backend: Backend) -> None:
    backend.password, backend.logged_in = "right", True
    page = open_with()
    expect(page.locator(".composer")).to_be_visible()
    backend.logged_in = False
    page.get_by_role("navigation").get_by_role("button", name="Adapters").click()
    expect(page.get_by_role("heading", name="Log in to Tailor")).to_be_visible()


def test_a_server_that_is_not_well_can_be_tried_again(page: Page, backend: Backend) -> None:
    backend.failing_paths["/api/session"] = 503
    page.goto("/")
    expect(page.get_by_role("alert")).to_contain_text("the disk is full")
    backend.failing_paths.clear()
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".composer")).to_be_visible()
