"""What text of the host's may become the value of an attribute: a bounded vocabulary of short words seen often.

A name, an address or a sentence in a string input is seen once or twice and never leaves; a category is seen again and
again. Only the counts of the first leave, as `_OTHER`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from otel_mlmon import semconv

MIN_SEEN: Final = 5
"""How often a value of an input is seen before it may leave."""

MAX_WORD: Final = 64
"""Characters of a value that may leave."""

CANDIDATES_PER_WORD: Final = 20


class Vocabulary:
    """The values that may leave, at most `limit`; a value that was let out stays so.

    Args:
        limit: Values at most.
        min_seen: How often a value must have been seen; 1 for words that are the model's own.
        known: Values that may leave from the start, as the developer said.
    """

    def __init__(self, *, limit: int, min_seen: int, known: Collection[str] = ()) -> None:
        self._limit = limit
        self._min_seen = min_seen
        self._words: set[str] = set(list(known)[:limit])
        self._seen: dict[str, int] = {}

    def admit(self, counts: Mapping[str, int]) -> dict[str, int]:
        """`counts` with every value that may not leave added to `_OTHER`."""
        kept: dict[str, int] = {}
        for word, count in counts.items():
            name = word if word in self._words or self._learn(word, count) else semconv.OTHER
            kept[name] = kept.get(name, 0) + count
        return kept

    def _learn(self, word: str, count: int) -> bool:
        if len(self._words) >= self._limit or len(word) > MAX_WORD or not word.isprintable():
            return False
        seen = self._seen.get(word, 0) + count
        if seen >= self._min_seen:
            self._words.add(word)
            self._seen.pop(word, None)
            return True
        if word in self._seen or len(self._seen) < self._limit * CANDIDATES_PER_WORD:
            self._seen[word] = seen
        return False


class Vocabularies:
    """One vocabulary a model and feature, shared by all of the model's sessions.

    Args:
        limit: Values of each at most.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._of: dict[tuple[str, str], Vocabulary] = {}

    def admit(self, model: str, feature: str, counts: Mapping[str, int]) -> dict[str, int]:
        """`counts` with what may not leave as `_OTHER`; an empty `feature` means the model's own labels."""
        found = self._of.get((model, feature))
        if found is None:
            found = Vocabulary(limit=self._limit, min_seen=MIN_SEEN if feature else 1)
            self._of[(model, feature)] = found
        return found.admit(counts)
