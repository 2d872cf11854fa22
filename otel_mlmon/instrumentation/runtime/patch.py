"""A method replaced in place, so that it can be undone in any order with the patches of others.

Choice: plain functions set on the class, not wrapt's proxies, which cost 1 µs more a call and cannot be taken off once
somebody else patched the same method on top.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Method = Callable[..., Any]


class Replacement(NamedTuple):
    """What takes the place of a method."""

    function: Method
    switch_off: Callable[[], None]
    """Makes `function` hand everything on and do nothing of its own, for good."""


class Patch:
    """One method of one class, replaced.

    Args:
        owner: The class; the method is replaced where its method resolution order defines it, so that patches of others
            below ours are kept.
        name: The method.
        make: Given the method as it is now, what replaces it.
    """

    def __init__(self, owner: type, name: str, make: Callable[[Method], Replacement]) -> None:
        self._owner = next(base for base in owner.__mro__ if name in base.__dict__)
        self._name = name
        self._original: Method = self._owner.__dict__[name]
        self._ours = make(self._original)
        setattr(self._owner, name, self._ours.function)

    def undo(self) -> bool:
        """Take the patch off; whether the method is the former one, not a pass-through below somebody else's patch."""
        self._ours.switch_off()
        if self._owner.__dict__.get(self._name) is not self._ours.function:
            return False
        setattr(self._owner, self._name, self._original)
        return True
