"""Pseudonymizes the texts of the application that leave its process, and limits how many names are counted.

A text leaves as it is only where the model declares it (its graph, its metadata, the reference that it carries) or the
developer does. Any other one is counted in one of 64 buckets of a keyed hash, from the first time on and alike in every
process, so that neither a deploy nor a restart looks like drift: enough to see drift, nothing to read.

Two texts share a bucket by chance, and whoever has the key can try which bucket a text that he guesses falls into: this
is pseudonymous, not anonymous. The key is made from the model's name unless the operator sets one, so that processes,
restarts, versions and a reference that was built elsewhere agree.

In the process a bucket is the label `#07@1f2e3d4c`, with the fingerprint of the key, so that counts under different
keys are never taken for each other; on the wire label and fingerprint are two attributes.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from otel_mlmon import semconv

BUCKETS: Final = 64

MAX_NUMBER: Final = 10_000
"""A larger whole number that nobody declared counts as a text: it may be a customer's."""

_BUCKET: Final = re.compile(r"(#\d\d)@([0-9a-f]{8})")

WHOLE_NUMBERS: Final = tuple(map(str, range(MAX_NUMBER + 1)))
"""The labels of an output that holds positions of classes without names, in order."""

MAX_WORD_CHARACTERS: Final = 64
"""The largest length of a text that leaves as it is where nobody declared it."""

MAX_VOCABULARIES: Final = 4096
"""The largest number of vocabularies, one a model and feature; beyond it the oldest is evicted and learned anew."""


MAX_UNSEEN: Final = 0.05
"""The largest share of names seen once at which the names seen so far are taken for all that there are: about the
probability that the next one is new. Source: Good, The population frequencies of species, Biometrika 40 (1953)."""

Admit = Callable[[str, str, str, Mapping[str, int], Sequence[str]], Mapping[str, int]]
"""Returns the counts that may leave the process; see `ModelVocabularies.admit`."""


class TextBuckets:
    """Assigns texts to the 64 buckets of a keyed hash, so that they can be counted and not read.

    Args:
        key: The operator's key; if it is empty, the key is made from the model's name.
        model: The name of the model.
    """

    def __init__(self, *, key: str, model: str) -> None:
        material = f"key:{key}" if key else f"model:{model}"
        self._key = hashlib.sha256(f"otel_mlmon text buckets\0{material}".encode("utf-8", "surrogatepass")).digest()
        self.key_id: Final = hashlib.sha256(b"otel_mlmon fingerprint\0" + self._key).hexdigest()[:8]
        """The fingerprint of the key, 8 hexadecimal digits."""

    def assign_bucket(self, text: str) -> str:
        """Returns the hash bucket of a text, as a label with the fingerprint of the hash key: `#07@1f2e3d4c`."""
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=8).digest()
        return f"#{int.from_bytes(digest, 'big') % BUCKETS:02d}@{self.key_id}"


class TextPseudonymizer:
    """Decides for the labels and categories of one model which leave the process as they are and which as hash buckets.

    Args:
        buckets: The buckets of undeclared texts; None if the developer lets texts leave as they are.
        labels: The labels that are declared.
        categories: The categories that are declared, by feature.
        kept_features: Features all of whose texts leave as they are.
    """

    def __init__(
        self,
        *,
        buckets: TextBuckets | None,
        labels: Iterable[str] = (),
        categories: Mapping[str, Collection[str]] | None = None,
        kept_features: Iterable[str] = (),
    ) -> None:
        self._buckets = buckets
        self._labels = frozenset(labels)
        self._kept_features = frozenset(kept_features)
        self._categories = {name: frozenset(words) for name, words in (categories or {}).items()}

    def pseudonymize_label(self, text: str) -> str:
        """Returns a predicted label as it may leave the process: itself if it is declared, else its hash bucket."""
        return self._pseudonymize_text(text, self._labels)

    def pseudonymize_number_label(self, label: str) -> str:
        """Returns a numeric predicted label as it may leave the process: itself if declared or small."""
        return self._pseudonymize_number(label, self._labels)

    def pseudonymize_category(self, feature: str, text: str) -> str:
        """Returns a text value of a feature as it may leave the process: itself if declared, else its hash bucket."""
        return (
            text if feature in self._kept_features else self._pseudonymize_text(text, self._categories.get(feature, ()))
        )

    def pseudonymize_number_category(self, feature: str, category: str) -> str:
        """Returns a numeric category of a feature as it may leave the process: itself if declared or small."""
        return (
            category
            if feature in self._kept_features
            else self._pseudonymize_number(category, self._categories.get(feature, ()))
        )

    def count_categories(self, feature: str, counts: Mapping[str, int], *, are_texts: bool) -> dict[str, int]:
        """Adds up the counts of a feature's categories by the names under which they may leave the process."""
        name_of = self.pseudonymize_category if are_texts else self.pseudonymize_number_category
        named: dict[str, int] = {}
        for category, count in counts.items():
            name = name_of(feature, category)
            named[name] = named.get(name, 0) + count
        return named

    def _pseudonymize_text(self, text: str, declared: Collection[str]) -> str:
        return text if self._buckets is None or text in declared else self._buckets.assign_bucket(text)

    def _pseudonymize_number(self, text: str, declared: Collection[str]) -> str:
        if self._buckets is None or text in declared:
            return text
        try:
            is_small = abs(float(text)) <= MAX_NUMBER
        except ValueError:
            return text  # the class name of a number
        return text if is_small else self._buckets.assign_bucket(text)


class Vocabulary:
    """Decides which labels of a model, or categories of a feature, are counted by name, and which together in buckets.

    Where all names are declared, in an order, and they are more than `limit`, the first ones are, and each other one is
    counted in its bucket: alike in every process, so that a deploy does not look like drift. Where none is declared and
    more than `limit` come before it is settled which are counted by name, all are counted in their buckets, likewise;
    else the first `limit` names that come are counted by name, and later ones in their buckets.

    Args:
        limit: Number of names at most; buckets do not count.
        buckets: The buckets of names that are not counted by themselves; None to count those as `_OTHER`.
    """

    def __init__(self, *, limit: int, buckets: TextBuckets | None = None) -> None:
        self._limit = limit
        self._buckets = buckets
        self._words: set[str] = set()
        self._is_fixed = False
        self._is_settled = False
        """Whether names have left, or were declared."""
        self._declared: Sequence[str] = ()

    @property
    def is_full(self) -> bool:
        """Whether the vocabulary is full, so that no further label or category is counted by its own name."""
        return self._is_fixed or len(self._words) >= self._limit

    def find_counted_name(self, word: str) -> str | None:
        """Returns the name that a label is counted by; None while that is not decided."""
        return word if word in self._words or split_bucket_label(word)[1] else None

    def is_naming_possible(self, counts: Mapping[str, int], declared: Sequence[str] = ()) -> bool:
        """Returns whether the first counts of a model's labels suffice to decide which are counted by name."""
        if self._is_settled or declared or self._buckets is None:
            return True
        names = self._list_countable_names(counts)
        unseen = sum(counts[name] for name in names if counts[name] == 1)
        return len(names) > self._limit or unseen <= MAX_UNSEEN * sum(counts[name] for name in names)

    def limit_names(self, counts: Mapping[str, int], declared: Sequence[str] = ()) -> dict[str, int]:
        """Returns counts by label, in which labels that are not counted by name are added up by bucket, or as `_OTHER`.

        Args:
            counts: How often each name was counted.
            declared: All names that there are, in an order that every process knows; empty if that is unknown.
        """
        is_new = declared is not self._declared and list(declared) != list(self._declared)
        if is_new and len(declared) > self._limit and self._buckets is not None:
            self._declared = declared  # another version of the model may declare others
            names = dict.fromkeys(filter(_is_countable_name, declared))
            if len(names) > self._limit:
                self._words, self._is_fixed = set(itertools.islice(names, self._limit)), True
        if not self._is_settled and not declared and self._buckets is not None:
            self._is_fixed = len(self._list_countable_names(counts)) > self._limit
        self._is_settled = True
        admitted: dict[str, int] = {}
        for word, count in counts.items():
            name = self._choose_counted_name(word)
            admitted[name] = admitted.get(name, 0) + count
        return admitted

    def _choose_counted_name(self, word: str) -> str:
        if word in self._words or split_bucket_label(word)[1]:
            return word
        if not self.is_full and _is_countable_name(word):
            self._words.add(word)
            return word
        is_in_bucket = (
            self._buckets is not None and (self._is_fixed or _is_countable_name(word)) and word != semconv.OTHER
        )
        return self._buckets.assign_bucket(word) if is_in_bucket and self._buckets is not None else semconv.OTHER

    @staticmethod
    def _list_countable_names(counts: Mapping[str, int]) -> list[str]:
        return [name for name in counts if _is_countable_name(name) and not split_bucket_label(name)[1]]


def _is_countable_name(word: str) -> bool:
    return len(word) <= MAX_WORD_CHARACTERS and word.isprintable()


class ModelVocabularies:
    """Keeps the vocabulary of each model's labels, by output (head), and of each feature's categories.

    Args:
        limit: Number of names of each at most.
        buckets_of: Returns the buckets of a model.
        declared_categories: Returns all values of a feature that are declared, from model and feature; empty if none.
        on_full: Called with model and feature when names beyond the limit come.
    """

    def __init__(
        self,
        *,
        limit: int,
        buckets_of: Callable[[str], TextBuckets | None] = lambda _: None,
        declared_categories: Callable[[str, str], Sequence[str]] = lambda _, __: (),
        on_full: Callable[[str, str], None] = lambda _, __: None,
    ) -> None:
        self._limit = limit
        self._buckets_of = buckets_of
        self._declared_categories = declared_categories
        self._on_full = on_full
        self._vocabularies: dict[tuple[str, str, str], Vocabulary] = {}

    def limit_names(
        self, model: str, head: str, feature: str, counts: Mapping[str, int], declared: Sequence[str] = ()
    ) -> dict[str, int]:
        """Returns counts by label or category as they may leave the process, and decides which of them go by name.

        Args:
            model: The name of the model.
            head: The name of the output that labels are of; empty of an only one, and of features.
            feature: The name of the feature; empty means labels.
            counts: How often each name was counted.
            declared: All labels of the head, in order; empty if they are unknown, and of features.
        """
        vocabulary = self._find_vocabulary(model, head, feature)
        admitted = vocabulary.limit_names(counts, self._declared_categories(model, feature) if feature else declared)
        if vocabulary.is_full and not admitted.keys() <= counts.keys():
            self._on_full(model, feature)
        return admitted

    def is_naming_possible(
        self, model: str, head: str, feature: str, counts: Mapping[str, int], declared: Sequence[str] = ()
    ) -> bool:
        """Returns whether the first counts of labels or categories suffice to decide which are counted by name."""
        names = self._declared_categories(model, feature) if feature else declared
        return self._find_vocabulary(model, head, feature).is_naming_possible(counts, names)

    def _find_vocabulary(self, model: str, head: str, feature: str) -> Vocabulary:
        key = (model, head, feature)
        vocabulary = self._vocabularies.get(key)
        if vocabulary is None:
            if len(self._vocabularies) >= MAX_VOCABULARIES:
                del self._vocabularies[next(iter(self._vocabularies))]
            vocabulary = self._vocabularies[key] = Vocabulary(limit=self._limit, buckets=self._buckets_of(model))
        return vocabulary


@functools.lru_cache(maxsize=4_096)
def split_bucket_label(label: str) -> tuple[str, str]:
    """Splits a bucket label `#07@1f2e3d4c` into bucket and key fingerprint; the latter is empty for other labels."""
    match = _BUCKET.fullmatch(label)
    return (match[1], match[2]) if match else (label, "")


def build_label_attributes(key: str, label: str) -> dict[str, str]:
    """Builds the attributes of a label or category: its text, and for a bucket also the fingerprint of the hash key."""
    text, key_id = split_bucket_label(label)
    return {key: text, semconv.TEXT_KEY_ID: key_id} if key_id else {key: text}


def join_bucket_label(label: str, key_id: str) -> str:
    """Returns the bucket label `#07@1f2e3d4c` of a bucket and a key fingerprint; leaves other labels as they are."""
    joined = f"{label}@{key_id}"
    return joined if _BUCKET.fullmatch(joined) else label
