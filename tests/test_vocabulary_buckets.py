from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import chisquare

from otel_mlmon import semconv
from otel_mlmon.vocabulary import BUCKETS, TextBuckets, build_label_attributes, join_bucket_label, split_bucket_label


def test_every_process_agrees_on_the_buckets_of_a_model() -> None:
    program = (
        "from otel_mlmon.vocabulary import TextBuckets; print(TextBuckets(key='', model='shop').assign_bucket('Ann'))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    assert outputs == {TextBuckets(key="", model="shop").assign_bucket("Ann")}


def test_models_and_keys_have_buckets_of_their_own() -> None:
    keys = [TextBuckets(key=key, model=model) for key, model in (("", "a"), ("", "b"), ("a", "x"), ("secret", "a"))]
    assert len({buckets.key_id for buckets in keys}) == 4
    assert TextBuckets(key="secret", model="a").key_id == TextBuckets(key="secret", model="b").key_id
    texts = [f"user{number}@example.test" for number in range(200)]
    assignments = {tuple(split_bucket_label(buckets.assign_bucket(text))[0] for text in texts) for buckets in keys}
    assert len(assignments) == 4


def test_texts_spread_evenly_over_the_buckets() -> None:
    buckets = TextBuckets(key="", model="shop")
    numbers = [int(split_bucket_label(buckets.assign_bucket(f"text {number}"))[0][1:]) for number in range(64_000)]
    assert chisquare(np.bincount(numbers, minlength=BUCKETS)).pvalue > 1e-3


def test_a_bucket_is_written_as_a_label_and_the_fingerprint_of_its_key() -> None:
    buckets = TextBuckets(key="", model="shop")
    label = buckets.assign_bucket("Ann")
    attributes = build_label_attributes(semconv.PREDICTION_LABEL, label)
    assert attributes == {semconv.PREDICTION_LABEL: label[:3], semconv.TEXT_KEY_ID: buckets.key_id}
    assert join_bucket_label(attributes[semconv.PREDICTION_LABEL], attributes[semconv.TEXT_KEY_ID]) == label


@pytest.mark.parametrize("label", ["", "spam", "#7", "#123", "#07", "#07@", "#07@xyz", "a#07@1f2e3d4c"])
def test_other_labels_are_no_buckets(label: str) -> None:
    assert split_bucket_label(label) == (label, "")
    assert build_label_attributes("key", label) == {"key": label}


def test_a_label_that_comes_with_no_fingerprint_of_ours_stays_as_it_is() -> None:
    assert (join_bucket_label("spam", "1f2e3d4c"), join_bucket_label("#07", "tooshort!")) == ("spam", "#07")


def test_a_text_that_is_no_unicode_has_a_bucket() -> None:
    assert split_bucket_label(TextBuckets(key="\ud800", model="").assign_bucket("\udfff"))[1]
