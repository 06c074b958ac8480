"""Answers whether the process lives, whether it is ready, and what is wrong, each for a page of its own.

**Live**: the threads that talk to Kafka move; a restart mends anything else no better. **Ready**: every stage
is in its group, and no task has died; nothing outside of the process has a say. **Healthy**: nothing is
wrong, neither inside nor outside.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace

ALIVE_SECONDS = 90.0
"""A consumer's thread that did not move for so long hangs in a call to Kafka (the bound of one call is 60
s).
"""
PROCESS = "process"
"""The source of problems that belong to no stage."""

KINDS: Mapping[str, str] = {
    "starting": "the stage prepares to join its group",
    "group": "the stage is not in its group",
    "stopping": "the process was asked to stop",
    "task_died": "a part of the process ended that must never end",
    "kafka": "brokers do not answer, refuse the credentials, or report errors",
    "topic": "a topic is missing, or its id is not known",
    "transaction": "transactions do not come to their end",
    "open_transaction": "records wait for the end of somebody's transaction",
    "flags": "a source of flags cannot be read",
    "registry": "the schema registry does not do what it is asked",
    "sink_refused": "the sink refuses: a person has to act",
    "sink_unavailable": "the sink does not answer, or cannot take more now",
    "delivery_under_way": "a call of the sink does not come back",
    "partition_stopped": "a partition waits for a person",
    "lag_grows": "more comes in than goes out",
    "dead_letters": "records became dead letters in the last minute or two",
    "event_clock": "events have times that cannot be right",
    "log_lines_lost": "the log could not be written in the last minute",
}
"""Every kind of problem: the labels of ``flagstream_problems``, so the set is bounded."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong now. ``kind`` is one of :data:`KINDS`; ``text`` is one line for people that
    names the cause and the next action; ``partition`` is ``topic-index`` where it concerns one alone.
    """

    kind: str
    text: str
    partition: str = ""


@dataclass(slots=True)
class Health:
    """Holds what the components report of themselves. The host fills it; the pages read it, on the event
    loop.

    ``threads``: when each consumer's thread moved last (monotonic seconds). ``stopped``: the partitions of
    each stage that wait for a person. ``checks``: what is wrong with each source now. ``starting``: what a
    stage waits for before it can join its group. ``joined``: whether each stage is in its group. ``mask``
    takes out of each text what must not be shown: the pages have no password.
    """

    threads: dict[str, Callable[[], float]] = field(default_factory=dict)
    stopped: dict[str, Callable[[], Sized]] = field(default_factory=dict)
    checks: dict[str, Callable[[], Iterator[Problem]]] = field(default_factory=dict)
    starting: dict[str, Problem] = field(default_factory=dict)
    joined: dict[str, Callable[[], bool]] = field(default_factory=dict)
    stopping: Callable[[], bool] = lambda: False
    dead: Callable[[], Collection[str]] = tuple
    mask: Callable[[str], str] = str

    def stuck(self) -> list[str]:
        """Return the threads that hang."""
        now = time.monotonic()
        return [name for name, moved in self.threads.items() if now - moved() > ALIVE_SECONDS]

    @property
    def ready(self) -> bool:
        """Whether all stages are in their groups and the process means to go on."""
        if self.starting or self.stopping() or self.dead():
            return False
        return all(joined() for joined in self.joined.values())

    def problems(self) -> dict[str, list[Problem]]:
        """Return everything that is wrong now, by source; empty when nothing is."""
        found = {name: list(check()) for name, check in self.checks.items()}
        for name, problem in self.starting.items():
            found.setdefault(name, []).append(problem)
        found.setdefault(PROCESS, []).extend(self._of_the_process())
        return {
            name: [replace(problem, text=self.mask(problem.text)) for problem in problems]
            for name, problems in found.items()
            if problems
        }

    def _of_the_process(self) -> Iterator[Problem]:
        if self.stopping():
            yield Problem("stopping", "stopping")
        for name in self.dead():
            yield Problem("task_died", f"{name} died; the process ends, restart it and report the log")


def counted(problems: Sequence[Problem]) -> dict[str, int]:
    """Return how many of ``problems`` there are of each kind."""
    return dict(Counter(problem.kind for problem in problems))
