"""A browser that looks at the dashboard, and remembers whatever was wrong meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect

from tests.system.running import Running, rebu

ARTEFACTS: Final = Path(__file__).resolve().parents[2] / "artefacts" / "dashboard"
NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS: Final = 60_000


class Look(NamedTuple):
    """How somebody looks at a page."""

    name: str
    width: int
    height: int
    scheme: Any
    touch: bool = False


LIGHT: Final = Look("light", 1280, 900, "light")
DARK: Final = Look("dark", 1280, 900, "dark")
PHONE: Final = Look("phone", 390, 844, "light", True)


def chromium() -> str | None:
    """Where this machine's Chromium is; None where it has none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def launch(playwright: Playwright) -> Browser:
    """Start it. Nothing is downloaded: it must be on the machine."""
    return playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"])


class Watched:
    """A page of a browser, with what it complained of and whom it asked."""

    def __init__(self, page: Page, platform: Running) -> None:
        self.page = page
        self.platform = platform
        self.complaints: list[str] = []
        self.asked: set[str] = set()
        page.on("console", lambda said: self._note(said.type, said.text))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("request", lambda request: self.asked.add(urlsplit(request.url).netloc))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")

    def sign_in(self, *options: str) -> None:
        """Open the link that the command prints."""
        printed = rebu("dashboard", *options, "--data-dir", self.platform.data_dir)
        assert printed.returncode == 0, printed.stderr
        self.page.goto(printed.stdout.strip())
        self.page.get_by_role("button", name="Sign out").wait_for()

    def open(self, place: str) -> None:
        """Go to a place of the dashboard, and wait until it has come to rest."""
        self.page.goto(f"{self.platform.url}/#/{place}")
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is being loaded."""
        self.page.locator("main h1").first.wait_for()
        expect(self.page.locator("main .waiting, main [aria-busy]")).to_have_count(0, timeout=PATIENCE_MS)

    def shot(self, name: str) -> None:
        """Keep what is seen."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)

    def text(self) -> str:
        """What is to be read on the page."""
        return self.page.locator("main").inner_text()

    def rows(self, caption: str) -> list[list[str]]:
        """The cells of a table, opened first where it is behind something."""
        table = self.page.locator("table", has=self.page.locator("caption", has_text=caption)).first
        found: list[list[str]] = table.evaluate(
            "table => [...table.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent.trim()))"
        )
        return found

    def facts(self) -> dict[str, str]:
        """What lists of names and values say."""
        found: dict[str, str] = self.page.evaluate(
            "Object.fromEntries([...document.querySelectorAll('.facts > div')]"
            ".map(one => [one.children[0].textContent, one.children[1].textContent]))"
        )
        return found

    def tiles(self) -> dict[str, str]:
        """What the tiles say."""
        found: dict[str, str] = self.page.evaluate(
            "Object.fromEntries([...document.querySelectorAll('.tile')]"
            ".map(one => [one.querySelector('dt').textContent, one.querySelector('.value').textContent]))"
        )
        return found


@contextmanager
def watched(browser: Browser, platform: Running, look: Look = LIGHT) -> Iterator[Watched]:
    """A fresh browser, of somebody who has been nowhere yet; it must not have asked any other host."""
    context: BrowserContext = browser.new_context(
        viewport={"width": look.width, "height": look.height},
        color_scheme=look.scheme,
        has_touch=look.touch,
        is_mobile=look.touch,
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="Europe/Riga",
    )
    context.set_default_timeout(PATIENCE_MS)
    try:
        found = Watched(context.new_page(), platform)
        yield found
        assert found.asked <= {urlsplit(platform.url).netloc}
    finally:
        context.close()
