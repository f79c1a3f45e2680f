"""The browser that tests drive: any Chromium on the machine, else Playwright's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, expect, sync_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


TIMEOUT = 120_000  # milliseconds; a busy machine is slow, and nothing here waits longer than it must


@contextmanager
def chromium() -> Iterator[Browser]:
    """Expectations then wait up to `TIMEOUT`; a page's own actions are told by its maker."""
    expect.set_options(timeout=TIMEOUT)
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS, timeout=TIMEOUT)
        try:
            yield browser
        finally:
            browser.close()
