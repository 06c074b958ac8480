"""Whether the process lives and is ready, and if not, why."""

import time
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, field

ALIVE_SECONDS = 90.0
"""A consumer's thread that did not move for so long hangs in a call to Kafka (the bound of one call is 60
s).
"""


@dataclass(slots=True)
class Health:
    """``threads`` tell when each consumer's thread moved last (monotonic seconds); ``stopped`` the partitions
    of each stage that wait for a person; ``checks`` give what is
    wrong now.
    """

    threads: dict[str, Callable[[], float]] = field(default_factory=dict)
    stopped: dict[str, Callable[[], Sized]] = field(default_factory=dict)
    checks: dict[str, Callable[[], Iterator[str]]] = field(default_factory=dict)
    starting: dict[str, str] = field(default_factory=dict)

    def stuck(self) -> list[str]:
        """Threads that hang."""
        now = time.monotonic()
        return [name for name, moved in self.threads.items() if now - moved() > ALIVE_SECONDS]

    def problems(self) -> dict[str, list[str]]:
        """What keeps the process from being ready, by component; empty when it is."""
        found = {name: list(check()) for name, check in self.checks.items()}
        for name, reason in self.starting.items():
            found.setdefault(name, []).append(reason)
        return {name: problems for name, problems in found.items() if problems}
