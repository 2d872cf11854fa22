from __future__ import annotations

from otel_mlmon.instrumentation.record.privacy import Vocabularies, Vocabulary


def test_a_value_leaves_only_after_it_was_seen_often_and_stays_out() -> None:
    words = Vocabulary(limit=2, min_seen=5)
    assert words.admit({"red": 4, "a@b.example": 1}) == {"_OTHER": 5}
    assert words.admit({"red": 1}) == {"red": 1}
    assert words.admit({"blue": 5, "green": 50, "red": 1}) == {"blue": 5, "_OTHER": 50, "red": 1}
    assert words.admit({"x" * 65: 99, "line\nbreak": 99}) == {"_OTHER": 198}


def test_labels_leave_at_once_and_each_model_has_its_own() -> None:
    words = Vocabularies(limit=1)
    assert words.admit("a", "", {"cat": 1, "dog": 1}) == {"cat": 1, "_OTHER": 1}
    assert words.admit("b", "", {"dog": 1}) == {"dog": 1}
    assert words.admit("a", "colour", {"cat": 1}) == {"_OTHER": 1}


def test_what_it_remembers_is_bounded() -> None:
    words = Vocabulary(limit=2, min_seen=5)
    words.admit({str(number): 1 for number in range(10_000)})
    assert len(words._seen) == 40
