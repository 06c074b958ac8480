"""Notices that the process stood still: frozen by a signal, or with the machine that it runs on."""

import threading
import time
from collections import deque
from collections.abc import Callable

TICK_SECONDS = 0.5
STILL_SECONDS = 4.0
"""A longer gap between two ticks means that the process stood still: no busy machine makes a thread wait so
long. Who has a shorter time-out may ask for a shorter gap.
"""
LEAST_SECONDS = 1.0
"""Shorter gaps are not noted."""
KEPT = 32
"""Gaps that are remembered."""


class SleepWatch:
    """Notes the gaps between its ticks, which a thread makes from :meth:`start` on. ``clock`` is monotonic
    and goes on while the process stands still.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ticked = clock()
        self._gaps: deque[tuple[float, float]] = deque(maxlen=KEPT)
        """When each ended, and how long it was."""
        self._starting = threading.Lock()
        self._started = False

    def start(self) -> None:
        """Begin to tick; a second call does nothing."""
        with self._starting:
            if not self._started:
                self._started = True
                self.tick()
                threading.Thread(target=self._run, name="sleep-watch", daemon=True).start()

    def tick(self) -> None:
        """Note the time. Called at least every ``TICK_SECONDS`` while the process runs."""
        now = self._clock()
        if now - self._ticked > LEAST_SECONDS:
            self._gaps.append((now, now - self._ticked))
        self._ticked = now

    def stood_still_since(self, then: float, seconds: float = STILL_SECONDS) -> bool:
        """Return whether the process stood still for over ``seconds`` after ``then`` (monotonic seconds)."""
        # Right after waking the thread may not have ticked yet.
        gaps = [*self._gaps, (now := self._clock(), now - self._ticked)]
        return any(woke >= then and gap > seconds for woke, gap in gaps)

    def _run(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            self.tick()


PROCESS = SleepWatch()
"""The watch of this process."""
