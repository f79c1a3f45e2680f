"""Chatting: what is sent, what is shown, and what survives a broken connection."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import Page, expect

from tests.web.backend import PASSAGE, ROUTE, SECTIONS, USAGE, Backend
from tests.web.memory_backend import memory
from tests.web.steps import open_client, resting_scroll_top, send_message, wait_until

pytestmark = pytest.mark.browser

EVIDENCE = {
    "type": "evidence",
    "searched": True,
    "passages": [{"n": 1, "place": "lines 3-9", "passage": PASSAGE}],
    "folders": ["support"],
    "generation": 3,
    "dropped": 0,
}
PROMPT = {
    "type": "prompt",
    "sections": [{"name": section["name"], "tokens": section["tokens"]} for section in SECTIONS],
    "tokens": 238,
    "context_length": 8192,
    "trimmed_turns": 0,
    "trimmed_evidence": 0,
    "adapter": "grounded",
}


def answers(page: Page):  # type: ignore[no-untyped-def]
    return page.locator("article.answer")


def sent(backend: Backend, kind: str = "send") -> list[dict]:  # type: ignore[type-arg]
    return [frame for frame in backend.frames if frame["type"] == kind]


def test_a_first_message_begins_a_chat_with_its_own_address_and_title(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.script("Good", " day")
    send_message(page, "Hello you")
    expect(answers(page)).to_contain_text("Good day")
    expect(page).to_have_url(re.compile(r"#/c/c\d+$"))
    expect(page).to_have_title("Hello you · Tailor")
    expect(page.get_by_role("link", name="Hello you")).to_have_attribute("aria-current", "page")
    assert "conversation_id" not in sent(backend)[0]
    send_message(page, "And again")
    expect(answers(page)).to_have_count(2)
    second = sent(backend)[1]
    assert second["conversation_id"].startswith("c")
    assert second["parent_id"] == backend.messages[second["conversation_id"]][1]["id"]


def test_a_reload_and_the_back_button_find_the_chats_again(page: Page, backend: Backend) -> None:
    backend.store_chat("one", {"id": "q", "role": "user", "text": "First"}, title="First")
    backend.store_chat("two", {"id": "r", "role": "user", "text": "Second"}, title="Second")
    open_client(page)
    page.get_by_role("link", name="First").click()
    page.get_by_role("link", name="Second").click()
    expect(page.locator(".bubble")).to_have_text("Second")
    page.reload()
    expect(page.locator(".bubble")).to_have_text("Second")
    page.go_back()
    expect(page.locator(".bubble")).to_have_text("First")


def test_a_chat_that_is_not_there_says_so_and_can_be_tried_again(page: Page, backend: Backend) -> None:
    open_client(page, "/#/c/nowhere")
    expect(page.get_by_role("alert")).to_contain_text("there is no conversation 'nowhere'")
    backend.store_chat("nowhere", {"id": "q", "role": "user", "text": "Found"})
    page.get_by_role("main").get_by_role("button", name="Retry").click()
    expect(page.locator(".bubble")).to_have_text("Found")


def test_markdown_streams_and_done_blocks_keep_their_nodes(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.pause_before = "HOLD"
    backend.script("First *par", "agraph*.\n\n", "Second", " HOLD", " end")
    send_message(page, "go")
    expect(page.locator(".block em")).to_have_text("paragraph")
    expect(page.locator(".block").nth(1)).to_contain_text("Second")
    page.evaluate("document.querySelector('.block em').mine = true")
    assert page.locator("article.answer").get_attribute("aria-busy") == "true"
    backend.pause_before = None
    expect(page.locator(".block").nth(1)).to_contain_text("Second HOLD end")
    assert page.evaluate("document.querySelector('.block em').mine") is True


def test_enter_sends_and_shift_enter_makes_a_line(page: Page, backend: Backend) -> None:
    open_client(page)
    field = page.get_by_role("textbox", name="Message")
    field.type("one")
    field.press("Shift+Enter")
    field.type("two")
    expect(field).to_have_value("one\ntwo")
    assert not sent(backend)
    field.press("Enter")
    expect(answers(page)).to_have_count(1)
    assert sent(backend)[0]["text"] == "one\ntwo"
    expect(field).to_have_value("")


def test_enter_that_ends_a_korean_syllable_does_not_send(page: Page, backend: Backend) -> None:
    open_client(page)
    field = page.get_by_role("textbox", name="Message")
    field.focus()
    session = page.context.new_cdp_session(page)
    session.send("Input.imeSetComposition", {"text": "안녕", "selectionStart": 2, "selectionEnd": 2})
    expect(field).to_have_value("안녕")
    press = """(how) => document.activeElement.dispatchEvent(
      new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true, ...how }))"""
    assert page.evaluate(press, {"isComposing": True}) is True  # Chrome and Firefox
    assert page.evaluate(press, {"keyCode": 229}) is True  # Safari
    assert not sent(backend)
    session.send("Input.insertText", {"text": "안녕"})
    field.press("Enter")
    expect(answers(page)).to_have_count(1)
    assert sent(backend)[0]["text"] == "안녕"


def test_nothing_empty_or_too_large_is_sent(page: Page, backend: Backend) -> None:
    open_client(page)
    field = page.get_by_role("textbox", name="Message")
    field.fill("   ")
    field.press("Enter")
    page.evaluate("document.querySelector('.composer textarea').value = '가'.repeat(90000)")
    field.dispatch_event("input")
    expect(page.locator(".composer-note")).to_contain_text("at most 262,144")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    field.press("Enter")
    assert not sent(backend)


def test_drafts_are_kept_for_each_chat_and_over_a_reload(page: Page, backend: Backend) -> None:
    backend.store_chat("one", {"id": "q", "role": "user", "text": "First"}, title="First")
    open_client(page)
    field = page.get_by_role("textbox", name="Message")
    field.fill("for a new chat")
    page.get_by_role("link", name="First").click()
    expect(page.locator(".bubble")).to_have_text("First")
    expect(field).to_have_value("")
    field.fill("for the first")
    page.reload()
    expect(field).to_have_value("for the first")
    page.get_by_role("button", name="New chat").click()
    expect(field).to_have_value("for a new chat")


def test_stop_keeps_what_was_written(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.pause_before = "never"
    backend.script("Some words", " never")
    send_message(page, "go")
    expect(answers(page)).to_contain_text("Some words")
    page.get_by_role("button", name="Stop").click()
    expect(answers(page)).to_contain_text("Stopped")
    expect(answers(page)).to_contain_text("Some words")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert sent(backend, "stop")[0]["message_id"] == "m3"


def test_regenerate_and_edit_make_versions_to_step_through(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.script("First answer")
    send_message(page, "Question one")
    expect(answers(page)).to_contain_text("First answer")
    backend.script("Second answer")
    page.get_by_role("button", name="Regenerate").click()
    expect(answers(page)).to_contain_text("Second answer")
    expect(page.locator(".answer .siblings")).to_have_text("2/2")
    page.locator(".answer").get_by_role("button", name="Previous version").click()
    expect(answers(page)).to_contain_text("First answer")
    expect(page.locator(".answer .siblings")).to_have_text("1/2")

    page.locator("article.question").hover()
    page.get_by_role("button", name="Edit message").click()
    box = page.get_by_role("textbox", name="Edit message")
    box.fill("Question two")
    backend.script("Third answer")
    box.press("Enter")
    expect(answers(page)).to_contain_text("Third answer")
    expect(page.locator(".bubble")).to_have_text("Question two")
    assert sent(backend)[-1]["parent_id"] is None
    assert sent(backend)[-1]["conversation_id"] == "c1"
    page.locator(".question").get_by_role("button", name="Previous version").click()
    expect(page.locator(".bubble")).to_have_text("Question one")
    expect(answers(page)).to_contain_text("First answer")


def test_escape_leaves_an_edit_without_a_trace(page: Page, backend: Backend) -> None:
    backend.store_chat("one", {"id": "q", "role": "user", "text": "First"})
    open_client(page, "/#/c/one")
    page.locator("article.question").hover()
    page.get_by_role("button", name="Edit message").click()
    page.get_by_role("textbox", name="Edit message").fill("Other")
    page.keyboard.press("Escape")
    expect(page.locator(".bubble")).to_have_text("First")
    assert not sent(backend)


def test_an_answer_can_be_copied_as_it_was_written(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.script("**Bold** and `code`")
    send_message(page, "go")
    page.locator(".answer").get_by_role("button", name="Copy").click()
    expect(page.locator(".answer").get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "**Bold** and `code`"


def test_json_is_laid_out_to_be_read_and_copied_as_it_came(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.script('{"clause": "ends ```early```", ', '"risk": "high"}')
    send_message(page, "go")
    expect(page.locator(".code pre")).to_have_text('{\n  "clause": "ends ```early```",\n  "risk": "high"\n}')
    page.locator(".answer footer").get_by_role("button", name="Copy").click()
    expect(page.locator(".answer").get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == '{"clause": "ends ```early```", "risk": "high"}'


@pytest.mark.parametrize("text", ["[1]", "{not: json}", '{"a": 1} and more'])
def test_brackets_that_are_no_json_object_stay_text(page: Page, backend: Backend, text: str) -> None:
    open_client(page)
    backend.script(text)
    send_message(page, "go")
    expect(page.locator(".markdown")).to_have_text(text)
    expect(page.locator(".code")).to_have_count(0)


# ── what made an answer ──────────────────────────────────────────────────────────────────────────


def test_the_route_is_said_in_words_and_its_candidates_unfold(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.script("ok", before=[{"type": "route", "decision": ROUTE, "title": "Support FAQ"}, PROMPT])
    send_message(page, "go")
    line = page.locator(".route-button")
    expect(line).to_have_text("Support FAQfits best (0.71)")
    expect(page.locator(".route")).to_contain_text("grounded")
    line.click()
    expect(page.locator(".candidates")).to_contain_text("Is this indemnity clause risky?")
    expect(page.locator(".candidates .won")).to_contain_text("0.71")
    page.get_by_role("button", name="Keep this chat with Support FAQ").click()
    expect(page.get_by_role("button", name="Domain: Support FAQ")).to_be_visible()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("chosen", "your choice"),
        ("sticky", "goes on from the last message (0.12)"),
        ("fallback", "no other domain fits (best 0.71, needs 0.45)"),
    ],
)
def test_other_routes_in_words(page: Page, backend: Backend, how: str, words: str) -> None:
    open_client(page)
    decision = ROUTE | {"how": how, "score": 0.12, "domain": "general"}
    backend.script("ok", before=[{"type": "route", "decision": decision, "title": "General"}])
    send_message(page, "go")
    expect(page.locator(".route-button")).to_contain_text(words)


def test_a_notice_stands_above_its_answer_and_survives_a_reload(page: Page, backend: Backend) -> None:
    open_client(page)
    text = "adapter 'grounded' is made for another base model; the base answers alone"
    backend.script("ok", before=[{"type": "notice", "text": text, "without_adapter": True}])
    send_message(page, "go")
    expect(page.locator(".answer .notice")).to_have_text(text)
    page.reload()
    expect(page.locator(".answer .notice")).to_have_text(text)


def test_a_notice_about_something_else_leaves_the_adapter(page: Page, backend: Backend) -> None:
    open_client(page)
    route = {"type": "route", "decision": ROUTE, "title": "Support"}
    said = {"type": "notice", "text": "The model hardly speaks Greek."}
    backend.script("ok", before=[route, PROMPT, said], after=[{"type": "notice", "text": "it was not kept"}])
    send_message(page, "go")
    expect(page.locator(".answer .notice")).to_have_text("The model hardly speaks Greek. it was not kept")
    expect(page.locator(".answer .route")).to_contain_text("grounded")


def test_sources_open_from_their_chip_and_from_the_text(page: Page, backend: Backend) -> None:
    open_client(page)
    cited = {"type": "citations", "citations": [{"n": 1, "passage_id": "p1"}], "invalid": [4]}
    backend.script("45 days [1], see [4].", before=[EVIDENCE], after=[cited])
    send_message(page, "go")
    chip = page.locator("button.source")
    expect(chip).to_have_text("1refunds.md › Returns › Opened goods, lines 3-9")
    expect(page.locator(".sources")).to_contain_text("The answer cites [4], but there is no such source.")
    chip.click()
    dialog = page.get_by_role("dialog")
    for text in ("refunds.md", "support", "Returns › Opened goods", "lines 3-9", "refunded as store credit"):
        expect(dialog).to_contain_text(text)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.get_by_role("button", name="Open source 1").click()
    expect(dialog).to_contain_text("within 45 days of delivery")


def test_an_empty_search_is_said(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.script("I do not know.", before=[EVIDENCE | {"passages": [], "folders": ["support", "contracts"]}])
    send_message(page, "go")
    expect(page.locator(".searched")).to_have_text("Searched support, contracts, found nothing")
    nothing = dict.fromkeys(USAGE, 0)
    backend.script("I found nothing.", before=[EVIDENCE | {"passages": []}], usage=nothing)
    send_message(page, "and there?")
    refused = answers(page).nth(1)
    expect(refused).to_contain_text("from the search itself, without the model")
    expect(refused.get_by_role("button", name="What the model saw")).to_have_count(0)


def test_an_answer_that_does_not_speak_of_sources_shows_none_but_says_why(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.script("Hello!", before=[EVIDENCE | {"passages": [], "searched": False}])
    send_message(page, "hi")
    expect(answers(page).first).to_contain_text("Hello!")
    expect(page.locator(".searched")).to_have_count(0)
    expect(page.get_by_role("button", name="Why no sources?")).to_be_visible()


def test_used_memories_open_and_saved_ones_can_be_undone_and_edited(page: Page, backend: Backend) -> None:
    open_client(page)
    used = memory(1, "Likes brass", "preference", "I like brass")
    saved = [memory(7, "Has two cats", quote="remember that I have two cats"), memory(8, "Lives in Seoul")]
    backend.memories = [used]
    route = {"type": "route", "decision": ROUTE, "title": "F"}
    backend.script(
        "Noted.",
        before=[route, {"type": "memories", "memories": [used]}],
        after=[{"type": "memory_saved", "memories": saved}],
    )
    send_message(page, "remember that I have two cats")
    page.get_by_role("button", name="1 memory used").click()
    expect(page.get_by_role("dialog")).to_contain_text("Likes brass")
    page.keyboard.press("Escape")
    receipts = page.locator(".receipt")
    expect(receipts.nth(0)).to_contain_text("Saved: Has two cats — from")
    expect(receipts.nth(0)).to_contain_text("remember that I have two cats")
    receipts.nth(0).get_by_role("button", name="Undo").click()
    expect(receipts.nth(0)).to_have_text("Not remembered: Has two cats")
    assert [item["id"] for item in backend.memories] == [8, 1]
    receipts.nth(1).get_by_role("button", name="Edit").click()
    field = page.get_by_role("textbox", name="Edit memory")
    field.fill("Lives in Busan")
    field.press("Enter")
    expect(receipts.nth(1)).to_contain_text("Lives in Busan")
    assert backend.memories[0]["text"] == "Lives in Busan"


def test_reasoning_is_folded_and_apart_from_the_answer(page: Page, backend: Backend) -> None:
    open_client(page)
    thoughts = [{"type": "reasoning", "text": text} for text in ("Let me ", "think.")]
    backend.script("Forty-two.", before=thoughts)
    send_message(page, "go")
    expect(page.locator(".markdown")).to_have_text("Forty-two.")
    expect(page.locator(".reasoning-text")).not_to_be_visible()
    page.get_by_text("Reasoning").click()
    expect(page.locator(".reasoning-text")).to_have_text("Let me think.")


def test_the_place_in_the_queue_is_shown(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.pause_before = "later"
    backend.script("later", before=[{"type": "queued", "position": 3}])
    send_message(page, "go")
    expect(page.locator(".phase")).to_have_text("Waiting: number 3 in line")
    backend.pause_before = None
    expect(answers(page)).to_contain_text("later")


def test_what_the_model_saw(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.script("ok", before=[PROMPT | {"trimmed_turns": 6}])
    send_message(page, "go")
    expect(answers(page)).to_contain_text("Trimmed 6 turns to fit the context")
    expect(page.locator(".numbers")).to_contain_text("42 tokens · 15.2 tokens/s · first after 0.31 s")
    page.get_by_role("button", name="What the model saw", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("238 of 8,192 tokens (3%)")
    expect(dialog).to_contain_text("You answer customers of a lamp shop.")
    rows = dialog.locator(".parts tbody tr")
    expect(rows).to_have_count(5)
    counts = [int(text) for text in rows.locator("td:nth-child(2)").all_inner_texts()]
    assert sum(counts) == 238  # what the chat template adds is a row of its own
    widths = dialog.locator(".stack .part").evaluate_all("all => all.map((part) => part.offsetWidth)")
    assert widths[2] == max(widths)
    assert len(widths) == 5


@pytest.mark.parametrize(
    ("cached", "prompt", "share"), [(128, 238, "53%"), (1, 4000, "<1%"), (3999, 4000, "99%"), (40, 40, "100%")]
)
def test_how_much_of_the_prompt_was_cached(page: Page, backend: Backend, cached: int, prompt: int, share: str) -> None:
    open_client(page)
    backend.script("ok", usage=USAGE | {"cached_tokens": cached, "prompt_tokens": prompt})
    send_message(page, "go")
    reused = page.locator(".numbers .reused")
    expect(reused).to_have_text(f"{share} of the prompt cached")
    said = re.compile(f"^{cached:,} of the prompt's {prompt:,} tokens had been read before")
    expect(reused).to_have_attribute("title", said)
    page.reload()
    expect(reused).to_have_text(f"{share} of the prompt cached")


def test_a_prompt_that_was_read_whole_says_nothing_of_a_cache(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.script("ok", usage=USAGE | {"cached_tokens": 0})
    send_message(page, "go")
    expect(page.locator(".numbers")).to_have_text("42 tokens · 15.2 tokens/s · first after 0.31 s")


def test_the_context_meter_counts_prompt_and_answer(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.script("ok", before=[PROMPT | {"tokens": 4054}])
    send_message(page, "go")
    expect(page.locator(".context")).to_have_text("50%")
    expect(page.locator(".context")).to_have_attribute("aria-label", re.compile("4,096 of 8,192"))


# ── errors ───────────────────────────────────────────────────────────────────────────────────────


def test_a_refused_message_stays_with_its_reason_and_can_be_sent_again(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.refuse_next = ("busy", "256 requests are waiting; try again in a moment")
    send_message(page, "please")
    row = page.get_by_role("alert")
    expect(row).to_contain_text("256 requests are waiting")
    expect(page.locator(".bubble")).to_have_text("please")
    backend.script("Now it works")
    row.get_by_role("button", name="Retry").click()
    expect(answers(page)).to_contain_text("Now it works")
    expect(page.locator(".bubble")).to_have_count(1)


def test_a_refused_message_can_be_taken_back(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.refuse_next = ("invalid_input", "no")
    send_message(page, "my long text")
    page.get_by_role("button", name="Edit message").click()
    expect(page.get_by_role("textbox", name="Message")).to_have_value("my long text")
    expect(page.locator(".bubble")).to_have_count(0)


def test_a_failed_answer_says_why_and_retry_makes_another(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.script("Half", fail=("engine_down", "the model thread failed; it restarts"))
    send_message(page, "go")
    row = page.get_by_role("alert")
    expect(row).to_contain_text("the model thread failed")
    backend.script("Whole")
    row.get_by_role("button", name="Retry").click()
    expect(page.locator(".markdown")).to_have_text("Whole")
    assert sent(backend, "regenerate")[0]["message_id"] == "m3"
    expect(page.locator(".answer .siblings")).to_have_text("2/2")


def test_an_answer_that_was_refused_as_busy_can_be_tried_again(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.script(fail=("busy", "256 requests are waiting; try again in a moment"))
    send_message(page, "go")
    row = page.get_by_role("alert")
    expect(row).to_contain_text("The server was too busy to answer. 256 requests are waiting")
    backend.script("Now it works")
    row.get_by_role("button", name="Retry").click()
    expect(page.locator(".markdown")).to_have_text("Now it works")
    expect(page.locator(".banner")).to_have_count(0)  # busy is not down


def test_a_model_that_restarts_is_told_until_it_is_back(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.model_failure = "the model failed (RuntimeError: out of memory)"
    backend.script("Half", fail=("engine_down", "the model failed; try again"))
    send_message(page, "go")
    banner = page.locator(".banner")
    expect(banner).to_have_text("The model is restarting. You can ask again as soon as it is back.")
    row = page.get_by_role("alert")
    expect(row).to_contain_text("The model stopped before the answer was finished. the model failed; try again")
    asked = backend.calls.count("GET /health")
    wait_until(page, lambda: backend.calls.count("GET /health") > asked, "it does not go on asking by itself")
    expect(banner).to_be_visible()
    backend.model_failure = ""
    expect(banner).to_have_count(0)
    expect(page.locator(".toast")).to_contain_text("The model is back.")
    backend.script("Whole")
    row.get_by_role("button", name="Retry").click()
    expect(page.locator(".markdown")).to_have_text("Whole")


def test_a_page_that_opens_while_the_model_restarts_says_so(page: Page, backend: Backend) -> None:
    backend.model_failure = "the model failed"
    open_client(page)
    expect(page.locator(".banner")).to_contain_text("The model is restarting.")
    backend.model_failure = ""
    expect(page.locator(".banner")).to_have_count(0)


def test_a_refusal_by_a_model_that_is_down_is_told_too(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.model_failure = "the engine has been stopped"
    backend.refuse_next = ("engine_down", backend.model_failure)
    send_message(page, "go")
    expect(page.locator(".banner")).to_contain_text("The model is restarting.")
    expect(page.get_by_role("alert")).to_contain_text("The model stopped before the answer was finished.")


def test_a_model_that_is_well_again_at_once_needs_no_banner(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.script("Half", fail=("engine_down", "the model failed; try again"))
    with page.expect_response("**/health"):
        send_message(page, "go")
    expect(page.get_by_role("alert")).to_contain_text("the model failed")
    expect(page.locator(".banner, .toast")).to_have_count(0)


def test_a_failed_list_can_be_fetched_again(page: Page, backend: Backend) -> None:
    backend.store_chat("one", title="Here I am")
    backend.failing_paths["/api/conversations"] = 500
    open_client(page)
    row = page.get_by_role("navigation").get_by_role("alert")
    expect(row).to_contain_text("the disk is full")
    backend.failing_paths.clear()
    row.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("link", name="Here I am")).to_be_visible()


# ── connection ───────────────────────────────────────────────────────────────────────────────────


def test_an_answer_goes_on_where_the_connection_broke(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.pause_before = "HOLD"
    backend.script("one ", "two ", "HOLD ", "three ", "four")
    send_message(page, "go")
    expect(page.locator(".markdown")).to_have_text("one two")
    backend.drop_connections()
    backend.pause_before = None
    expect(page.locator(".markdown")).to_have_text("one two HOLD three four")
    assert sent(backend, "resume")[0]["after_seq"] == 3  # started, one, two


def test_a_reload_in_the_middle_of_an_answer_shows_it_all(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.pause_before = "HOLD"
    backend.script("one ", "two ", "HOLD ", "three", before=[EVIDENCE])
    send_message(page, "go")
    expect(page.locator(".markdown")).to_have_text("one two")
    page.reload()
    expect(page.locator(".markdown")).to_have_text("one two")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    backend.pause_before = None
    expect(page.locator(".markdown")).to_have_text("one two HOLD three")
    expect(page.locator("button.source")).to_have_count(1)


def test_an_answer_whose_events_are_gone_is_taken_from_the_store(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.pause_before = "HOLD"
    backend.script("one ", "HOLD ", "three")
    send_message(page, "go")
    expect(page.locator(".markdown")).to_have_text("one")
    backend.drop_connections(stay_down=True)
    backend.pause_before = None
    wait_until(page, lambda: backend.messages["c1"][1]["status"] == "complete", "the answer does not end")
    backend.events.clear()  # the server was restarted, or forgot
    backend.refuse_connections = False
    expect(page.locator(".markdown")).to_have_text("one HOLD three")
    expect(page.locator(".answer .numbers")).to_be_visible()


def test_a_lost_connection_is_shown_and_the_text_kept(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.drop_connections(stay_down=True)
    expect(page.locator(".banner")).to_contain_text("Connection lost")
    field = page.get_by_role("textbox", name="Message")
    field.fill("still here")
    field.press("Enter")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    expect(field).to_have_value("still here")
    backend.refuse_connections = False
    # at once, without waiting for the button to stand still: the page tries by itself, too, and then it is gone
    page.get_by_role("button", name="Try now").dispatch_event("click")
    expect(page.locator(".banner")).to_have_count(0)
    field.press("Enter")
    expect(answers(page)).to_have_count(1)


def test_an_edit_in_another_tab_appears(page: Page, backend: Backend) -> None:
    backend.store_chat("one", {"id": "q", "role": "user", "text": "First"}, title="First")
    open_client(page, "/#/c/one")
    expect(page.locator(".bubble")).to_have_text("First")
    answer = {"id": "a", "parent_id": "q", "role": "assistant", "text": "From elsewhere", "status": "complete"}
    backend.messages["one"].append(answer | {"created_at": 1})
    backend.conversations["one"] |= {"title": "Renamed", "updated_at": time.time() - 3600, "revision": 9}
    backend.announce("conversations")
    expect(answers(page)).to_contain_text("From elsewhere")
    expect(page).to_have_title("Renamed · Tailor")


# ── following the text ───────────────────────────────────────────────────────────────────────────


def test_the_view_follows_only_at_the_end(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.pause_before = "HOLD"
    lines = [f"Line {n}\n\n" for n in range(60)]
    backend.script(*lines, "HOLD\n\n", *lines)
    send_message(page, "go")
    expect(answers(page)).to_contain_text("Line 59")
    at_end = """() => {
      const box = document.querySelector('.scroller');
      return box.scrollHeight - box.scrollTop - box.clientHeight < 5;
    }"""
    page.wait_for_function(at_end)
    page.locator(".scroller").hover()
    page.mouse.wheel(0, -600)
    jump = page.get_by_role("button", name="Jump to latest")
    expect(jump).to_be_visible()
    before = resting_scroll_top(page, ".scroller")
    backend.pause_before = None
    expect(page.locator(".numbers")).to_be_attached()
    assert abs(resting_scroll_top(page, ".scroller") - before) < 3
    jump.click()
    page.wait_for_function(at_end)
    expect(jump).to_have_count(0)


# ── chat list and domains ────────────────────────────────────────────────────────────────────────


def test_rename_and_delete(page: Page, backend: Backend) -> None:
    backend.store_chat("one", {"id": "q", "role": "user", "text": "First"}, title="First")
    open_client(page, "/#/c/one")
    page.get_by_role("button", name="Menu of “First”").click()
    page.get_by_role("menuitem", name="Rename").click()
    field = page.get_by_role("textbox", name="Rename")
    field.fill("Better")
    field.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Better")
    assert backend.conversations["one"]["title"] == "Better"
    page.get_by_role("button", name="Menu of “Better”").click()
    page.get_by_role("menuitem", name="Delete").click()
    dialog = page.get_by_role("alertdialog")
    expect(dialog).to_contain_text("“Better”")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Your chats will appear here.")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_have_text("New chat")
    assert not backend.conversations


def test_many_chats_can_be_filtered(page: Page, backend: Backend) -> None:
    for n in range(14):
        backend.store_chat(f"c{n}", title=f"Chat number {n}", age=n * 90000)
    open_client(page)
    page.get_by_role("searchbox", name="Search chats").fill("number 1")
    expect(page.locator(".chat-row")).to_have_count(5)
    page.get_by_role("searchbox", name="Search chats").fill("nothing like it")
    expect(page.get_by_text("No chat has these words.")).to_be_visible()


def test_a_domain_is_chosen_for_a_new_chat_and_changed_in_an_old_one(page: Page, backend: Backend) -> None:
    open_client(page)
    page.get_by_role("button", name="Domain: Auto").click()
    option = page.get_by_role("menuitemradio", name="Support FAQ")
    expect(option).to_contain_text("Answers customers from the shop's own policies")
    expect(option).to_contain_text("grounded")
    option.click()
    send_message(page, "go")
    expect(answers(page)).to_have_count(1)
    assert sent(backend)[0]["domain"] == "support-faq"
    page.get_by_role("button", name="Domain: Support FAQ").click()
    page.get_by_role("menuitemradio", name="Auto").click()
    expect(page.get_by_role("button", name="Domain: Auto")).to_be_visible()
    wait_until(page, lambda: backend.conversations["c1"]["domain"] is None, "the choice is not stored")
    send_message(page, "more")
    expect(answers(page)).to_have_count(2)
    assert "domain" not in sent(backend)[1]
