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
    """The base class of all exceptions that otel_mlmon raises."""


class ConfigurationError(MlmonError, ValueError):
    """Raised for a setting, an argument or a configuration file that cannot be used.

    Args:
        faults: One sentence for each fault, at least one. For a file, each begins with `file:line: key`.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults: tuple[str, ...] = faults


class DependencyMissingError(MlmonError, ImportError):
    """Raised where an optional package is needed and not installed; the message says how to install it."""


class BinMismatchError(MlmonError, ValueError):
    """Raised where two histograms cannot be merged or compared, because their bins differ."""


class ProfileError(MlmonError, ValueError):
    """Raised for a reference profile that cannot be parsed or is of an unknown version."""


class DataError(MlmonError, ValueError):
    """Raised for a data or model file that cannot be read, or for data that does not fit; names the place."""


class ProcessorError(MlmonError, RuntimeError):
    """Raised where a running processor does not answer on its web port, or refuses a request; says which and why."""


class StoreError(MlmonError, RuntimeError):
    """Raised where the stored state is damaged, of an unknown version or another program, or locked by a process."""


class ApplyError(MlmonError, RuntimeError):
    """Raised where an internal error kept a request from being applied to the processor's state."""


class PortUnavailableError(MlmonError, OSError):
    """Raised where a network address cannot be listened on; names the address and the option that sets it."""


class MalformedError(MlmonError, ValueError):
    """Raised for a request that cannot be parsed as OTLP; sending it again does not help."""


class RetryableError(MlmonError, RuntimeError):
    """Raised for a request that the processor does not accept now, and the sender may send again.

    Args:
        reason: One sentence.
        retry_after_s: When the sender may try again, in seconds, above 0.
    """

    def __init__(self, reason: str, *, retry_after_s: float) -> None:
        super().__init__(reason)
        self.retry_after_s: float = retry_after_s


class OverloadedError(RetryableError):
    """Raised for a request that the processor has no room for now."""


class UnavailableError(RetryableError):
    """Raised where an internal error prevented the processor from accepting a request."""
