"""Hooks into servers and pools that end a process, or its telemetry, without running `atexit`.

| who | when | why |
|---|---|---|
| uvicorn | after `Server.shutdown` | it raises the signal again that ended it, with the default handler in place |
| Celery | signal `worker_process_shutdown` | children of its pool end by `os._exit` |
| `multiprocessing.Pool` | before it terminates idle workers | `with Pool() as pool` ends them by SIGTERM |
| OpenTelemetry's SDK | before `shutdown` and `force_flush` of a provider | what waits in our queue belongs to it |

Every hook is a method replaced on its class, or a signal's receiver: set once its module is loaded, and taken off by
`restore_method`. Below another library's patch it stays, and does nothing.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from otel_mlmon.guard import guard


class HostEndActions(Protocol):
    """The Protocol of the object that the hooks tell that the application ends, so that it exports what is left."""

    def flush_all(self) -> None:
        """Exports all signals, also those that the application's own providers hold."""

    def flush_to_provider(self, provider: object) -> None:
        """Writes all waiting signals to a provider that is about to be flushed, if it is one of those in use."""

    @property
    def timeout_s(self) -> float:
        """The time in seconds that exporting at the end of the application may take."""


class MethodHook:
    """A method of another library that is replaced on its class, and can be restored.

    Args:
        owner: The class that defines the method.
        name: The method.
        wrap: Makes the replacement, of the original as a plain function.
    """

    def __init__(self, owner: type, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._owner, self._name = owner, name
        self._original: Any = owner.__dict__[name]
        function = getattr(self._original, "__func__", self._original)
        wrapped = wrap(function)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def replacement(*arguments: Any, **keywords: Any) -> Any:
                return await (wrapped if self._is_on else function)(*arguments, **keywords)
        else:

            @functools.wraps(function)
            def replacement(*arguments: Any, **keywords: Any) -> Any:
                return (wrapped if self._is_on else function)(*arguments, **keywords)

        self._is_on = True
        self._replacement: Any = classmethod(replacement) if isinstance(self._original, classmethod) else replacement
        setattr(owner, name, self._replacement)

    def restore_method(self) -> None:
        """Restores the method, or makes the replacement do nothing where another library has patched it too."""
        self._is_on = False
        if self._owner.__dict__.get(self._name) is self._replacement:
            setattr(self._owner, self._name, self._original)


class HostHooks:
    """Hooks the servers and pools that are imported into this process, so that signals are exported at the end.

    Runs on: any thread; `hook_loaded_modules` on one at a time.

    Args:
        end: Is called by the hooks.
    """

    def __init__(self, end: HostEndActions) -> None:
        # A process that makes a pool may itself run no model, so that nobody would look again once it is loaded.
        importlib.import_module("multiprocessing.pool")
        self._end = end
        self._waiting = dict(_HOOKS)
        self._undo: list[Callable[[], None]] = []

    def hook_loaded_modules(self) -> None:
        """Hooks the server and pool modules that were imported since the last call."""
        for module_name in [name for name in self._waiting if name in sys.modules]:
            module = sys.modules[module_name]
            if getattr(getattr(module, "__spec__", None), "_initializing", False):
                continue  # another thread imports it just now
            hook = self._waiting.pop(module_name)
            with guard("host_hooks"):
                self._undo.append(hook(module, self._end))

    def remove_hooks(self) -> None:
        """Removes all hooks from servers and pools."""
        self._waiting.clear()
        while self._undo:
            with guard("host_hooks"):
                self._undo.pop()()


def _hook_uvicorn(module: Any, end: HostEndActions) -> Callable[[], None]:
    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        async def shutdown(*arguments: Any, **keywords: Any) -> Any:
            try:
                return await original(*arguments, **keywords)
            finally:
                with guard("shutdown"):
                    import asyncio  # which the server has loaded, and a program without one need not

                    await asyncio.get_running_loop().run_in_executor(None, end.flush_all)

        return shutdown

    return MethodHook(module.Server, "shutdown", wrap).restore_method


def _hook_celery(module: Any, end: HostEndActions) -> Callable[[], None]:
    def flush(**_: Any) -> None:
        end.flush_all()

    shutdown = module.worker_process_shutdown
    shutdown.connect(flush, weak=False)
    return functools.partial(shutdown.disconnect, flush)


def _hook_process_pool(module: Any, end: HostEndActions) -> Callable[[], None]:
    """Makes the idle workers of a process pool export their signals before the pool terminates them."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(original)

        def terminate_pool(*arguments: Any, **keywords: Any) -> Any:
            with guard("host_hooks"):
                bound = signature.bind(*arguments, **keywords).arguments
                if not bound["cache"]:
                    _end_idle_workers(module, bound, end.timeout_s)
            return original(*arguments, **keywords)

        return terminate_pool

    return MethodHook(module.Pool, "_terminate_pool", wrap).restore_method


def end_pool_worker() -> None:
    """Exports the signals of a pool's worker process, then ends it by the signal the pool would send.

    Runs on: the worker's main thread, as its last task. Source: CPython, multiprocessing/pool.py, `worker`.
    """
    lifecycle = sys.modules.get("otel_mlmon.instrumentation.lifecycle")
    if lifecycle is not None:
        lifecycle.shutdown_abruptly()
    signal.raise_signal(signal.SIGTERM)


def _end_idle_workers(module: Any, pool: dict[str, Any], timeout_s: float) -> None:
    workers = [worker for worker in pool["pool"] if hasattr(worker, "terminate")]
    handler = pool["worker_handler"]
    # On Windows a process cannot end itself by the code that another's `terminate` would give it.
    if not workers or handler._state == module.TERMINATE or sys.platform == "win32":
        return
    if handler._state == module.RUN:
        pool["taskqueue"].put(([(None, None, end_pool_worker, (), {})] * len(workers), None))
        # As `Pool.close` does, so that no worker takes the place of one that has ended.
        handler._state = module.CLOSE
        pool["change_notifier"].put(None)
    deadline_s = time.monotonic() + timeout_s
    for worker in workers:
        worker.join(max(0.0, deadline_s - time.monotonic()))


def _hook_otel_provider(name: str, module: Any, end: HostEndActions) -> Callable[[], None]:
    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def flush_first(self: Any, *arguments: Any, **keywords: Any) -> Any:
            end.flush_to_provider(self)
            return original(self, *arguments, **keywords)

        return flush_first

    hooks = [MethodHook(getattr(module, name), method, wrap) for method in ("shutdown", "force_flush")]

    def undo() -> None:
        for hook in hooks:
            hook.restore_method()

    return undo


_HOOKS: Final[dict[str, Callable[[Any, HostEndActions], Callable[[], None]]]] = {
    "uvicorn.server": _hook_uvicorn,
    "celery.signals": _hook_celery,
    "multiprocessing.pool": _hook_process_pool,
    "opentelemetry.sdk.trace": functools.partial(_hook_otel_provider, "TracerProvider"),
    "opentelemetry.sdk.metrics": functools.partial(_hook_otel_provider, "MeterProvider"),
    "opentelemetry.sdk._logs": functools.partial(_hook_otel_provider, "LoggerProvider"),
}
"""A function that sets the hooks of a module, and returns the one that removes them."""
