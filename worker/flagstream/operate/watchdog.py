"""Ends a process whose threads or event loop hang: a worker that does nothing must not keep its partitions.

It lives in a thread of its own, so that an event loop that is blocked is noticed too.
"""

import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping

LOOK_SECONDS = 1.0
THREADS_SECONDS = 0.1
"""Between looks at the threads: one that begins and ends between two of them was never there."""
LASTING = ("consumer-", "enrich-", "sink-", "dead-letters-", "asyncio_", "log-writer", "sleep-watch")
"""How the names of threads begin that live until the process stops. Others (a call with a bound of its own, a
library's pool) come and go."""


class Watchdog:
    """Looks every second whether each of ``moved`` moves on, and more often whether the threads that have to
    last live.

    ``moved`` gives, by name, a number that changes while that part is alive. A part that did not change for
    ``limit`` looks in a row is stuck: ``stuck`` is called with the names, in this thread. Looks are counted,
    not seconds, since a process that was frozen has not waited. ``dead`` is called with the names of threads
    that ended.
    """

    def __init__(
        self,
        moved: Callable[[], Mapping[str, float]],
        *,
        limit: int,
        stuck: Callable[[list[str]], None],
        dead: Callable[[list[str]], None],
        threads: Callable[[], Iterable[threading.Thread]] = threading.enumerate,
    ) -> None:
        self._moved = moved
        self._limit = limit
        self._stuck = stuck
        self._dead = dead
        self._threads = threads
        self._last: dict[str, float] = {}
        self._still: dict[str, int] = {}
        self._lasting: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether somebody watches."""
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Watch no more: the process is about to end, and its threads with it."""
        self._over.set()

    def look(self) -> None:
        """One look at what moves; the thread makes it every second."""
        now = dict(self._moved())
        self._still = {
            name: self._still.get(name, 0) + 1 if self._last.get(name) == moved else 0
            for name, moved in now.items()
        }
        self._last = now
        if hang := sorted(name for name, looks in self._still.items() if looks >= self._limit):
            self._stuck(hang)

    def look_at_threads(self) -> None:
        """One look at which threads live; the thread makes it more often."""
        # One that is about to start is listed, but does not live yet.
        self._lasting.update(
            thread for thread in self._threads() if thread.is_alive() and thread.name.startswith(LASTING)
        )
        gone = [thread for thread in self._lasting if not thread.is_alive()]
        for thread in gone:
            self._lasting.discard(thread)
        if gone and not self._over.is_set():
            self._dead(sorted(thread.name for thread in gone))

    def _run(self) -> None:
        for turn in itertools.count(1):
            self.look_at_threads()
            if self._over.wait(THREADS_SECONDS):
                return
            if turn % round(LOOK_SECONDS / THREADS_SECONDS) == 0:
                self.look()
