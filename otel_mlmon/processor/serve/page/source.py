"""What a page is made of: the documents of the API, read once for each request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from otel_mlmon.processor.serve.page.history import History

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the page is made of, read once for each request."""

    overview: Document
    setup: Document
    history: History
    now_ns: int

    def versions(self, model_id: str) -> Mapping[str, Document]:
        """Returns the documents of a model by version, the one updated last first."""
        documents = self.overview.get("versions", {}).get(model_id, {})
        return dict(sorted(documents.items(), key=lambda item: -item[1]["updated_ns"]))
