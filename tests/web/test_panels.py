"""The four levers beside the chat."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.web.backend import Backend
from tests.web.memory_backend import memory
from tests.web.steps import open_client

pytestmark = pytest.mark.browser

DROP = """
([selector, names]) => {
  const data = new DataTransfer();
  for (const name of names) data.items.add(new File(['hello'], name, { type: 'text/markdown' }));
  const event = (type) => new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true });
  const target = document.querySelector(selector);
  target.dispatchEvent(event('dragover'));
  return target.dispatchEvent(event('drop'));
}
"""


def panel(page: Page, name: str) -> Locator:
    open_client(page)
    return open_panel(page, name)


def open_panel(page: Page, name: str) -> Locator:
    page.get_by_role("navigation").get_by_role("button", name=name).click()
    sheet = page.get_by_role("complementary", name=name)
    expect(sheet).to_be_visible()
    return sheet


# ── knowledge ────────────────────────────────────────────────────────────────────────────────────


def test_files_are_listed_with_their_state_and_reason(page: Page, backend: Backend) -> None:
    backend.files["support"] += [
        backend.file("scan.pdf", "failed", "this is not a PDF"),
        backend.file("late.md", "indexing"),
        backend.file("film.mp4", "unsupported", "no reader for .mp4"),
    ]
    sheet = panel(page, "Knowledge")
    rows = sheet.locator(".file")
    expect(rows.nth(0)).to_contain_text("Indexed")
    expect(rows.nth(0)).to_contain_text("2.3 KB · 4 passages")
    expect(rows.nth(1)).to_contain_text("this is not a PDF")
    expect(rows.nth(2)).to_contain_text("Indexing")
    expect(rows.nth(3)).to_contain_text("Not supported")
    expect(sheet.get_by_text("No files.")).to_be_visible()  # contracts


def test_of_a_long_folder_the_first_files_are_shown_and_those_that_cannot_be_read(page: Page, backend: Backend) -> None:
    backend.files["support"] = [backend.file(f"{n}.md") for n in range(500)]
    backend.files["support"].append(backend.file("z.pdf", "failed", "no PDF"))
    sheet = panel(page, "Knowledge")
    rows = sheet.get_by_role("region", name="support").locator(".file")
    expect(rows).to_have_count(40)
    expect(rows.nth(0)).to_contain_text("z.pdf")
    sheet.get_by_role("button", name="and 461 more").click()
    expect(rows).to_have_count(501)


def test_chosen_files_go_to_the_chosen_folder_and_each_error_is_shown(page: Page, backend: Backend) -> None:
    sheet = panel(page, "Knowledge")
    sheet.get_by_role("combobox", name="Folder").select_option("contracts")
    sheet.locator("input[type=file]").set_input_files([
        {"name": "nda.md", "mimeType": "text/markdown", "buffer": b"# NDA"},
        {"name": "virus.exe", "mimeType": "application/x", "buffer": b"MZ"},
        {"name": "huge.txt", "mimeType": "text/plain", "buffer": b"x" * 1_000_001},
    ])  # fmt: skip
    expect(sheet.locator(".file", has_text="nda.md")).to_be_visible()
    failed = sheet.locator(".uploads .failed")
    expect(failed).to_have_count(2)
    expect(failed.filter(has_text="virus.exe")).to_contain_text("is no kind of file that can be read")
    expect(failed.filter(has_text="huge.txt")).to_contain_text("Larger than 1,000,000 bytes")
    assert backend.calls.count("POST /api/knowledge/contracts") == 2  # the huge one was not even sent
    failed.first.get_by_role("button", name="Dismiss").click()
    expect(failed).to_have_count(1)


def test_a_new_folder_needs_a_good_name(page: Page, backend: Backend) -> None:
    sheet = panel(page, "Knowledge")
    sheet.get_by_role("combobox", name="Folder").select_option(label="New folder…")
    choose = sheet.get_by_role("button", name="Choose files")
    expect(choose).to_be_disabled()
    name = sheet.get_by_role("textbox", name="Name")
    name.fill("../up")
    expect(sheet.get_by_text("A folder's name has at most 64")).to_be_visible()
    expect(choose).to_be_disabled()
    name.fill("계약서")
    sheet.locator("input[type=file]").set_input_files(
        [{"name": "임대차.md", "mimeType": "text/markdown", "buffer": b"x"}]
    )
    expect(sheet.get_by_role("region", name="계약서")).to_contain_text("임대차.md")
    assert "계약서" in backend.files
    expect(sheet.get_by_role("combobox", name="Folder")).to_have_value("계약서")


def test_dropping_on_the_zone_sends_at_once(page: Page, backend: Backend) -> None:
    sheet = panel(page, "Knowledge")
    expect(sheet.locator(".file")).to_have_count(1)
    assert page.evaluate(DROP, [".drop", ["dropped.md"]]) is False
    expect(sheet.locator(".file", has_text="dropped.md")).to_be_visible()


def test_dropping_elsewhere_neither_leaves_the_page_nor_guesses_a_folder(page: Page, backend: Backend) -> None:
    open_client(page)
    assert page.evaluate(DROP, [".main", ["stray.md"]]) is False
    sheet = page.get_by_role("complementary", name="Knowledge")
    expect(sheet).to_contain_text("1 file waiting for a folder: stray.md")
    assert not [call for call in backend.calls if call.startswith("POST")]
    sheet.get_by_role("combobox", name="Folder").select_option("contracts")
    sheet.get_by_role("button", name="Add").click()
    expect(sheet.get_by_role("region", name="contracts")).to_contain_text("stray.md")


def test_deleting_a_file_asks_first(page: Page, backend: Backend) -> None:
    backend.files["support"][0]["file"] = "sub folder/refunds & more.md"
    sheet = panel(page, "Knowledge")
    delete = sheet.get_by_role("button", name="Delete sub folder/refunds & more.md")
    delete.click()
    page.get_by_role("alertdialog").get_by_role("button", name="Cancel").click()
    expect(delete).to_be_focused()
    assert backend.files["support"]
    delete.click()
    page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    expect(sheet.locator(".file")).to_have_count(0)
    assert not backend.files["support"]


def test_a_change_on_disk_shows_by_itself(page: Page, backend: Backend) -> None:
    sheet = panel(page, "Knowledge")
    expect(sheet.locator(".file")).to_have_count(1)
    backend.files["support"].append(backend.file("new-on-disk.md"))
    backend.announce("knowledge")
    expect(sheet.locator(".file", has_text="new-on-disk.md")).to_be_visible()


def test_those_who_may_not_change_knowledge_see_it_without_the_buttons(page: Page, backend: Backend) -> None:
    backend.admin = False
    sheet = panel(page, "Knowledge")
    expect(sheet).to_contain_text("Only curators and admins can add or delete files.")
    expect(sheet.locator(".file")).to_have_count(1)
    expect(sheet.get_by_role("button", name="Delete")).to_have_count(0)
    expect(sheet.locator("input[type=file]")).to_have_count(0)


# ── memory ───────────────────────────────────────────────────────────────────────────────────────


def test_memories_can_be_added_edited_and_forgotten_and_forgetting_be_undone(page: Page, backend: Backend) -> None:
    backend.memories = [memory(1, "Prefers formal Korean", "preference", "존댓말로 대답해 줘")]
    sheet = panel(page, "Memory")
    row = sheet.locator(".memory")
    expect(row).to_contain_text("존댓말로 대답해 줘")
    expect(row).to_contain_text("Preference")

    sheet.get_by_role("textbox", name="Something to remember…").fill("Has two cats")
    sheet.get_by_role("combobox", name="Kind").select_option("identity")
    sheet.get_by_role("button", name="Remember").click()
    expect(row).to_have_count(2)
    assert backend.memories[0]["kind"] == "identity"
    expect(sheet.get_by_role("textbox", name="Something to remember…")).to_have_value("")

    sheet.get_by_role("button", name="Edit: Has two cats").click()
    field = sheet.get_by_role("textbox", name="Edit memory")
    field.fill("Has three cats")
    field.press("Enter")
    expect(sheet).to_contain_text("Has three cats")

    sheet.get_by_role("button", name="Forget: Has three cats").click()
    expect(row).to_have_count(1)
    page.get_by_role("button", name="Undo").click()
    expect(row).to_have_count(2)
    assert {item["text"] for item in backend.memories} == {"Has three cats", "Prefers formal Korean"}


def test_a_memory_that_cannot_be_saved_keeps_its_text(page: Page, backend: Backend) -> None:
    sheet = panel(page, "Memory")
    expect(sheet).to_contain_text("Nothing yet.")
    backend.failing_paths["/api/memories"] = 500
    field = sheet.get_by_role("textbox", name="Something to remember…")
    field.fill("Precious")
    sheet.get_by_role("button", name="Remember").click()
    expect(page.locator(".toast.error")).to_contain_text("the disk is full")
    expect(field).to_have_value("Precious")


# ── adapters ─────────────────────────────────────────────────────────────────────────────────────


def test_adapters_are_listed_loaded_and_unloaded(page: Page, backend: Backend) -> None:
    sheet = panel(page, "Adapters")
    grounded = sheet.locator(".adapter", has_text="grounded")
    for text in ("Loaded", "rank 16", "120 layers", "9.7 MB", "in use by 1 chat", "Answers from numbered sources."):
        expect(grounded).to_contain_text(text)
    broken = sheet.locator(".adapter", has_text="old-base")
    expect(broken).to_contain_text("it was trained for another base model")
    expect(broken.get_by_role("button")).to_have_count(0)
    sheet.get_by_role("button", name="Load sentiment").click()
    expect(sheet.locator(".adapter", has_text="sentiment")).to_contain_text("Loaded")
    expect(sheet).to_contain_text("2 of at most 8 loaded")
    sheet.get_by_role("button", name="Unload grounded").click()
    expect(page.locator(".toast.error")).to_contain_text("in use by a running chat")
    expect(grounded).to_contain_text("Loaded")


def test_an_adapter_that_appears_in_the_folder_shows_by_itself(page: Page, backend: Backend) -> None:
    sheet = panel(page, "Adapters")
    expect(sheet.locator(".adapter")).to_have_count(3)
    backend.adapters.append(backend.adapters[1] | {"name": "fresh"})
    backend.announce("adapters")
    expect(sheet.locator(".adapter", has_text="fresh")).to_be_visible()


# ── domains ──────────────────────────────────────────────────────────────────────────────────────


def test_broken_prompt_files_are_named_with_line_and_reason(page: Page, backend: Backend) -> None:
    backend.problems = [{"file": "/srv/shop/prompts/triage.md", "line": 7, "reason": "'knowlege' is no known key"}]
    sheet = panel(page, "Domains")
    expect(sheet.locator(".problems")).to_contain_text("prompts/triage.md:7")
    expect(sheet.locator(".problems")).to_contain_text("'knowlege' is no known key")
    backend.problems = []
    backend.announce("domains")
    expect(sheet.locator(".problems")).to_have_count(0)


def test_a_domain_can_be_used_from_its_panel(page: Page, backend: Backend) -> None:
    sheet = panel(page, "Domains")
    expect(sheet.locator(".domain", has_text="Contract review")).to_contain_text("2 examples in the prompt")
    sheet.get_by_role("button", name="Use Log parsing in this chat").click()
    expect(page.get_by_role("button", name="Domain: Log parsing")).to_be_visible()


@pytest.mark.parametrize(
    ("name", "path"), [("Knowledge", "knowledge"), ("Memory", "memories"), ("Adapters", "adapters")]
)
def test_a_panel_that_cannot_load_says_why_and_tries_again(page: Page, backend: Backend, name: str, path: str) -> None:
    backend.failing_paths[f"/api/{path}"] = 503
    at_start = page.expect_response(f"**/api/{path}") if name == "Memory" else nullcontext()  # and the panel again
    with at_start:
        open_client(page)
    sheet = open_panel(page, name)
    expect(sheet.get_by_role("alert")).to_contain_text("the disk is full")
    backend.failing_paths.clear()
    sheet.get_by_role("button", name="Retry").click()
    expect(sheet.get_by_role("alert")).to_have_count(0)
