"""Buckets of a keyed hash, in which texts are counted that nobody declared: enough to see drift, nothing to read.

A text is one of 64 buckets. Two texts share a bucket by chance, and whoever has the key can try which bucket a text
that he guesses falls into: this is pseudonymous, not anonymous. The key is made from the model's name unless the
operator sets one, so that processes, restarts, versions and a reference that was built elsewhere agree.

In the process a bucket is the label `#07@1f2e3d4c`, with the fingerprint of the key, so that counts under different
keys are never taken for each other; on the wire label and fingerprint are two attributes.
"""

from __future__ import annotations

import functools
import hashlib
import re
from typing import Final

from otel_mlmon import semconv

BUCKETS: Final = 64

MAX_NUMBER: Final = 10_000
"""A larger whole number that nobody declared counts as a text: it may be a customer's."""

_BUCKET: Final = re.compile(r"(#\d\d)@([0-9a-f]{8})")


class TextBuckets:
    """Assigns texts to the buckets of one key.

    Args:
        key: The operator's key; if it is empty, the key is made from the model's name.
        model: The name of the model.
    """

    def __init__(self, *, key: str, model: str) -> None:
        material = f"key:{key}" if key else f"model:{model}"
        self._key = hashlib.sha256(f"otel_mlmon text buckets\0{material}".encode("utf-8", "surrogatepass")).digest()
        self.key_id: Final = hashlib.sha256(b"otel_mlmon fingerprint\0" + self._key).hexdigest()[:8]
        """The fingerprint of the key, 8 hexadecimal digits."""

    def assign(self, text: str) -> str:
        """Returns the bucket of a text as a label with the key's fingerprint."""
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=8).digest()
        return f"#{int.from_bytes(digest, 'big') % BUCKETS:02d}@{self.key_id}"


@functools.lru_cache(maxsize=4096)
def split_bucket(label: str) -> tuple[str, str]:
    """Splits a label into what is written, and the fingerprint of its key; empty of a label that is no bucket."""
    match = _BUCKET.fullmatch(label)
    return (match[1], match[2]) if match else (label, "")


def name_attributes(key: str, label: str) -> dict[str, str]:
    """Builds the attribute `key` of a label or category, and of a bucket that of the fingerprint too."""
    text, key_id = split_bucket(label)
    return {key: text, semconv.TEXT_KEY_ID: key_id} if key_id else {key: text}


def join_bucket(label: str, key_id: str) -> str:
    """Returns the label of a bucket that came with the fingerprint of its key; other labels stay as they are."""
    joined = f"{label}@{key_id}"
    return joined if _BUCKET.fullmatch(joined) else label
