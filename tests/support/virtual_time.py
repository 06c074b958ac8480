"""An event loop that jumps to its next timer instead of waiting, so that tests of clocks need no clock."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any, ParamSpec

P = ParamSpec("P")


class NothingLeftToHappen(RuntimeError):
    """The test waits, but no timer is set and nothing is ready: it would wait for ever."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Time stands still while anything is ready to run and jumps to the next timer when nothing is.

    Calls for worker threads run at once, on the loop: a test sees one order of events, always the same. While
    ``hold_threads`` is in force, calls for an executor of the code's own wait for ``release_threads``.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._holding = False
        self._held: list[tuple[asyncio.Future[Any], Callable[[], Any]]] = []
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()
        if self._holding and executor is not None:
            self._held.append((future, partial(func, *args)))
        else:
            _settle(future, partial(func, *args))
        return future

    def hold_threads(self) -> None:
        """Let calls for an executor wait from now on, as if its thread were busy."""
        self._holding = True

    def release_threads(self) -> None:
        """Run the calls that wait, in their order, and let later ones run at once."""
        self._holding = False
        held, self._held = self._held, []
        for future, call in held:
            if not future.cancelled():
                _settle(future, call)


def _settle(future: asyncio.Future[Any], call: Callable[[], Any]) -> None:
    try:
        future.set_result(call())
    except Exception as error:
        future.set_exception(error)


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise NothingLeftToHappen
            self._loop.now += timeout
        return events


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine as a test, on a VirtualTimeLoop."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


async def passed(seconds: float) -> None:
    """Let virtual time pass; whatever is due until then has run when this returns."""
    await asyncio.sleep(seconds)


async def settled() -> None:
    """Let everything run that needs no time to pass: a millisecond passes only when nothing else is ready."""
    await asyncio.sleep(0.001)
