from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.vocabulary import (
    MAX_VOCABULARIES,
    ModelVocabularies,
    TextBuckets,
    TextPseudonymizer,
    Vocabulary,
    split_bucket_label,
)

BUCKETS = TextBuckets(key="", model="shop")
DECLARED = TextPseudonymizer(buckets=BUCKETS, labels=["ham"], categories={"plan": ["basic"]}, kept_features=["city"])


def test_the_first_names_are_counted_by_name_and_all_later_ones_together() -> None:
    vocabulary = Vocabulary(limit=2)
    assert vocabulary.limit_names({"red": 4, "blue": 1}) == {"red": 4, "blue": 1}
    assert vocabulary.limit_names({"red": 1, "green": 50, "_OTHER": 2}) == {"red": 1, "_OTHER": 52}
    assert vocabulary.is_full


def test_buckets_of_texts_take_no_place_and_always_have_one() -> None:
    vocabulary = Vocabulary(limit=1)
    buckets = {BUCKETS.assign_bucket(str(number)): 1 for number in range(1000)}
    assert len(buckets) == 64
    assert vocabulary.limit_names(buckets) == buckets
    assert not vocabulary.is_full
    assert vocabulary.limit_names({"red": 1, **buckets}) == {"red": 1, **buckets}


def test_names_of_64_characters_leave_and_longer_or_unprintable_ones_do_not() -> None:
    counts = {"x" * 64: 1, "y" * 65: 1, "line\nbreak": 2, "": 3}
    assert Vocabulary(limit=9).limit_names(counts) == {"x" * 64: 1, "_OTHER": 3, "": 3}


def test_each_model_head_and_feature_has_names_of_its_own() -> None:
    vocabularies = ModelVocabularies(limit=1)
    assert vocabularies.limit_names("a", "", "", {"cat": 1, "dog": 1}) == {"cat": 1, "_OTHER": 1}
    assert vocabularies.limit_names("b", "", "", {"dog": 1}) == {"dog": 1}
    assert vocabularies.limit_names("a", "second", "", {"dog": 1}) == {"dog": 1}
    assert vocabularies.limit_names("a", "", "colour", {"dog": 1}) == {"dog": 1}


def test_more_names_than_leave_are_reported_once_they_come() -> None:
    reports: list[tuple[str, str]] = []
    vocabularies = ModelVocabularies(limit=1, on_full=lambda model, feature: reports.append((model, feature)))
    vocabularies.limit_names("m", "", "colour", {"red": 4})
    vocabularies.limit_names("m", "", "colour", {"red": 1, BUCKETS.assign_bucket("x"): 1})
    assert reports == []
    vocabularies.limit_names("m", "", "colour", {"blue": 1})
    assert reports == [("m", "colour")]


def test_models_without_end_are_not_remembered_without_end() -> None:
    vocabularies = ModelVocabularies(limit=1)
    vocabularies.limit_names("0", "", "f", {"red": 1})
    vocabularies.limit_names("1", "", "f", {"red": 1})
    for number in range(2, MAX_VOCABULARIES + 1):
        vocabularies.limit_names(str(number), "", "", {})
    assert vocabularies.limit_names("1", "", "f", {"blue": 1}) == {"_OTHER": 1}
    assert vocabularies.limit_names("0", "", "f", {"blue": 1}) == {"blue": 1}


def test_declared_texts_leave_as_they_are_from_the_first_time_and_only_where_they_are_declared() -> None:
    assert DECLARED.pseudonymize_label("ham") == "ham"
    assert DECLARED.pseudonymize_category("plan", "basic") == "basic"
    assert DECLARED.pseudonymize_category("city", "anything") == "anything"
    for name in (DECLARED.pseudonymize_label("basic"), DECLARED.pseudonymize_category("plan", "ham")):
        assert split_bucket_label(name)[1] == BUCKETS.key_id


@given(text=st.text())
def test_any_other_text_is_one_of_64_buckets(text: str) -> None:
    for name in (DECLARED.pseudonymize_label(f"{text}!"), DECLARED.pseudonymize_category("plan", f"{text}!")):
        label, key_id = split_bucket_label(name)
        assert (0 <= int(label.removeprefix("#")) < 64, key_id) == (True, BUCKETS.key_id)


@pytest.mark.parametrize(
    ("number", "is_bucket"),
    [("0", False), ("-3", False), ("10000", False), ("0.25", False), ("10001", True), ("-10001", True),
     ("918273645", True), ("1e+06", True), ("nan", True), ("spam", False)],
)  # fmt: skip
def test_numbers_are_their_own_names_up_to_ten_thousand(number: str, is_bucket: bool) -> None:
    # A number that has a class name is called by it: the model declares it.
    assert bool(split_bucket_label(DECLARED.pseudonymize_number_label(number))[1]) is is_bucket
    assert bool(split_bucket_label(DECLARED.pseudonymize_number_category("plan", number))[1]) is is_bucket


def test_digits_that_come_as_text_are_text() -> None:
    assert split_bucket_label(DECLARED.pseudonymize_category("plan", "1234"))[1] == BUCKETS.key_id
    assert DECLARED.count_categories("plan", {"1234": 2, "basic": 1}, are_texts=False) == {"1234": 2, "basic": 1}


def test_texts_leave_as_they_are_where_the_developer_lets_them() -> None:
    namer = TextPseudonymizer(buckets=None)
    assert namer.pseudonymize_label("Ann") == "Ann"
    assert namer.pseudonymize_category("plan", "Ann") == "Ann"
    assert namer.pseudonymize_number_label("99999") == "99999"


def test_categories_of_one_bucket_are_added_up() -> None:
    texts = {f"text {number}": 2 for number in range(640)}
    counts = DECLARED.count_categories("plan", texts, are_texts=True)
    assert (len(counts), sum(counts.values())) == (64, 1280)


@given(st.lists(st.sampled_from([f"class {number}" for number in range(9)]), max_size=30), st.randoms())
def test_declared_names_beyond_the_limit_are_counted_alike_by_every_process(labels: list[str], random: Random) -> None:
    declared = [f"class {number}" for number in range(9)]
    admitted: Counter[str] = Counter()
    for _ in range(3):  # fresh processes that see the same in another order
        vocabularies = ModelVocabularies(limit=4, buckets_of=lambda _: BUCKETS)
        random.shuffle(labels)
        counts = Counter(vocabularies.limit_names("m", "", "", Counter(labels[:5]), declared))
        counts.update(vocabularies.limit_names("m", "", "", Counter(labels[5:]), declared))
        assert not admitted or counts == admitted
        admitted = counts
    for name in declared[:4]:
        assert admitted[name] == labels.count(name)
    assert admitted.keys() <= {*declared[:4], *map(BUCKETS.assign_bucket, declared[4:])}


def test_declared_categories_beyond_the_limit_are_counted_in_buckets() -> None:
    reports: list[tuple[str, str]] = []
    vocabularies = ModelVocabularies(
        limit=2,
        buckets_of=lambda _: BUCKETS,
        declared_categories=lambda _, feature: ["a", "b", "c"] if feature == "plan" else [],
        on_full=lambda model, feature: reports.append((model, feature)),
    )
    assert vocabularies.limit_names("m", "", "plan", {"c": 3, "b": 1}) == {BUCKETS.assign_bucket("c"): 3, "b": 1}
    counts = {"c": 3, "b": 1, "a": 1}
    assert vocabularies.limit_names("m", "", "color", counts) == {
        BUCKETS.assign_bucket(name): n for name, n in counts.items()
    }
    assert reports == [("m", "plan"), ("m", "color")]


def test_as_many_declared_names_as_the_limit_are_all_counted_by_name() -> None:
    vocabularies = ModelVocabularies(limit=3, buckets_of=lambda _: BUCKETS)
    declared = ["a", "b", "c"]
    assert vocabularies.limit_names("m", "", "", {"c": 1, "a": 1, "b": 1}, declared) == {"c": 1, "a": 1, "b": 1}


def test_another_version_has_its_own_declared_names() -> None:
    reloaded, fresh = (Vocabulary(limit=2, buckets=BUCKETS) for _ in range(2))
    reloaded.limit_names({"a1": 1}, ["a1", "a2", "a3"])
    counts, declared = {"b1": 1, "b2": 2, "b3": 3}, ["b1", "b2", "b3"]
    assert reloaded.limit_names(counts, declared) == fresh.limit_names(counts, declared)
    assert set(fresh.limit_names(counts, declared)) == {"b1", "b2", BUCKETS.assign_bucket("b3")}


def test_of_undeclared_names_all_are_in_buckets_where_too_many_come_at_first_and_the_later_ones_else() -> None:
    many, few = (Vocabulary(limit=2, buckets=BUCKETS) for _ in range(2))
    counts = {"a": 5, "b": 2, "c": 1}
    assert many.limit_names(counts) == {BUCKETS.assign_bucket(name): count for name, count in counts.items()}
    assert many.limit_names({"a": 1}) == {BUCKETS.assign_bucket("a"): 1}
    assert few.limit_names({"a": 5, "b": 2}) == {"a": 5, "b": 2}
    assert few.limit_names(counts) == {"a": 5, "b": 2, BUCKETS.assign_bucket("c"): 1}
    assert few.limit_names({"x" * 65: 1, "_OTHER": 2}) == {"_OTHER": 3}


@pytest.mark.parametrize(
    ("counts", "declared", "is_settled"),
    [
        ({"ok": 2}, [], True),
        ({"ok": 1}, [], False),
        ({"ok": 1}, ["ok", "bad"], True),
        ({BUCKETS.assign_bucket("x"): 1}, [], True),
        ({"a": 10, "b": 9, "c": 1}, [], True),
        ({"a": 10, "b": 8, "c": 1}, [], False),
        ({"a": 1, "b": 1, "c": 1, "d": 1}, [], True),  # too many already
        ({}, [], True),
    ],
)
def test_it_is_settled_once_hardly_a_name_can_be_missing(
    counts: dict[str, int], declared: list[str], *, is_settled: bool
) -> None:
    vocabulary = Vocabulary(limit=3, buckets=BUCKETS)
    assert vocabulary.is_naming_possible(counts, declared) is is_settled
    vocabulary.limit_names({"ok": 1})
    assert vocabulary.is_naming_possible(counts, declared)
    assert Vocabulary(limit=3).is_naming_possible(counts, declared)
