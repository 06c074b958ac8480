"""What a process says of itself: CPU time and peak memory, from the operating system's own accounting."""

import resource
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """``cpu`` and ``wall`` in seconds since the start of the measurement; ``peak`` resident bytes of the
    process.
    """

    cpu: float
    wall: float
    peak: int


class Measurement:
    """Starts when it is made."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def usage(self) -> Usage:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
        return Usage(time.process_time() - self._cpu, time.perf_counter() - self._wall, peak)
