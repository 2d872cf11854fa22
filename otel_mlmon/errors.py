"""Every exception this package raises on purpose.

    MlmonError
    ├── ConfigurationError      what the operator or developer wrote is wrong; carries every fault
    ├── DependencyMissingError  an extra is needed and is not installed
    ├── BinMismatchError        two sketches or count vectors do not share their bins
    ├── ProfileError            a reference profile cannot be read
    ├── DataError               a file of data, or the model it is for, cannot be used
    ├── StoreError              the state on disk cannot be used
    ├── PortUnavailableError    an address cannot be listened on
    ├── OverloadedError         there is no room for a request now; it may be sent again
    ├── UnavailableError        a fault of ours kept a request from being taken; it may be sent again
    └── MalformedError          a request is not what it says it is; sending it again cannot help

Only `ConfigurationError` can reach the application that calls `instrument()`; the others are the processor's.
"""

from __future__ import annotations


class MlmonError(Exception):
    """Base of all exceptions of this package."""


class ConfigurationError(MlmonError, ValueError):
    """What the operator or developer wrote is wrong.

    Args:
        faults: One sentence a fault; at least one. For a file, each begins with `file:line: key`.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults: tuple[str, ...] = faults


class DependencyMissingError(MlmonError, ImportError):
    """An optional part of the package is needed whose dependencies are not installed."""


class BinMismatchError(MlmonError, ValueError):
    """Two sketches, or a reference and a window, do not share their bins."""


class ProfileError(MlmonError, ValueError):
    """A reference profile is not one, is of a version this release does not know, or cannot be had."""


class DataError(MlmonError, ValueError):
    """A file of data cannot be read, or does not fit the model that it is for; says what and where."""


class StoreError(MlmonError, RuntimeError):
    """The state on disk is of an unknown version, locked by another process, or not ours."""


class PortUnavailableError(MlmonError, OSError):
    """An address cannot be listened on; names the address and the option that sets it."""


class OverloadedError(MlmonError, RuntimeError):
    """There is no room for a request now.

    Args:
        retry_after_s: When the sender may try again, in seconds, above 0.
    """

    def __init__(self, reason: str, *, retry_after_s: float) -> None:
        super().__init__(reason)
        self.retry_after_s: float = retry_after_s


class UnavailableError(MlmonError, RuntimeError):
    """A fault of ours kept a request from being taken.

    Args:
        retry_after_s: When the sender may try again, in seconds, above 0.
    """

    def __init__(self, reason: str, *, retry_after_s: float) -> None:
        super().__init__(reason)
        self.retry_after_s: float = retry_after_s


class MalformedError(MlmonError, ValueError):
    """A request cannot be read: it is not a message of the protocol. Sending it again cannot help."""
