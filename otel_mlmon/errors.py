"""All exceptions that this package raises on purpose.

    MlmonError
    ├── ConfigurationError      a setting, an argument or a configuration file cannot be used (also a ValueError)
    ├── DependencyMissingError  an optional dependency is needed and not installed (also an ImportError)
    ├── BinMismatchError        two sketches do not have the same bins (also a ValueError)
    ├── ProfileError            a reference profile cannot be read (also a ValueError)
    ├── DataError               a file of data, or a model, cannot be used (also a ValueError)
    ├── ProcessorError          a running processor does not answer, or refuses (also a RuntimeError)
    ├── StoreError              the state on disk cannot be used (also a RuntimeError)
    ├── ApplyError              an internal error kept a request from the state (also a RuntimeError)
    ├── PortUnavailableError    an address cannot be listened on (also an OSError)
    ├── MalformedError          a request cannot be parsed; sending it again does not help (also a ValueError)
    ├── RetryableError          a request was not accepted now, and may be sent again (also a RuntimeError)
    │   ├── OverloadedError     there is no room for it
    │   └── UnavailableError    an internal error prevented it
    ├── TransientError          a notification failed and is sent again (in processor.notify.notifier)
    ├── PermanentError          a notification failed for good (in processor.notify.notifier)
    └── ChildFailedError        a process of `otel-mlmon demo` failed (in demo.child)

Only `ConfigurationError` reaches the application that calls `instrument()`; the others belong to the processor and the
command line.
"""

from __future__ import annotations


class MlmonError(Exception):
    """Base of all exceptions of this package."""


class ConfigurationError(MlmonError, ValueError):
    """A setting, an argument or a configuration file cannot be used.

    Args:
        faults: One sentence for each fault, at least one. For a file, each begins with `file:line: key`.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults: tuple[str, ...] = faults


class DependencyMissingError(MlmonError, ImportError):
    """An optional dependency is needed and not installed; the message says how to install it."""


class BinMismatchError(MlmonError, ValueError):
    """Two sketches do not have the same bins."""


class ProfileError(MlmonError, ValueError):
    """A reference profile cannot be parsed or is of an unknown version."""


class DataError(MlmonError, ValueError):
    """A file of data, or a model, cannot be read, or the two do not fit; names the place."""


class ProcessorError(MlmonError, RuntimeError):
    """A running processor does not answer on its web port, or refuses what it is asked for; says which and why."""


class StoreError(MlmonError, RuntimeError):
    """The state on disk is damaged, of an unknown version, of another program, or locked by another process."""


class ApplyError(MlmonError, RuntimeError):
    """An internal error kept one request from being applied to the state; the guard has reported it."""


class PortUnavailableError(MlmonError, OSError):
    """An address cannot be listened on; names the address and the option that sets it."""


class MalformedError(MlmonError, ValueError):
    """A request cannot be parsed as a message of the protocol; sending it again does not help."""


class RetryableError(MlmonError, RuntimeError):
    """A request was not accepted now, and may be sent again.

    Args:
        reason: One sentence.
        retry_after_s: When the sender may try again, in seconds, above 0.
    """

    def __init__(self, reason: str, *, retry_after_s: float) -> None:
        super().__init__(reason)
        self.retry_after_s: float = retry_after_s


class OverloadedError(RetryableError):
    """There is no room for a request now."""


class UnavailableError(RetryableError):
    """An internal error prevented a request from being accepted."""
