"""Calls from the event loop to a thread that owns something, such as a consumer, and runs them itself."""

import asyncio
import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from flagstream.errors import OwnershipLost

T = TypeVar("T")


class Calls:
    """The calls that wait for the thread called ``name``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._closed = False

    async def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` on the thread, when it serves calls next. Raises what it raises, and OwnershipLost
        when nobody serves calls any more.
        """
        future: Future[T] = Future()
        self._waiting.put((function, future))
        if self._closed:
            self.close()
        return await asyncio.wrap_future(future)

    def serve(self, wait: float = 0.0) -> None:
        """On the thread: run every call that waits; if none does, wait up to ``wait`` seconds for one."""
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

    def wake(self, done: Future[None] | None = None) -> None:
        """End the wait of :meth:`serve` at once: what the thread waits for has happened."""
        self._waiting.put((_nothing, Future()))

    def close(self) -> None:
        """Nobody serves calls any more: end those that wait, and those that still come."""
        self._closed = True
        while True:
            try:
                _, future = self._waiting.get_nowait()
            except queue.Empty:
                return
            if future.set_running_or_notify_cancel():
                future.set_exception(OwnershipLost(f"{self._name}: the consumer is closed"))


def _nothing() -> None:
    """A call that only wakes."""
