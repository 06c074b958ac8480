"""A client of a store that is never older than its credentials."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from flagstream.errors import SinkRefused

IDLE_SECONDS = 200.0
"""A client that nobody used for so long is replaced: networks forget idle connections (a NAT gateway of AWS
after 350 s, a load balancer of Azure after 240 s) and drop later packets silently.
"""
AGE_SECONDS = 1_800.0
"""A client that is older is replaced: its connections go to the addresses that the store's name had when it
was made, and its credentials are those of that time.
"""

Client = TypeVar("Client")
T = TypeVar("T")


class _InThread(threading.local):
    number = 0
    """The number of the client that this thread used last; 0 if it has used none in the call under way."""


class Renewed(Generic[Client]):
    """A client for all threads: made when it is first needed, and again when it is denied, idle or old.

    ``make`` raises SinkErrors. ``close`` is called with a client that was replaced, after the last call that
    was under way. ``translated`` is the context manager that turns the client library's errors into
    SinkErrors; its argument says what is being done. ``anonymous``: there are no credentials that a new
    client could find, so a denial is final. ``clock`` is monotonic, in seconds.
    """

    def __init__(
        self,
        make: Callable[[], Client],
        close: Callable[[Client], None],
        translated: Callable[[str], AbstractContextManager[None]],
        *,
        anonymous: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._anonymous = anonymous
        self._make = make
        self._close = close
        self._translated = translated
        self._clock = clock
        self._lock = threading.Lock()
        self._made: Client | None = None
        self._number = 0  # of the current client: how many were made so far
        self._since = self._used = 0.0
        self._calls = 0
        self._replaced: list[Client] = []
        self._thread = _InThread()

    @property
    def client(self) -> Client:
        """Return the client. It is made now if there is none that can be used."""
        # One at a time: boto3 must not make two clients at the same moment.
        with self._lock:
            now = self._clock()
            if now - self._used > IDLE_SECONDS or now - self._since > AGE_SECONDS:
                self._retire()
            if self._made is None:
                self._made = self._make()
                self._number += 1
                self._since = now
            self._used = now
            self._thread.number = self._number
            return self._made

    def call(self, what: str, function: Callable[[], T]) -> T:
        """Return what ``function`` returns, which uses :attr:`client`. Its errors become SinkErrors about
        ``what``.

        If the store denies it (:attr:`flagstream.errors.SinkRefused.denied`), ``function`` is called once
        more with a new client: the credentials of the old one may have been missing, replaced or expired. So
        a denial that is raised always comes from a client that was made during this call, and ``function``
        must be safe to call twice.
        """
        with self._lock:
            self._calls += 1
            before = self._number
        try:
            return self._renewing(what, function, before)
        finally:
            with self._lock:
                self._calls -= 1
                self._used = self._clock()
                if not self._calls:
                    self._close_replaced()

    def _renewing(self, what: str, function: Callable[[], T], before: int) -> T:
        while True:
            self._thread.number = 0
            try:
                with self._translated(what):
                    return function()
            except SinkRefused as error:
                if self._anonymous or not error.denied:
                    raise
                used = self._thread.number
                with self._lock:
                    if used == self._number:
                        self._retire()
                # 0: no client could be made, just now
                if not 0 < used <= before:
                    raise

    def close(self) -> None:
        """Close the client, if there is one. No call is under way. A later call makes another one."""
        with self._lock:
            self._retire()
            self._close_replaced()

    def _retire(self) -> None:
        if self._made is not None:
            self._replaced.append(self._made)
            self._made = None

    def _close_replaced(self) -> None:
        while self._replaced:
            self._close(self._replaced.pop())
