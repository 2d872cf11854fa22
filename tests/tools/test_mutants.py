"""The sampler changes behaviour, one place at a time, and nothing that has none."""

from __future__ import annotations

from tests.tools.mutants import mutants_of

SOURCE = '''
"""A docstring with 1 number."""
import os
LIMIT: int = 3
def add(a: int, b: int = 2) -> int:
    """Adds."""
    if a < LIMIT and not b:
        return a + b
    log(a)
    raise ValueError(1)
'''


def test_each_change_is_one_place() -> None:
    assert [mutant.title for mutant in mutants_of(SOURCE)] == [
        "LIMIT: int = 3 -> LIMIT: int = 4",
        "a: int, b: int=2 -> a: int, b: int=3",
        "if a < LIMIT and (not b): -> if not (a < LIMIT and (not b)):",
        "a < LIMIT and (not b) -> a < LIMIT or not b",
        "a < LIMIT -> a <= LIMIT",
        "not b -> b",
        "return a + b -> return",
        "a + b -> a - b",
        "log(a) -> pass",
    ]


def test_every_changed_module_can_be_compiled_and_differs() -> None:
    sources = [mutant.source for mutant in mutants_of(SOURCE)]
    for source in sources:
        compile(source, "mutant", "exec")
    assert len(set(sources)) == len(sources)
