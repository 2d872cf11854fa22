"""Reads the API's documents that the web pages are built from, once for each request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from otel_mlmon.processor.serve.page.history import SECOND_NS, SPANS, PageHistory

Document = Mapping[str, Any]

HOUR_S: Final = 3_600.0
MINUTE_S: Final = 60.0
PANE_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSource:
    """The API's documents that a web page is built from, read once for each request."""

    overview: Document
    setup: Document
    history: PageHistory
    now_ns: int

    def versions(self, model_id: str) -> Mapping[str, Document]:
        """Returns the documents of a model by version, the one updated last first."""
        documents = self.overview.get("versions", {}).get(model_id, {})
        return dict(sorted(documents.items(), key=lambda item: -item[1]["updated_ns"]))

    @property
    def rolling_s(self) -> float:
        """The length of the rolling window that shares and statistics are of, seconds."""
        return float(self.setup.get("rolling_s", HOUR_S))

    @property
    def recent_s(self) -> float:
        """The length of the window that rates, latency percentiles and error ratios are of, seconds."""
        return float(self.setup.get("recent_s", MINUTE_S))

    @property
    def pane_s(self) -> float:
        """The length of a pane, seconds."""
        return float(self.setup.get("pane_s", PANE_S))

    def is_window_full(self, model_id: str, version: str) -> bool:
        """Returns whether a model version has data for as long as the rolling window."""
        rows = self.history.model_rows(model_id, version, SPANS[-1])
        begin_ns = self.history.first_ns(model_id, version) or (rows[0][0] if rows else self.now_ns)
        return self.now_ns - begin_ns >= self.rolling_s * SECOND_NS
