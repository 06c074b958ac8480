"""Whether the process stood still: frozen by a signal, or with the machine that it runs on."""

import threading
import time
from collections.abc import Callable

TICK_SECONDS = 0.5
STILL_SECONDS = 4.0
"""A longer gap between two ticks means that the process stood still: no busy machine makes a thread wait so
long.
"""


class SleepWatch:
    """Notes the gaps between its ticks, which a thread makes from :meth:`start` on. ``clock`` is monotonic
    and goes on while the process stands still.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ticked = clock()
        self._woke = float("-inf")
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
        """Called at least every ``TICK_SECONDS`` while the process runs."""
        now = self._clock()
        if now - self._ticked > STILL_SECONDS:
            self._woke = now
        self._ticked = now

    def stood_still_since(self, then: float) -> bool:
        """Whether the process stood still at any time after ``then`` (monotonic seconds)."""
        # Right after waking the thread may not have ticked yet.
        return self._woke >= then or self._clock() - self._ticked > STILL_SECONDS

    def _run(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            self.tick()


PROCESS = SleepWatch()
"""Of this process."""
