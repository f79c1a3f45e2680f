"""The index in the knowledge panel: how far it is, its history, searches tried; and why an answer had its sources."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.web.backend import PASSAGE, TRACE, Backend, generation
from tests.web.steps import open_client, send_message, wait_until
from tests.web.test_panels import panel

pytestmark = pytest.mark.browser

PROGRESS = {"files": 1240, "of_files": 5000, "bytes": 300_000, "of_bytes": 1_000_000, "left_s": 41.2}


# ── what the index is doing ──────────────────────────────────────────────────────────────────────


def test_a_long_import_shows_how_far_it_is_without_listing_its_files_each_time(page: Page, backend: Backend) -> None:
    backend.index_status |= {"busy": True, "progress": PROGRESS}
    sheet = panel(page, "Knowledge")
    expect(sheet.locator(".import")).to_contain_text("1,240 of 5,000 files")
    expect(sheet.locator(".import")).to_contain_text("about 42 seconds left")
    expect(sheet.get_by_role("progressbar", name="Indexing…")).to_have_js_property("position", 0.3)
    backend.index_status["progress"] = PROGRESS | {"files": 4990, "left_s": 130.0}
    backend.announce("knowledge")
    expect(sheet.locator(".import")).to_contain_text("4,990 of 5,000 files")
    expect(sheet.locator(".import")).to_contain_text("about 3 minutes left")
    assert "knowledge files=False" in backend.calls
    assert sheet.locator(".file").count() == 1
    backend.files["support"].append(backend.file("fresh.md"))
    backend.index_status |= {"busy": False, "progress": None}
    backend.announce("knowledge")
    expect(sheet.locator(".file", has_text="fresh.md")).to_be_visible()
    expect(sheet.locator(".import")).to_have_count(0)


def test_an_index_that_is_built_beside_is_told_until_it_serves(page: Page, backend: Backend) -> None:
    backend.index_status["building"] = True
    sheet = panel(page, "Knowledge")
    expect(sheet).to_contain_text("A new index is being built beside the one that answers.")
    backend.index_status["building"] = False
    expect(sheet.get_by_text("A new index is being built")).to_have_count(0)  # it asks by itself


def test_a_full_disk_is_told(page: Page, backend: Backend) -> None:
    backend.index_status["problem"] = "the index cannot be written: [Errno 28] No space left on device"
    sheet = panel(page, "Knowledge")
    expect(sheet.get_by_role("alert")).to_contain_text("No space left on device")
    expect(sheet.get_by_role("alert")).to_contain_text("It is tried again by itself.")


def test_a_folder_that_is_away_is_told(page: Page, backend: Backend) -> None:
    reason = "the folder is empty and on another disk than before: is its share mounted?"
    backend.index_status["missing"] = [{"folder": "support", "reason": reason}]
    notice = panel(page, "Knowledge").locator(".notice", has_text="The files of support cannot be reached")
    expect(notice).to_contain_text(reason)
    expect(notice).to_contain_text("goes on answering until they are back")


def test_folders_that_are_limited_say_to_whom_and_what_is_wrong(page: Page, backend: Backend) -> None:
    wrong = ".users names nobody, so nobody may see the folder"
    backend.index_status["limited"] = [
        {"folder": "support", "users": ["ann", "bob"], "problem": ""},
        {"folder": "pay", "users": [], "problem": wrong},
    ]
    sheet = panel(page, "Knowledge")
    expect(sheet.get_by_role("region", name="support")).to_contain_text("Only ann, bob")
    expect(sheet.locator(".notice", has_text="The folder pay is hidden")).to_contain_text(wrong)
    expect(sheet.get_by_role("region", name="contracts").locator(".limit")).to_have_count(0)


# ── history ──────────────────────────────────────────────────────────────────────────────────────


def open_history(page: Page) -> Locator:
    sheet = panel(page, "Knowledge")
    sheet.locator("summary", has_text="History").click()
    return sheet


def test_the_history_says_what_changed_and_goes_back_after_a_question(page: Page, backend: Backend) -> None:
    backend.generations[1] |= {"added": 70, "told": [{"what": "added", "file": f"support/{n}.md"} for n in range(50)]}
    backend.generations[2] |= {"removed": 1, "told": [{"what": "removed", "file": "support/old.md"}]}
    sheet = open_history(page)
    rows = sheet.locator(".generation")
    expect(rows).to_have_count(3)
    expect(rows.nth(0)).to_contain_text("now")
    expect(rows.nth(0)).to_contain_text("1 new · 1 changed · 13 files, 43 passages")
    expect(rows.nth(0).get_by_role("button")).to_have_count(0)
    expect(rows.nth(1).locator(".told li")).to_have_count(5)
    rows.nth(1).get_by_role("button", name="and 67 more").click()
    expect(rows.nth(1).locator(".told li")).to_have_count(51)
    expect(rows.nth(1)).to_contain_text("and 21 more")
    rows.nth(2).get_by_role("button", name="Go back to generation 1").click()
    question = page.get_by_role("alertdialog", name="Go back to generation 1?")
    question.get_by_role("button", name="Cancel").click()
    assert backend.request_bodies == []
    rows.nth(2).get_by_role("button", name="Go back to generation 1").click()
    question.get_by_role("button", name="Go back to this one").click()
    notice = sheet.locator(".held")
    expect(notice).to_contain_text("Answers come from an earlier state of the files: generation 1.")
    expect(notice).to_contain_text("2 files on disk differ from it.")
    assert backend.request_bodies == [{"generation": 1}]
    expect(rows).to_have_count(4)
    expect(rows.nth(0)).to_contain_text("Back to what generation 1 held")
    notice.get_by_role("button", name="Follow the files again").click()
    expect(notice).to_have_count(0)


def test_a_generation_that_cannot_be_gone_back_to_says_why(page: Page, backend: Backend) -> None:
    sheet = open_history(page)
    backend.failing_paths["/api/knowledge/rollback"] = 409
    sheet.get_by_role("button", name="Go back to generation 2").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Go back to this one").click()
    expect(page.locator(".toast.error")).to_contain_text("the disk is full")
    expect(sheet.locator(".held")).to_have_count(0)


def test_the_index_is_rebuilt_after_a_question(page: Page, backend: Backend) -> None:
    sheet = open_history(page)
    sheet.get_by_role("button", name="Rebuild the index").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Rebuild the index").click()
    expect(sheet).to_contain_text("A new index is being built beside")
    expect(sheet.get_by_role("button", name="Rebuild the index")).to_be_disabled()
    expect(sheet.get_by_role("button", name="Go back to")).to_have_count(0)


def test_a_history_that_is_empty_hidden_in_part_or_does_not_load(page: Page, backend: Backend) -> None:
    backend.failing_paths["/api/knowledge/generations"] = 500
    sheet = open_history(page)
    expect(sheet.get_by_role("alert")).to_contain_text("the disk is full")
    backend.failing_paths.clear()
    backend.generations = [generation(3, files=-1, chunks=-1), generation(2, files=-1, chunks=-1, added=0, changed=0,
                                                                           cause="rollback:1", told=[])]  # fmt: skip
    sheet.get_by_role("button", name="Retry").click()
    rows = sheet.locator(".generation")
    expect(rows.nth(0)).not_to_contain_text("passages")
    expect(rows.nth(1)).to_contain_text("Nothing changed that you can see")
    backend.generations = []
    backend.index_status["generation"] = 4
    backend.announce("knowledge")
    expect(sheet).to_contain_text("Nothing has been indexed yet.")


def test_those_who_may_not_manage_see_the_state_and_no_commands(page: Page, backend: Backend) -> None:
    backend.admin = False
    backend.index_status |= {"held": 2, "pending": 1, "limited": [{"folder": "support"}]}
    sheet = panel(page, "Knowledge")
    expect(sheet.locator(".held")).to_contain_text("generation 2")
    expect(sheet.get_by_role("region", name="support")).to_contain_text("Limited to some users")
    expect(sheet.get_by_role("button", name="Follow the files again")).to_have_count(0)
    expect(sheet.locator(".history")).to_have_count(0)
    expect(sheet.get_by_role("button", name="Try a search")).to_have_count(0)


# ── trying a search ──────────────────────────────────────────────────────────────────────────────


def test_a_search_is_tried_with_folders_and_filters(page: Page, backend: Backend) -> None:
    sheet = panel(page, "Knowledge")
    sheet.get_by_role("button", name="Try a search").click()
    box = page.get_by_role("dialog", name="Try a search")
    search = box.get_by_role("button", name="Search")
    expect(search).to_be_disabled()
    expect(box.get_by_role("textbox", name="Question")).to_be_focused()
    page.keyboard.type("How long can I return a lamp?")
    page.keyboard.press("Enter")
    expect(box.get_by_role("heading", name="1 passage for the model")).to_be_visible()
    expect(box.locator(".passage")).to_contain_text(str(PASSAGE["text"]).split("\n", maxsplit=1)[0])
    expect(box.locator(".trace tbody tr")).to_have_count(6)
    assert backend.request_bodies[-1] == {"question": "How long can I return a lamp?", "earlier": "", "files": [],
                                          "kinds": [], "since": None, "until": None, "folders": None}  # fmt: skip
    box.get_by_role("checkbox", name="contracts").uncheck()
    box.get_by_text("Filters").click()
    box.get_by_role("textbox", name="Message before").fill("Can I return it?")
    box.get_by_role("textbox", name="Files").fill("2026/*.md, a.txt")
    box.get_by_role("textbox", name="Kinds").fill("pdf")
    box.get_by_label("Changed since").fill("2026-01-31")
    box.get_by_role("textbox", name="Question").fill("nothing")
    search.click()
    expect(box.get_by_role("heading", name="Nothing was found.")).to_be_visible()
    assert backend.request_bodies[-1] == {"question": "nothing", "earlier": "Can I return it?",
                                          "files": ["2026/*.md", "a.txt"], "kinds": ["pdf"],
                                          "since": "2026-01-31", "until": None, "folders": ["support"]}  # fmt: skip


def test_a_search_that_fails_says_why(page: Page, backend: Backend) -> None:
    backend.failing_paths["/api/knowledge/search"] = 500
    panel(page, "Knowledge").get_by_role("button", name="Try a search").click()
    box = page.get_by_role("dialog")
    box.get_by_role("textbox", name="Question").fill("x")
    page.keyboard.press("Enter")
    expect(box.get_by_role("alert")).to_contain_text("the disk is full")


# ── why these sources ────────────────────────────────────────────────────────────────────────────

EVIDENCE = {"type": "evidence", "searched": True,
            "passages": [{"n": 1, "place": "", "passage": PASSAGE}], "folders": ["support"],
            "generation": 12, "dropped": 0}  # fmt: skip


def open_trace(page: Page, backend: Backend, evidence: dict[str, object], button: str) -> Locator:
    open_client(page)
    backend.script("Within 45 days [1].", before=[evidence])
    send_message(page, "How long can I return a lamp?")
    page.get_by_role("button", name=button).click()
    box = page.get_by_role("dialog", name="Why these sources?")
    expect(box).to_be_visible()
    return box


def test_an_answer_says_why_it_had_its_sources_in_plain_words(page: Page, backend: Backend) -> None:
    backend.trace = TRACE | {"candidates": [TRACE["candidates"][0] | {"reranked": 3.14}, *TRACE["candidates"][1:]]}
    box = open_trace(page, backend, EVIDENCE, "Why these sources?")
    expect(box).to_contain_text("The question was compared with 1,234 passages in support.")
    expect(box).to_contain_text("counts for 40%, the words it shares with the question for 60%")
    rows = box.locator("tbody tr")
    expect(rows.nth(0)).to_contain_text("support › refunds.md › Returns › Opened goods, lines 3-9")
    expect(rows.nth(0)).to_contain_text("0.62rank 2")
    expect(rows.nth(0)).to_contain_text("0.67read closely: 3.14its words 83%Used")
    expect(rows.nth(1)).not_to_contain_text("read closely")
    for at, text in ((1, "its meaning"), (2, "a better one says the same"), (2, "not compared"),
                     (3, "no room in the prompt"), (4, "nothing 12%Left out: far below the best"),
                     (5, "the message before 83%Left out: enough better ones")):  # fmt: skip
        expect(rows.nth(at)).to_contain_text(text)
    expect(box).to_contain_text("Generation 12 of the index")


@pytest.mark.parametrize(("folders", "passages"), [(["support"], EVIDENCE["passages"]), (["support"], []), ([], [])])
def test_an_answer_says_how_much_was_unread(page: Page, backend: Backend, folders: list, passages: list) -> None:
    open_client(page)
    backend.script("ok", before=[EVIDENCE | {"folders": folders, "passages": passages, "unread": 2}])
    send_message(page, "How long can I return a lamp?")
    line = page.locator(".answer .searched").first
    expect(line).to_have_text("2 files were still being read, and not known to this answer")
    nothing = page.locator(".answer .searched", has_text="found nothing")
    expect(nothing).to_have_count(1 if folders and not passages else 0)
    page.reload()
    expect(line).to_have_text("2 files were still being read, and not known to this answer")


def test_an_answer_without_sources_says_why_too(page: Page, backend: Backend) -> None:
    left_out = [one | {"fate": "no evidence", "gate": "", "likelihood": 0.31} for one in TRACE["candidates"][:1]]
    backend.trace = TRACE | {"dense_weight": 0, "candidates": left_out, "queries": ["and?", "Can I? and?"]}
    box = open_trace(page, backend, EVIDENCE | {"passages": []}, "Why no sources?")
    expect(box).to_contain_text("does not know the language of this question")
    expect(box.locator(".why-nothing")).to_contain_text("has a likelihood of 31%, and 40% is needed")
    expect(box.locator("q")).to_have_text("Can I? and?")
    expect(box.locator("tbody tr")).to_contain_text("Left out: not close enough")
    page.keyboard.press("Escape")
    backend.trace = TRACE | {"queries": [], "candidates": []}
    page.get_by_role("button", name="Why no sources?").click()
    expect(box).to_contain_text("it is a greeting or thanks")
    page.keyboard.press("Escape")
    backend.trace = TRACE | {"candidates": []}
    page.get_by_role("button", name="Why no sources?").click()
    expect(box).to_contain_text("No passage has anything in common")


def test_a_trace_that_does_not_load_can_be_asked_for_again(page: Page, backend: Backend) -> None:
    open_client(page)
    backend.script("Within 45 days [1].", before=[EVIDENCE])
    send_message(page, "How long?")
    button = page.get_by_role("button", name="Why these sources?")
    expect(button).to_be_visible()
    (answer,) = (m["id"] for messages in backend.messages.values() for m in messages if m["role"] == "assistant")
    backend.failing_paths[f"/api/messages/{answer}/trace"] = 404
    button.click()
    box = page.get_by_role("dialog")
    expect(box.get_by_role("alert")).to_be_visible()
    backend.failing_paths.clear()
    box.get_by_role("button", name="Retry").click()
    expect(box.locator("tbody tr")).to_have_count(6)


def test_an_answer_that_looked_nothing_up_has_no_such_button(page: Page, backend: Backend) -> None:
    open_client(page)
    send_message(page, "Hello")
    wait_until(page, lambda: page.locator(".answer footer").count() == 1, "the answer ends")
    expect(page.locator(".why-sources")).to_have_count(0)
