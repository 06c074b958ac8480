"""Moves the acts of a scenario on, and starts workers again that ended.

An *act* is a generator that yields what it waits for. Acts play side by side in one thread; one that waits
too long for the same thing fails, and says for what.
"""

import signal
import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from tests.chaos.fleet import Fleet, Worker

Act = Generator[str, None, None]

KILLED, FENCED = -int(signal.SIGKILL), 3

TICK = 0.05
IMPATIENCE = 150.0
"""Seconds that one wait may take. The longest, for a session and a transaction to time out, take some ten."""


class ScenarioFailed(AssertionError):
    """Something did not happen, or should not have happened; the message ends with the workers' logs."""


@dataclass
class Role:
    """A worker that is started again whenever it ends: with the next of `crashes`, in the end without one.

    `instance` is its kafka.instance, `sources` the groups in which it gets partitions, by the log's names.
    """

    name: str
    sources: tuple[str, ...]
    options: tuple[str, ...] = ()
    crashes: list[str] = field(default_factory=list)
    instance: str = ""
    worker: Worker | None = None
    leaving: bool = False


class Director:
    """`kills` counts the workers that died as they should, by crash point, `exit_codes` all ends."""

    def __init__(self, fleet: Fleet, say: Callable[[str], None]) -> None:
        self.kills: Counter[str] = Counter()
        self.exit_codes: Counter[int] = Counter()
        self.say = say
        self._fleet = fleet
        self._cast: list[Role] = []
        self._ended: set[str] = set()

    def play(self, acts: list[Act], meanwhile: Callable[[], None] = lambda: None) -> None:
        """Returns when all acts are over; `meanwhile` is called at every tick. Raises ScenarioFailed."""
        waits = dict.fromkeys(acts, ("", 0.0))
        while waits:
            tick = time.monotonic()
            self._fleet.poll()
            for role in self._cast:
                self._look_after(role)
            for act, (awaited, since) in list(waits.items()):
                found = next(act, None)
                if found is None:
                    del waits[act]
                elif found != awaited:
                    waits[act] = found, tick
                elif tick - since > IMPATIENCE:
                    raise self.failure(f"waited {IMPATIENCE:g} s: {found}")
            meanwhile()
            time.sleep(max(0.0, tick + TICK - time.monotonic()))

    def failure(self, what: str) -> ScenarioFailed:
        """Return the exception to raise."""
        return ScenarioFailed(f"{what}\n{self._fleet.tails()}")

    # ── parts of acts ──────────────────────────────────────────────────────────────────────────────────────

    def enter(self, role: Role) -> None:
        """Start its first worker."""
        self._cast.append(role)
        self._start(role)

    def settled(self, role: Role) -> Generator[str, None, Worker]:
        """Wait until its worker holds partitions in every group that it is a member of."""
        while True:
            worker = role.worker
            up = worker is not None and worker.exit_code is None and not worker.frozen
            if worker and up and all(map(worker.held, role.sources)):
                return worker
            yield f"{role.name} gets partitions"

    def frozen(self, role: Role) -> Generator[str, None, Worker]:
        """Wait until its worker freezes."""
        while role.worker is None or not role.worker.frozen:
            yield f"{role.name} freezes at {role.crashes[0]}"
        self.say(f"{role.worker.name} is frozen at {role.crashes.pop(0)}")
        return role.worker

    def leave(self, role: Role) -> Act:
        """Stop its worker by SIGTERM for good."""
        worker, role.leaving = role.worker, True
        assert worker is not None
        worker.send(signal.SIGTERM)
        while worker.exit_code is None:
            yield f"{worker.name} ends after SIGTERM"
        if worker.exit_code != 0:
            raise self.failure(f"{worker.name} ended with exit code {worker.exit_code} after SIGTERM")

    def leave_all(self) -> Act:
        """Stop all that are left, one after the other."""
        left = [role for role in self._cast if not role.leaving]
        for role in left:
            yield from self.settled(role)
        for role in left:
            yield from self.leave(role)

    def _look_after(self, role: Role) -> None:
        """Count the end of a worker and start the next one."""
        worker = role.worker
        if worker is None or worker.exit_code is None or worker.name in self._ended:
            return
        self._ended.add(worker.name)
        self.exit_codes[worker.exit_code] += 1
        if role.leaving:
            return
        if worker.exit_code == KILLED and role.crashes:
            crash = role.crashes.pop(0)
            self.kills[crash.split(":")[0]] += 1
            self.say(f"{worker.name} died at {crash}")
        elif worker.exit_code == FENCED:
            self.say(f"{worker.name} was fenced")
        else:
            raise self.failure(f"{worker.name} ended unasked with exit code {worker.exit_code}")
        self._start(role)

    def _start(self, role: Role) -> None:
        crash = role.crashes[0] if role.crashes else ""
        role.worker = self._fleet.start(role.name, *role.options, crash=crash, instance=role.instance)
