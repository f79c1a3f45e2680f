"""Citations as they are shown: corrected, explained, opened in their document; and sentences without one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsers import TIMEOUT
from tests.web.backend import PASSAGE, Backend
from tests.web.steps import expect_connected, open_client, send_message, wait_until_settled

pytestmark = pytest.mark.browser

SHIPPING = PASSAGE | {
    "id": "p2", "file": "shipping.md", "heading": ["Shipping"], "line_start": 4, "line_end": 5, "score": 0.6,
    "text": "Parcels leave on the same day. Norway costs 14.90 EUR.",
}  # fmt: skip
EVIDENCE = {
    "type": "evidence", "searched": True, "folders": ["support"], "generation": 12, "dropped": 0,
    "passages": [{"n": 1, "place": "lines 3-9", "passage": PASSAGE},
                 {"n": 2, "place": "lines 4-5", "passage": SHIPPING}],
}  # fmt: skip
SENTENCES = (
    "🙂 Goods can be returned within 45 days [2].",
    "Opened goods are refunded as credit [1, 2].",
    "Norway costs 14.90 EUR.",
    "**Boats** are sold, too [1].",
    "Bicycles are sold.",
    "Is that all?",
)
ANSWER = " ".join(SENTENCES)


def check(at: int, verdict: str, marks: list[dict[str, Any]], support: list[dict[str, Any]] = []) -> dict[str, Any]:  # noqa: B006
    start = len(" ".join(SENTENCES[:at])) + (at > 0)
    return {"start": start, "end": start + len(SENTENCES[at]), "verdict": verdict, "marks": marks, "support": support}


def mark(text: str, cited: list[int], shown: list[int], at: int | None = None) -> dict[str, Any]:
    start = ANSWER.index(text, at or 0)
    return {"start": start, "end": start + len(text), "cited": cited, "shown": shown}


def checks() -> list[dict[str, Any]]:
    first, second = ({"n": 1, "score": 0.9, "start": 0, "end": 49}, {"n": 1, "score": 0.8, "start": 50, "end": 92})
    norway = {"n": 2, "score": 0.9, "start": 31, "end": 54}
    end = ANSWER.index("14.90 EUR") + len("14.90 EUR")
    added = {"start": end, "end": end, "cited": [], "shown": [2]}
    boats = ANSWER.index("Boats")
    return [
        check(0, "corrected", [mark("[2]", [2], [1])], [first]),
        check(1, "corrected", [mark("[1, 2]", [1, 2], [1])], [second]),
        check(2, "supported", [added], [norway]),
        check(3, "dropped", [mark("[1]", [1], [], boats)]),
        check(4, "unsupported", []),
        check(5, "nothing", []),
    ]


CITED = {
    "type": "citations", "citations": [{"n": 1, "passage_id": "p1"}, {"n": 2, "passage_id": "p2"}], "invalid": [],
    "checks": checks(),
}  # fmt: skip


def ask(page: Page, backend: Backend, *, after: dict[str, Any] = CITED) -> None:
    backend.script(ANSWER, before=[EVIDENCE], after=[after])
    send_message(page, "go")
    expect(page.locator(".sources")).to_be_visible()
    expect(page.locator(".answer .cite").first).to_be_visible()


def passage_context(*, before: int = 1, after: int = 1, living: bool = True) -> dict[str, Any]:
    def other(number: int, side: str) -> dict[str, Any]:
        text = f"Text {number} {side}.\n" + "It goes on for a while.\n" * 6
        return PASSAGE | {"id": f"{side}{number}", "text": text, "heading": ["Returns", f"Part {side} {number}"]}

    return {
        "passage": PASSAGE, "living": living, "before": [other(n, "before") for n in range(before)],
        "after": [other(n, "after") for n in range(after)],
    }  # fmt: skip


def test_citations_are_shown_corrected_and_bare_sentences_marked(page: Page, backend: Backend) -> None:
    open_client(page)
    ask(page, backend)
    expect(page.locator(".answer .markdown")).to_have_text(
        "🙂 Goods can be returned within 45 days 1. Opened goods are refunded as credit 1. Norway costs 14.90 EUR 2. "
        "Boats are sold, too. Bicycles are sold. Is that all?"
    )
    bare = page.locator(".answer .bare")
    expect(bare).to_have_text(["Boats are sold, too.", "Bicycles are sold."])
    expect(bare.nth(0)).to_have_attribute("title", "The answer cited [1] here, but no source carries this sentence.")
    expect(bare.nth(1)).to_have_attribute("title", "No source of this answer carries this sentence.")
    expect(page.locator(".answer strong")).to_have_text("Boats")
    expect(page.locator(".checked")).to_have_text(re.compile(r"No source carries 2 sentences\s*2 citations corrected"))
    corrected = "Open source 1. The answer cited [2] here; this source carries the sentence."
    expect(page.locator(".cite").nth(0)).to_have_attribute("aria-label", corrected)
    page.reload()  # the same from the store
    expect_connected(page)
    expect(page.locator(".answer .bare")).to_have_count(2)
    expect(page.locator(".answer .cite")).to_have_text(["1", "1", "2"])


def test_an_answer_is_copied_as_it_was_written(page: Page, backend: Backend) -> None:
    open_client(page)
    ask(page, backend)
    page.locator(".answer").get_by_role("button", name="Copy").click()
    assert page.evaluate("navigator.clipboard.readText()") == ANSWER


def test_an_answer_of_old_without_checks_is_shown_as_before(page: Page, backend: Backend) -> None:
    evidence = {"passages": EVIDENCE["passages"], "folders": ["support"], "searched": True}
    backend.store_chat(
        "c1",
        {"id": "m1", "role": "user", "text": "How long?"},
        {"id": "m2", "parent_id": "m1", "role": "assistant", "text": "45 days [1][2], no boats.",
         "citations": [{"n": 1, "passage_id": "p1"}], **evidence},
    )  # fmt: skip
    open_client(page, "/#/c/c1")
    expect(page.locator(".answer .cite")).to_have_text(["1", "2"])
    expect(page.locator(".answer .bare")).to_have_count(0)
    page.locator(".cite").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("within 45 days of delivery")
    expect(page.get_by_role("dialog").locator("mark")).to_have_count(0)


def test_a_card_tells_file_place_and_words_on_hover_and_on_focus(page: Page, backend: Backend) -> None:
    open_client(page)
    ask(page, backend)
    cites, card = page.locator(".answer .cite"), page.locator(".source-card")
    cites.nth(0).hover()
    expect(card).to_contain_text("refunds.md › Opened goods lines 3-9")
    expect(card).to_contain_text("Goods can be returned within 45 days of delivery.")
    expect(card).not_to_contain_text("store credit")
    expect(card).to_contain_text("The answer cited [2] here; this source carries the sentence.")
    page.mouse.move(5, 5)
    expect(card).to_have_count(0)
    cites.nth(1).hover()
    expect(card).to_contain_text("The answer also cited [2], which does not carry the sentence.")
    page.mouse.move(5, 5)
    expect(card).to_have_count(0)
    page.keyboard.press("Tab")  # the page's own first stop; then the answer's citations in their order
    cites.nth(1).focus()
    page.keyboard.press("Tab")
    expect(cites.nth(2)).to_be_focused()
    expect(card).to_contain_text("The answer cited nothing here; this source carries the sentence.")
    expect(cites.nth(2)).to_have_attribute("aria-describedby", "source-card")
    page.keyboard.press("Tab")
    expect(page.locator(".bare").nth(0)).to_be_focused()
    expect(card).to_contain_text("The answer cited [1] here, but no source carries this sentence.")
    page.keyboard.press("Escape")
    expect(card).to_have_count(0)
    expect(page.locator(".bare").nth(0)).to_be_focused()


def test_a_click_opens_the_passage_in_its_document_with_its_lines_marked(page: Page, backend: Backend) -> None:
    backend.passage_contexts["p1"] = passage_context(before=12, after=3)
    open_client(page)
    ask(page, backend)
    page.locator(".answer .cite").nth(0).focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("mark")).to_have_text("Goods can be returned within 45 days of delivery.")
    expect(dialog.locator(".doc-text")).to_have_count(16)
    expect(dialog.locator(".doc-heading").first).to_have_text("Returns › Part before 1")
    expect(dialog.locator("mark")).to_be_in_viewport()
    expect(dialog.locator(".doc-text").first).not_to_be_in_viewport()
    expect(dialog.locator(".link")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.locator(".answer .cite").nth(0)).to_be_focused()
    page.locator("button.source").first.click()  # of the whole answer: all lines that carry something
    expect(dialog.locator("mark")).to_have_count(2)
    dialog.get_by_role("button", name="Next").click()
    expect(dialog.locator("mark")).to_have_text("Norway costs 14.90 EUR.")


def test_a_long_document_is_shown_piece_by_piece(page: Page, backend: Backend) -> None:
    backend.passage_contexts["p1"] = passage_context(before=20, after=20)
    backend.passage_contexts["before0"] = passage_context(before=0) | {
        "before": [PASSAGE | {"id": "far", "text": "The very beginning."}]
    }
    open_client(page)
    ask(page, backend)
    page.locator(".answer .cite").nth(0).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".doc-text")).to_have_count(41)
    top = "document.querySelector('mark').getBoundingClientRect().top"
    more = dialog.get_by_role("button", name="Show what stands before")
    more.scroll_into_view_if_needed()
    before = page.evaluate(top)
    more.click()
    expect(dialog.locator(".doc-text").first).to_have_text("The very beginning.")
    expect(more).to_have_count(0)
    assert abs(page.evaluate(top) - before) < 60  # what was read stays where it is, but for the button that went
    expect(dialog.get_by_role("button", name="Show what stands after")).to_have_count(1)


@pytest.mark.parametrize(
    ("found", "note"),
    [
        (None, "The file is not there any more. This is what the answer was given."),
        ({"living": False}, "The file has changed since. This is what the answer was given."),
    ],
)
def test_a_passage_whose_file_is_gone_or_changed_is_still_shown(
    page: Page, backend: Backend, found: dict[str, Any] | None, note: str
) -> None:
    if found is not None:
        backend.passage_contexts["p1"] = passage_context(before=0, after=0) | found
    open_client(page)
    ask(page, backend)
    page.locator(".answer .cite").nth(0).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("status")).to_have_text(note)
    expect(dialog.locator("mark")).to_have_text("Goods can be returned within 45 days of delivery.")
    expect(dialog.locator(".doc-text")).to_have_count(1)


def test_what_cannot_be_fetched_is_told_and_the_passage_shown(page: Page, backend: Backend) -> None:
    backend.failing_paths["/api/passages/p1"] = 500
    open_client(page)
    ask(page, backend)
    page.locator(".answer .cite").nth(0).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("status")).to_have_text("The rest of the file cannot be shown: the disk is full")
    expect(dialog.locator("mark")).to_have_count(1)


Open = Callable[..., Page]


@pytest.fixture
def open_with(browser: Browser, served: tuple[Backend, str]) -> Iterator[Open]:
    contexts = []

    def open_page(**settings: object) -> Page:
        context = browser.new_context(base_url=served[1], **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT)
        page.goto("/")
        expect_connected(page)
        return page

    yield open_page
    for context in contexts:
        context.close()


def test_on_a_phone_a_tap_shows_the_card_and_its_button_opens_the_document(open_with: Open, backend: Backend) -> None:
    backend.passage_contexts["p1"] = passage_context(before=3, after=3)
    page = open_with(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, locale="ko-KR")
    backend.script(ANSWER, before=[EVIDENCE], after=[CITED])
    page.locator(".composer textarea").fill("go")
    page.locator(".composer button[type=submit]").tap()
    card = page.locator(".source-card")
    page.locator(".answer .cite").nth(0).tap()
    expect(card).to_contain_text("답변은 여기서 [2]을(를) 인용했지만, 이 문장을 뒷받침하는 것은 이 출처입니다.")
    box = card.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    page.locator(".bubble").tap()
    expect(card).to_have_count(0)
    page.locator(".bare").nth(1).tap()
    expect(card).to_have_text("이 문장을 뒷받침하는 출처가 없습니다.")
    page.locator(".answer .cite").nth(0).tap()
    card.get_by_role("button", name="열기").tap()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("mark")).to_be_in_viewport()
    expect(card).to_have_count(0)
    wait_until_settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_marks_stand_out_from_their_ground(open_with: Open, backend: Backend, scheme: str) -> None:
    from tests.web.test_access import CONTRAST

    backend.passage_contexts["p1"] = passage_context()
    page = open_with(color_scheme=scheme, viewport={"width": 1280, "height": 800})
    ask(page, backend)
    page.locator(".answer .cite").nth(0).hover()
    expect(page.locator(".source-card")).to_be_visible()
    wait_until_settled(page)
    assert page.evaluate(CONTRAST) == []
    page.locator(".answer .cite").nth(0).click()
    expect(page.get_by_role("dialog").locator(".doc-text")).to_have_count(3)
    wait_until_settled(page)
    assert page.evaluate(CONTRAST) == []


# ── the pure part ────────────────────────────────────────────────────────────────────────────────

SHOWN = """async ([text, checks]) => {
  const { insertCheckTags } = await import('/static/js/checks.js');
  const { renderMarkdown } = await import('/static/js/markdown.js');
  const holder = document.createElement('template');
  holder.innerHTML = renderMarkdown(insertCheckTags(text, checks), 3);
  return [holder.content.textContent.trim().replace(/\\s+/g, ' '),
    [...holder.content.querySelectorAll('.bare')].map((e) => e.textContent.replace(/\\s+/g, ' ').trim())];
}"""


def bare(text: str, sentence: str) -> dict[str, Any]:
    start = text.index(sentence)
    return {"start": start, "end": start + len(sentence), "verdict": "unsupported", "marks": [], "support": []}


@pytest.mark.parametrize(
    ("text", "sentence", "marked"),
    [
        ("- One.\n- Two is here.\n- Three.", "Two is here.", ["Two is here."]),
        ("See https://example.org/a. Next.", "See https://example.org/a.", ["See https://example.org/a."]),
        ("**Bold is here.** Next.", "**Bold is here.**", ["Bold is here."]),
        ("**가격(원)**은 다릅니다. 끝.", "**가격(원)**은 다릅니다.", ["가격(원)은 다릅니다."]),
        ("Lamps [and *more*](https://example.org) are. End.", "Lamps [and *more*](https://example.org) are.",
         ["Lamps and more are."]),
        ("> Quoted words are here.", "Quoted words are here.", ["Quoted words are here."]),
        ("One line\nand another. End.", "One line\nand another.", ["One lineand another."]),
        ("| a | b |\n|---|---|\n| Norway | 14 |", "Norway | 14", ["Norway"]),
        ("Mind <b>this</b> one. End.", "Mind <b>this</b> one.", ["Mind <b>this</b> one."]),
    ],
)  # fmt: skip
def test_a_marked_sentence_leaves_its_markdown_whole(page: Page, text: str, sentence: str, marked: list[str]) -> None:
    open_client(page)
    plain, _ = page.evaluate(SHOWN, [text, []])
    found, spans = page.evaluate(SHOWN, [text, [bare(text, sentence)]])
    assert found == plain
    assert spans == marked


def test_a_model_cannot_write_our_tags(page: Page) -> None:
    open_client(page)
    text = "A <\ue000M0:/1> b <\ue000U0:/> c. Boats are here."
    found, spans = page.evaluate(SHOWN, [text, [bare(text, "Boats are here.")]])
    assert spans == ["Boats are here."]
    assert "M0:/1" in found
