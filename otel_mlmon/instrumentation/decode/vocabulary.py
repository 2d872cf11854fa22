"""Decides which of the application's strings may become attribute values: a bounded vocabulary of frequent ones.

A name, an address or a sentence in a string input comes once or twice and never leaves the process; a category comes
again and again. Of the others only the count leaves, as `_OTHER`.

Candidates are counted as by Misra and Gries (Finding repeated elements, 1982): in bounded memory, never above the true
count, and a frequent word is found among any number of words that come once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from otel_mlmon import semconv

MIN_COUNT: Final = 5
"""Number of occurrences from which on a value of an input may leave the process."""

MAX_WORD_CHARACTERS: Final = 64
"""The largest length of a value that may leave the process."""

CANDIDATES_PER_WORD: Final = 20

MAX_VOCABULARIES: Final = 4096
"""The largest number of vocabularies, one a model and feature; beyond it the oldest is evicted and learned anew."""


class Vocabulary:
    """Holds the values that may leave the process, at most `limit`; an admitted value stays admitted.

    Args:
        limit: Number of values at most.
        min_count: Number of times that a value must come first; 1 for labels, which are the model's own.
        initial_words: Values that may leave from the start, as the developer declared them.
    """

    def __init__(self, *, limit: int, min_count: int, initial_words: Collection[str] = ()) -> None:
        self._limit = limit
        self._min_count = min_count
        self._words: set[str] = set(list(initial_words)[:limit])
        self._candidates: dict[str, int] = {}

    @property
    def is_full(self) -> bool:
        """Whether no further value will be admitted."""
        return len(self._words) >= self._limit

    def __contains__(self, word: str) -> bool:
        return word in self._words

    def admit(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Returns `counts` with all values that may not leave the process added up as `_OTHER`."""
        if self.is_full:
            admitted = {word: counts[word] for word in counts.keys() & self._words}
            others = sum(counts.values()) - sum(admitted.values())
            return {**admitted, semconv.OTHER: admitted.get(semconv.OTHER, 0) + others} if others else admitted
        admitted = {}
        for word, count in counts.items():
            name = word if word in self._words or self._learn(word, count) else semconv.OTHER
            admitted[name] = admitted.get(name, 0) + count
        return admitted

    def _learn(self, word: str, count: int) -> bool:
        if self.is_full or len(word) > MAX_WORD_CHARACTERS or not word.isprintable():
            return False
        total = self._candidates.get(word, 0) + count
        if total >= self._min_count:
            self._words.add(word)
            self._candidates.pop(word, None)
            return True
        if word not in self._candidates and len(self._candidates) >= self._limit * CANDIDATES_PER_WORD:
            self._decrement_candidates()
        else:
            self._candidates[word] = total
        return False

    def _decrement_candidates(self) -> None:
        """Decrements the candidates' counts and drops those at 0, so that rare values do not block frequent ones."""
        self._candidates = {word: count - 1 for word, count in self._candidates.items() if count > 1}


class Vocabularies:
    """Holds one vocabulary for each feature, and each head, of a model, shared by all sessions of the model.

    Args:
        limit: Number of values of each at most.
        on_full: Called with model and feature when values beyond the limit come.
    """

    def __init__(self, *, limit: int, on_full: Callable[[str, str], None] = lambda _, __: None) -> None:
        self._limit = limit
        self._on_full = on_full
        self._vocabularies: dict[tuple[str, str, str], Vocabulary] = {}

    def admit(self, model: str, head: str, feature: str, counts: Mapping[str, int]) -> dict[str, int]:
        """Returns `counts` with all values that may not leave as `_OTHER`; an empty `feature` means labels of `head`.

        The head of a model that has one has no name.
        """
        vocabulary = self._vocabularies.get((model, head, feature))
        if vocabulary is None:
            if len(self._vocabularies) >= MAX_VOCABULARIES:
                del self._vocabularies[next(iter(self._vocabularies))]
            vocabulary = Vocabulary(limit=self._limit, min_count=MIN_COUNT if feature else 1)
            self._vocabularies[(model, head, feature)] = vocabulary
        admitted = vocabulary.admit(counts)
        if vocabulary.is_full and semconv.OTHER in admitted:
            self._on_full(model, feature)
        return admitted
