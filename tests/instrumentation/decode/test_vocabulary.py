from __future__ import annotations

import pytest

from otel_mlmon.instrumentation.decode.vocabulary import MAX_VOCABULARIES, MIN_COUNT, Vocabularies, Vocabulary


def test_a_value_leaves_only_after_it_came_often_and_stays_out() -> None:
    words = Vocabulary(limit=2, min_count=5)
    assert words.admit({"red": 4, "a@b.example": 1}) == {"_OTHER": 5}
    assert words.admit({"red": 1}) == {"red": 1}
    assert words.admit({"blue": 5, "green": 50, "red": 1}) == {"blue": 5, "_OTHER": 50, "red": 1}
    assert words.admit({"x" * 65: 99, "line\nbreak": 99}) == {"_OTHER": 198}


def test_labels_leave_at_once_and_each_model_has_its_own() -> None:
    words = Vocabularies(limit=1)
    assert words.admit("a", "", "", {"cat": 1, "dog": 1}) == {"cat": 1, "_OTHER": 1}
    assert words.admit("b", "", "", {"dog": 1}) == {"dog": 1}
    assert words.admit("a", "", "colour", {"cat": 1}) == {"_OTHER": 1}


@pytest.mark.parametrize("at_once", [1, 1000])
def test_a_million_values_are_remembered_in_bounded_memory_and_a_frequent_one_is_found(at_once: int) -> None:
    words = Vocabulary(limit=2, min_count=5)
    leaving = 0
    for start in range(0, 1_000_000, 1000):
        for first in range(start, start + 1000, at_once) if start < 20_000 else (start,):
            leaving += len(
                words.admit({str(number): 1 for number in range(first, first + at_once)}).keys() - {"_OTHER"}
            )
        assert len(words._candidates) <= 40
    assert leaving == 0
    words.admit({"red": 3})
    assert [words.admit({"red": 1}) for _ in range(2)] == [{"_OTHER": 1}, {"red": 1}]


def test_that_there_are_more_values_than_leave_is_told() -> None:
    told: list[tuple[str, str]] = []
    words = Vocabularies(limit=1, on_full=lambda model, feature: told.append((model, feature)))
    words.admit("m", "", "", {"cat": 1})
    assert told == []
    words.admit("m", "", "", {"dog": 1})
    assert told == [("m", "")]


def test_making_room_takes_one_sighting_back() -> None:
    words = Vocabulary(limit=1, min_count=5)
    words.admit({"red": 4, "blue": 2})
    words.admit({f"once {number}": 1 for number in range(19)})  # eighteen fill it up, the nineteenth makes room
    assert words._candidates == {"red": 3, "blue": 1}
    assert [words.admit({"red": 1}) for _ in range(2)] == [{"_OTHER": 1}, {"red": 1}]


def test_models_without_end_are_not_remembered_without_end() -> None:
    words = Vocabularies(limit=1)
    often = {"red": MIN_COUNT}
    assert [words.admit("0", "", "f", often), words.admit("1", "", "f", often)] == [often, often]
    for number in range(2, MAX_VOCABULARIES + 1):
        words.admit(str(number), "", "", {})
    assert words.admit("1", "", "f", {"red": 1}) == {"red": 1}
    assert words.admit("0", "", "f", {"red": 1}) == {"_OTHER": 1}


def test_words_of_64_characters_leave_and_longer_or_unprintable_ones_do_not() -> None:
    vocabulary = Vocabulary(limit=9, min_count=1)
    counts = {"x" * 64: 1, "y" * 65: 1, "line\nbreak": 2, "": 3}
    assert vocabulary.admit(counts) == {"x" * 64: 1, "_OTHER": 3, "": 3}


def test_four_times_are_not_often_and_five_are() -> None:
    vocabulary = Vocabulary(limit=9, min_count=MIN_COUNT)
    assert vocabulary.admit({"four": 4, "five": 5}) == {"_OTHER": 4, "five": 5}
    assert ("four" in vocabulary, "five" in vocabulary) == (False, True)
    assert vocabulary.admit({"four": 1}) == {"four": 1}
    assert vocabulary._candidates == {}  # an admitted word takes no room


def test_initial_words_leave_from_the_start_up_to_the_limit() -> None:
    vocabulary = Vocabulary(limit=2, min_count=5, initial_words=["a", "b", "c"])
    assert vocabulary.is_full
    assert vocabulary.admit({"a": 1, "c": 9}) == {"a": 1, "_OTHER": 9}
    assert vocabulary.admit({"b": 2}) == {"b": 2}


def test_a_word_that_reads_as_other_is_added_to_the_others() -> None:
    vocabulary = Vocabulary(limit=2, min_count=1, initial_words=["_OTHER", "a"])
    assert vocabulary.admit({"a": 1, "_OTHER": 2, "b": 4}) == {"a": 1, "_OTHER": 6}


def test_a_word_beyond_the_limit_is_not_learned_within_one_call() -> None:
    vocabulary = Vocabulary(limit=1, min_count=1)
    assert not vocabulary.is_full
    assert vocabulary.admit({"a": 1, "b": 2, "c": 3}) == {"a": 1, "_OTHER": 5}
    assert vocabulary._candidates == {}


def test_candidates_are_as_many_as_may_be_and_a_known_one_makes_no_room() -> None:
    vocabulary = Vocabulary(limit=1, min_count=5)
    vocabulary.admit({f"word {number}": 2 for number in range(20)})
    assert len(vocabulary._candidates) == 20
    vocabulary.admit({"word 3": 1})
    assert vocabulary._candidates == {**{f"word {number}": 2 for number in range(20)}, "word 3": 3}
    vocabulary.admit({"new": 4})
    assert vocabulary._candidates == {**{f"word {number}": 1 for number in range(20)}, "word 3": 2}


def test_full_vocabularies_are_reported_only_when_something_is_left_out() -> None:
    reports: list[tuple[str, str]] = []
    vocabularies = Vocabularies(limit=1, on_full=lambda model, feature: reports.append((model, feature)))
    vocabularies.admit("m", "", "colour", {"red": 4})
    assert (vocabularies.admit("m", "", "colour", {"red": 1}), reports) == ({"red": 1}, [])
    vocabularies.admit("m", "", "colour", {"red": 1})
    assert reports == []
    vocabularies.admit("m", "", "colour", {"blue": 1})
    assert reports == [("m", "colour")]
