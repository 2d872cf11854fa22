"""Looks at pages with a real Chromium, for `browser.py`: one process, in an environment that has Playwright.

It reads one JSON object from its standard input and writes lines of JSON: `{"event": "ready"}` where it watches, and at
the end `{"event": "done", …}`.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

DEADLINE_MS = 60_000
SERIOUS = ("serious", "critical")


class Look:
    """One browser, and what is wrong with the pages that it showed."""

    def __init__(self, address: str, axe: str) -> None:
        self.address = address
        self.axe = axe
        self.faults: list[str] = []
        self.visited: dict[str, int] = {}
        self.axe_runs = 0

    def open_window(self, browser: Any, scheme: str, width: int) -> Any:
        """Opens a window in which nothing goes unseen: messages, errors, dialogs, requests."""
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("console", lambda message: self.note_message(message))
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.note_dialog(dialog))
        page.on("request", lambda request: self.note_request(request))
        page.set_default_timeout(DEADLINE_MS)
        return page

    def note_message(self, message: Any) -> None:
        # A browser asks for this file by itself, and is told that there is none.
        if not message.location.get("url", "").endswith("/favicon.ico"):
            self.faults.append(f"console: {message.text}")

    def note_dialog(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def note_request(self, request: Any) -> None:
        if not request.url.startswith(f"{self.address}/"):
            self.faults.append(f"foreign request: {request.url}")

    def crawl(self, page: Any, view: str, width: int, most: int) -> None:
        """Follows the links of our own pages, breadth first, and checks each page."""
        waiting, seen, kinds = ["/"], set[str](), set[str]()
        while waiting and len(seen) < most:
            path = waiting.pop(0)
            if path in seen:
                continue
            seen.add(path)
            answer = page.goto(self.address + path, wait_until="load")
            place = f"{view} {path[:120]}"
            if answer is None or answer.status != 200:
                self.faults.append(f"{place}: HTTP {answer.status if answer else '?'}")
                continue
            wide = page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                self.faults.append(f"{place}: {wide} px wide")
            if page.locator("h1").count() != 1 or not page.title():
                self.faults.append(f"{place}: no single heading, or no title")
            segments = path.partition("?")[0].split("/")
            kind = f"{segments[1]} {len(segments)}"
            if kind not in kinds:  # a page of the same template differs in its content only
                kinds.add(kind)
                self.check_access(page, place)
            links = page.evaluate("[...document.querySelectorAll('a[href]')].map((a) => a.getAttribute('href'))")
            own = [link for link in links if link.startswith("/") and not link.startswith("/api/")]
            waiting += [link.partition("#")[0] for link in own]  # another place of the same page is no other page
        self.visited[view] = len(seen)

    def check_access(self, page: Any, place: str) -> None:
        """Lets axe look at a page: contrast, names, roles, order."""
        page.evaluate(self.axe)
        result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        self.axe_runs += 1
        for violation in result["violations"]:
            if violation["impact"] in SERIOUS:
                nodes = "; ".join(node["html"][:160] for node in violation["nodes"][:3])
                self.faults.append(f"{place}: axe {violation['id']}: {violation['help']}: {nodes}")


def main() -> None:
    """Does what is asked for on the standard input."""
    from playwright.sync_api import sync_playwright

    asked = json.loads(sys.stdin.readline())
    look = Look(asked["address"], Path(asked["axe"]).read_text(encoding="utf-8"))
    seconds: float | None = None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme, width in asked.get("views", ()):
            page = look.open_window(browser, scheme, width)
            look.crawl(page, f"{scheme} {width}", width, asked["most"])
            page.close()
        if "text" in asked:
            page = look.open_window(browser, "light", 1280)
            page.goto(look.address + asked["path"])
            page.wait_for_function("document.getElementById('live').textContent.includes('live')")
            page.evaluate("window.isSamePage = true")
            print(json.dumps({"event": "ready"}), flush=True)
            begin_s = float(json.loads(sys.stdin.readline())["begin_s"])
            page.get_by_text(asked["text"], exact=True).first.wait_for()
            seconds = time.time() - begin_s
            if not page.evaluate("window.isSamePage === true"):
                look.faults.append("the page was loaded again rather than updated")
        browser.close()
    done = {"faults": look.faults, "visited": look.visited, "axe_runs": look.axe_runs, "seconds": seconds}
    print(json.dumps({"event": "done", **done}), flush=True)


if __name__ == "__main__":
    main()
