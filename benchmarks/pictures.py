"""`python -m benchmarks.pictures FOLDER`: pictures of the page, by Chromium: seeded incidents, quiet, 14 days.

`make pictures` writes docs/pictures from it. It fails where a page logs an error, asks another host for anything, or is
wider than its window. It needs Playwright's Python package and a Chromium (`apt-get install chromium`).
"""

from __future__ import annotations

import html
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt

from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.markup import format_alert_html, format_alert_markdown
from otel_mlmon.processor.alert.message import build_alert_message, format_alert
from otel_mlmon.testing import SimulatedProcessor
from tests.support.incidents import (
    CALM_PANES,
    FORTNIGHT_PANE_S,
    FORTNIGHT_PANES,
    INCIDENTS,
    PANE_S,
    TROUBLE_PANES,
    simulate,
    simulate_fortnight,
)
from tests.support.pages import serve_page

VIEWS: Final = (("light", 1000), ("dark", 1000), ("light", 360))
MESSAGE_VIEWS: Final = (("light", 700), ("light", 360))
DOCUMENTED: Final = {
    "unit-home-light-1000": "page",
    "unit-model-dark-1000": "model",
    "slow-home-light-360": "phone",
    "unit-html-light-700": "mail",
}
"""The pictures that the documentation shows, and their names there."""
CAMERA: Final = Path(__file__).with_name("camera.py")


def main(folder: Path, python: str, documentation: Path | None) -> int:
    """Takes all pictures; returns the exit code of the browser's program."""
    folder.mkdir(parents=True, exist_ok=True)
    code, messages = 0, []
    for name, incident in (*INCIDENTS.items(), ("quiet", None)):
        panes = CALM_PANES + (incident.panes if incident is not None else TROUBLE_PANES)
        start_ns = time.time_ns() - panes * PANE_S * 10**9
        processor, _ = simulate(incident, start_ns=start_ns)
        with processor:
            code |= _photograph(processor, name, incident.model if incident is not None else "churn", folder, python)
            if processor.alerts:
                messages += _write_messages(max(processor.alerts, key=_count_links), name, folder)
    code |= _take_pictures(python, folder.resolve().as_uri(), folder, MESSAGE_VIEWS, messages)
    with simulate_fortnight(start_ns=time.time_ns() - FORTNIGHT_PANES * FORTNIGHT_PANE_S * 10**9) as processor:
        for model in ("churn", "credit-risk"):
            code |= _photograph(processor, f"fortnight-{model}", model, folder, python, span="14d")
    for picture, title in DOCUMENTED.items() if documentation is not None else ():
        shutil.copy(folder / f"{picture}.png", (documentation or folder) / f"{title}.png")
    return code


def _photograph(
    processor: SimulatedProcessor, name: str, model: str, folder: Path, python: str, *, span: str = "1h"
) -> int:
    overview = processor.document()
    with serve_page(lambda: overview, processor._pipeline.history) as address:
        pages = [f"{name}-home=/", f"{name}-model=/models/{model}?span={span}", f"{name}-alerts=/alerts"]
        return _take_pictures(python, address, folder, VIEWS, pages)


def _take_pictures(
    python: str, address: str, folder: Path, views: Sequence[tuple[str, int]], pages: Sequence[str]
) -> int:
    listed = ",".join(f"{scheme}:{width}" for scheme, width in views)
    return subprocess.run([python, str(CAMERA), address, str(folder), listed, *pages], check=False).returncode


def _count_links(alert: Alert) -> int:
    return len(build_alert_message(alert).notes) + len(alert.causes)


def _write_messages(alert: Alert, name: str, folder: Path) -> list[str]:
    """Writes an alert as HTML, as Markdown that a chat renders, and as plain text in a terminal, to be pictured."""
    addresses = replace(alert.addresses, trace="https://jaeger.example/trace/{trace_id}")
    alert = replace(alert, addresses=addresses, exemplars=alert.exemplars or ("4bf92f3577b34da6a3ce929d0e0e4736",))
    style = '<meta charset="utf-8"><style>pre { white-space: pre-wrap; overflow-wrap: anywhere }</style>'
    markdown = MarkdownIt("commonmark", {"html": False}).render(format_alert_markdown(alert))
    pages = {
        "html": format_alert_html(alert),
        "markdown": style + markdown,
        "plain": f"{style}<pre>{html.escape(format_alert(alert))}</pre>",
    }
    for kind, text in pages.items():
        (folder / f"{name}-{kind}.html").write_text(text, encoding="utf-8")
    return [f"{name}-{kind}=/{name}-{kind}.html" for kind in pages]


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    target = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    sys.exit(main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else sys.executable, target))
