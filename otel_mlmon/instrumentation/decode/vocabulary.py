"""What text of the host's may become the value of an attribute: a bounded vocabulary of short words seen often.

A name, an address or a sentence in a string input is seen once or twice and never leaves; a category is seen again and
again. Only the counts of the first leave, as `_OTHER`.

Candidates are counted as by Misra and Gries (Finding repeated elements, 1982): in bounded memory, never above the true
count, and whatever is frequent is found among any number of values seen once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from otel_mlmon import semconv

MIN_SEEN: Final = 5
"""How often a value of an input is seen before it may leave."""

MAX_WORD: Final = 64
"""Characters of a value that may leave."""

CANDIDATES_PER_WORD: Final = 20

MAX_VOCABULARIES: Final = 4096
"""Models and features that have one; a process that names more forgets the oldest, whose values are learned anew."""


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

    @property
    def is_full(self) -> bool:
        """Whether no further value will be let out."""
        return len(self._words) >= self._limit

    def __contains__(self, word: str) -> bool:
        return word in self._words

    def admit(self, counts: Mapping[str, int]) -> dict[str, int]:
        """`counts` with every value that may not leave added to `_OTHER`."""
        if self.is_full:
            kept = {word: counts[word] for word in counts.keys() & self._words}
            rest = sum(counts.values()) - sum(kept.values())
            return {**kept, semconv.OTHER: kept.get(semconv.OTHER, 0) + rest} if rest else kept
        kept = {}
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
        if word not in self._seen and len(self._seen) >= self._limit * CANDIDATES_PER_WORD:
            self._forget()
        else:
            self._seen[word] = seen
        return False

    def _forget(self) -> None:
        """Make room: every candidate is taken one sighting back, so that words seen once do not keep others out."""
        self._seen = {word: seen - 1 for word, seen in self._seen.items() if seen > 1}


class Vocabularies:
    """One vocabulary a model and feature, shared by all of the model's sessions.

    Args:
        limit: Values of each at most.
        on_full: Told the model and feature when values beyond the limit come for the first time.
    """

    def __init__(self, *, limit: int, on_full: Callable[[str, str], None] = lambda _, __: None) -> None:
        self._limit = limit
        self._on_full = on_full
        self._of: dict[tuple[str, str], Vocabulary] = {}

    def admit(self, model: str, feature: str, counts: Mapping[str, int]) -> dict[str, int]:
        """`counts` with what may not leave as `_OTHER`; an empty `feature` means the model's own labels."""
        found = self._of.get((model, feature))
        if found is None:
            if len(self._of) >= MAX_VOCABULARIES:
                del self._of[next(iter(self._of))]
            found = Vocabulary(limit=self._limit, min_seen=MIN_SEEN if feature else 1)
            self._of[(model, feature)] = found
        kept = found.admit(counts)
        if found.is_full and semconv.OTHER in kept:
            self._on_full(model, feature)
        return kept
