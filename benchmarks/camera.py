"""Takes pictures of pages by a real Chromium, in an environment that has Playwright: one process, arguments only.

`python camera.py ADDRESS FOLDER light:1000,dark:1000,light:360 NAME=/path …`
"""

from __future__ import annotations

import shutil
import sys
from typing import Any

MAX_HEIGHT = 1250
"""Pixels of a page that are pictured, from the top."""


def main(address: str, folder: str, views: str, *pages: str) -> int:
    """Takes the pictures; returns 1 where a page has an error, asks another host, or is too wide."""
    from playwright.sync_api import sync_playwright

    faults: list[str] = []

    def note_request(request: Any) -> None:
        if not request.url.startswith(address):
            faults.append(f"foreign request: {request.url}")

    def note_message(message: Any) -> None:
        # A browser asks for this file by itself, and is told that there is none.
        if not message.location.get("url", "").endswith("/favicon.ico"):
            faults.append(f"console: {message.text}")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for view in views.split(","):
            scheme, _, width = view.partition(":")
            page = browser.new_page(viewport={"width": int(width), "height": 700}, color_scheme=scheme)
            page.on("console", note_message)
            page.on("pageerror", lambda error: faults.append(f"error: {error}"))
            page.on("request", note_request)
            for entry in pages:
                name, _, path = entry.partition("=")
                page.goto(address + path)
                height = min(page.evaluate("document.documentElement.scrollHeight"), MAX_HEIGHT)
                clip = {"x": 0, "y": 0, "width": int(width), "height": height}
                page.screenshot(path=f"{folder}/{name}-{scheme}-{width}.png", full_page=True, clip=clip)
                wide = page.evaluate("document.documentElement.scrollWidth")
                if wide > int(width):
                    faults.append(f"{name} is {wide} px wide in a window of {width} px")
            page.close()
        browser.close()
    print("\n".join(faults), end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
