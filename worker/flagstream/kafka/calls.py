"""Calls between the event loop and a thread that owns something, such as a consumer, and uses it alone."""

import asyncio
import queue
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from flagstream.errors import OwnershipLost

T = TypeVar("T")


class Calls:
    """The calls between the event loop and the thread called ``name``, in both directions.

    ``on_failure`` is called on the event loop with an error that ends the thread.
    """

    _loop: asyncio.AbstractEventLoop

    def __init__(self, name: str, on_failure: Callable[[BaseException], None]) -> None:
        self._name = name
        self._on_failure = on_failure
        self._waiting: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._closed = False

    # ── on the event loop ────────────────────────────────────────────────────────────

    def attach(self) -> None:
        """Let the thread call the event loop that is running now. Comes before the thread is started."""
        self._loop = asyncio.get_running_loop()

    async def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` on the thread, when the thread serves calls next, and return what it returns.

        Raises what ``function`` raises, and OwnershipLost when the thread has ended.
        """
        future: Future[T] = Future()
        self._waiting.put((function, future))
        if self._closed:
            self.close()
        return await asyncio.wrap_future(future)

    # ── on the thread ────────────────────────────────────────────────────────────

    def serve(self, wait: float = 0.0) -> None:
        """Run every call that waits. If none does, wait up to ``wait`` seconds for one."""
        while True:
            try:
                function, future = self._waiting.get(timeout=wait) if wait else self._waiting.get_nowait()
            except queue.Empty:
                return
            wait = 0.0
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = function()
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> Future[None]:
        """Run ``coroutine`` on the event loop. Its end wakes the thread."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        future.add_done_callback(self.wake)
        return future

    def run_soon(self, function: Callable[[], object]) -> None:
        """Run ``function`` on the event loop, and do not wait for it."""
        self._loop.call_soon_threadsafe(function)

    def fail(self, error: BaseException) -> None:
        """Report an error that ends the thread."""
        self._loop.call_soon_threadsafe(self._on_failure, error)

    def wake(self, done: Future[None] | None = None) -> None:
        """End the wait of :meth:`serve`: what the thread waits for has happened. From any thread."""
        self._waiting.put((_nothing, Future()))

    def close(self) -> None:
        """The thread serves no more calls: end those that wait, and those that come later."""
        self._closed = True
        while True:
            try:
                _, future = self._waiting.get_nowait()
            except queue.Empty:
                return
            if future.set_running_or_notify_cancel():
                future.set_exception(OwnershipLost(f"{self._name}: the consumer is closed"))


def _nothing() -> None:
    """A call that only wakes the thread."""
