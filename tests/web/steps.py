"""What every browser test does, each waiting for its own condition: a slow machine takes longer and fails nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browsers import TIMEOUT

# Lists have come, and what moves or fades has ended; what moves without end is left out.
SETTLED = """
() => !document.querySelector('.skeleton') && document.getAnimations()
  .every((a) => a.playState !== 'running' || a.effect.getComputedTiming().iterations === Infinity)
"""
STILL = """
async (selector) => {
  const box = document.querySelector(selector);
  const frames = (n) => new Promise((done) => requestAnimationFrame(() => (n ? frames(n - 1).then(done) : done())));
  for (let same = 0, top = null; same < 5; same = top === box.scrollTop ? same + 1 : 0) {
    top = box.scrollTop;
    await frames(2);
  }
  return box.scrollTop;
}
"""


def open_client(page: Page, address: str = "/") -> Page:
    """The client, connected: before that nothing can be sent, and news do not come."""
    page.goto(address)
    expect_connected(page)
    return page


def expect_connected(page: Page) -> None:
    expect(page.locator(".composer")).to_be_visible()
    expect(page.locator("#composer-note")).to_be_empty()


def send_message(page: Page, text: str) -> None:
    """Sends a message with Enter, once it can be sent."""
    field = page.locator(".composer textarea")
    field.fill(text)
    expect(page.locator(".composer button[type=submit]")).to_be_enabled()
    field.press("Enter")


def wait_until_settled(page: Page) -> None:
    """Colours and places are measured after fetches, transitions and animations."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_function(SETTLED)


def resting_scroll_top(page: Page, selector: str) -> float:
    """Where the element's scrolling came to rest."""
    return float(page.evaluate(STILL, selector))


def wait_until(page: Page, condition: Callable[[], bool], what: str) -> None:
    """For what the backend knows and the page does not show."""
    end = time.monotonic() + TIMEOUT / 1000
    while not condition():
        assert time.monotonic() < end, what
        page.wait_for_timeout(20)
