"""What happens to the fleet while the events are produced: who dies where, who freezes, who comes and goes.

Each part of it is an *act*, a generator that yields what it waits for; `Scenario` moves all acts on, starts
workers again that ended, and produces. Every wait is for something seen in a log or in committed offsets, so
timing decides nothing but how long it takes.
"""

import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import Producer

from tests.chaos.fleet import Fleet, Worker
from tests.chaos.offsets import Offsets
from tests.chaos.stream import case

Act = Generator[str, None, None]

PARTITIONS = 8
SINK = "archive"

FIRST_DEATHS = (
    "source.revoking:kill",
    "export.planned:kill:3",
    "enrich.committed:kill:3",
    "export.delivering:kill:2",
    "export.committed:kill:4",
)
SECOND_DEATHS = (
    "transaction.offsets_sent:kill:5",
    "export.delivered:kill:3",
    "enrich.produced:kill:10",
    "export.planning:kill:4",
    "export.planned:kill:5",
)
ENRICH_FREEZE = "transaction.offsets_sent:freeze:3"
EXPORT_FREEZE = "export.planned:freeze:2"

KILLED, FENCED = -int(signal.SIGKILL), 3

TICK = 0.05
PACED_SECONDS = 120.0
"""The pace at which events are produced while workers die: so slow that the stream outlasts the incidents."""
IMPATIENCE = 150.0
"""Seconds that one wait may take. The longest, for a session and a transaction to time out, take some ten."""


class ScenarioFailed(AssertionError):
    """Something did not happen, or should not have happened; the message ends with the workers' logs."""


@dataclass(frozen=True)
class Cluster:
    """Where the scenario plays."""

    bootstrap_servers: str
    ingest: str
    output: str
    enrich_group: str
    sink_group: str


@dataclass
class Role:
    """A worker that is started again whenever it ends: first with the next crash, in the end without one."""

    name: str
    options: tuple[str, ...] = ()
    crashes: list[str] = field(default_factory=list)
    instance: str = ""
    worker: Worker | None = None
    leaving: bool = False

    @property
    def live(self) -> Worker:
        assert self.worker is not None
        return self.worker


class Scenario:
    """`run` returns when every act is over, all events are produced, enriched and exported, and all workers
    have stopped. `kills` counts by crash point, `exit_codes` all ends. `refused` holds, for each woken
    zombie, how it learned that others had gone on.
    """

    def __init__(self, fleet: Fleet, cluster: Cluster, events: int, say: Callable[[str], None]) -> None:
        self.kills: Counter[str] = Counter()
        self.exit_codes: Counter[int] = Counter()
        self.refused: dict[str, list[str]] = {"enrich": [], "export": []}
        self.produced = 0
        self._fleet = fleet
        self._cluster = cluster
        self._events = events
        self._say = say
        self._producer = Producer(
            {
                "bootstrap.servers": cluster.bootstrap_servers,
                "enable.idempotence": True,
                "linger.ms": 20,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self._counted: set[str] = set()
        self._offsets = Offsets(cluster.bootstrap_servers, PARTITIONS)
        self._first = Role("first", crashes=list(FIRST_DEATHS), instance="first")
        self._second = Role("second", crashes=list(SECOND_DEATHS))
        self._enricher = Role("enricher", ("--stage", "enrich"), [ENRICH_FREEZE])
        self._exporter = Role("exporter", ("--sink", SINK), [EXPORT_FREEZE])
        self._visitor = Role("visitor")
        self._roles: list[Role] = []

    def run(self) -> None:
        try:
            self._play(
                [self._two_workers(), self._frozen_enrich(), self._frozen_export(), self._visit()], paced=True
            )
            self._play([self._rest()], paced=False)
            self._play([self._end()], paced=False)
        finally:
            self._offsets.close()

    # ── the acts ───────────────────────────────────────────────────────────────────────────────────────────

    def _two_workers(self) -> Act:
        """Two whole workers die at one point after the other. The first one's partitions are revoked when the
        second joins, and that is where it dies first."""
        self._enter(self._first)
        yield from self._settled(self._first)
        self._enter(self._second)
        while self._first.crashes or self._second.crashes:
            yield f"the deaths of two workers at {self._first.crashes} and {self._second.crashes}"
        yield from self._settled(self._first)
        yield from self._settled(self._second)

    def _frozen_enrich(self) -> Act:
        """An enrich-only worker freezes inside a transaction, until others have enriched what it held."""
        yield from self._settled(self._second)
        self._enter(self._enricher)
        worker = yield from self._freeze(self._enricher)
        before, held = self._enriched(), worker.held("enrich")
        # A transaction that still pends on an offset holds this back: so it has timed out, too.
        while not _all_behind(before, self._enriched(), held):
            yield f"others enrich partitions {sorted(held)} of the frozen {worker.name}"
        worker.send(signal.SIGCONT)
        while worker.exit_code is None:
            yield f"{worker.name}, woken after its transaction timed out, exits"
        if worker.exit_code != FENCED:
            raise self._failed(
                f"{worker.name} woke as a zombie and ended with exit code {worker.exit_code}, not 3"
            )
        reasons = [fact["error"] for fact in worker.facts if fact["event"] == "worker_failed"]
        self.refused["enrich"].append(f"{worker.name}: exit code 3: {reasons}")
        yield from self._settled(self._enricher)

    def _frozen_export(self) -> Act:
        """An export-only worker freezes when its plan is written, until others have delivered the window."""
        yield from self._settled(self._second)
        self._enter(self._exporter)
        worker = yield from self._freeze(self._exporter)
        facts = len(worker.facts)
        plans = {
            partition: json.loads(found.metadata or "")["end"]
            for partition, found in self._offsets.committed(
                self._cluster.sink_group, self._cluster.output
            ).items()
            if partition in worker.held(SINK) and '"end"' in (found.metadata or "")
        }
        if not plans:
            raise self._failed(f"{worker.name} is frozen behind a plan, but none is committed")
        while not _reached(self._exported(), plans):
            yield f"others deliver the windows that the frozen {worker.name} planned: {plans}"
        worker.send(signal.SIGCONT)
        while not (refusals := [text for fact in worker.facts[facts:] if (text := _refusal(fact))]):
            yield f"{worker.name}, woken after others delivered its window, learns that it is out"
        self.refused["export"].append(f"{worker.name}: {refusals}")
        yield from self._settled(self._exporter)

    def _visit(self) -> Act:
        """A worker joins, works, and leaves by SIGTERM."""
        while self._first.crashes[2:] or self._second.crashes[2:]:
            yield "some deaths before the visit"
        self._enter(self._visitor)
        worker = yield from self._settled(self._visitor)
        while not any(fact["event"] == "window_delivered" for fact in worker.facts):
            yield f"{worker.name} delivers a window"
        yield from self._leave(self._visitor)

    def _rest(self) -> Act:
        """What is not produced yet comes at once; then everything is enriched and exported."""
        while self.produced < self._events:
            self._produce(min(20_000, self._events - self.produced))
            yield "the producer's queue"
        if self._producer.flush(IMPATIENCE):
            raise self._failed("the producer could not deliver all events")
        self._say(f"{self.produced} events produced; draining")
        ends = self._offsets.ends(self._cluster.ingest)
        while not _reached(self._enriched(), ends):
            yield f"the enrich stage reaches {ends}"
        # Nothing is added to the output topic any more, but a dead worker's transaction may have to time out.
        output = self._cluster.output
        while (ends := self._offsets.ends(output)) != self._offsets.ends(output, stable=True):
            yield "the last transaction ends"
        ends = {index: self._offsets.behind_last_record(output, index, end) for index, end in ends.items()}
        while not _reached(self._exported(), ends):
            yield f"the sink reaches {ends}"

    def _end(self) -> Act:
        """All who are left stop at SIGTERM."""
        roles = [role for role in self._roles if not role.leaving]
        for role in roles:
            yield from self._settled(role)
        for leaving in [self._leave(role) for role in roles]:
            yield from leaving

    def _enriched(self) -> dict[int, int]:
        committed = self._offsets.committed(self._cluster.enrich_group, self._cluster.ingest)
        return {partition: found.offset for partition, found in committed.items()}

    def _exported(self) -> dict[int, int]:
        committed = self._offsets.committed(self._cluster.sink_group, self._cluster.output)
        return {partition: found.offset for partition, found in committed.items()}

    # ── parts of acts ──────────────────────────────────────────────────────────────────────────────────────

    def _enter(self, role: Role) -> None:
        self._roles.append(role)
        self._start(role)

    def _settled(self, role: Role) -> Generator[str, None, Worker]:
        """Wait until the worker holds partitions of every stage that it runs."""
        sources = {"enrich": "--sink" not in role.options, SINK: "--stage" not in role.options}
        while True:
            worker = role.worker
            up = worker is not None and worker.exit_code is None and not worker.frozen
            if worker and up and all(worker.held(source) for source, runs in sources.items() if runs):
                return worker
            yield f"{role.name} gets partitions"

    def _freeze(self, role: Role) -> Generator[str, None, Worker]:
        while not (role.worker is not None and role.worker.frozen):
            yield f"{role.name} freezes at {role.crashes[0]}"
        self._say(f"{role.worker.name} is frozen at {role.crashes.pop(0)}")
        return role.worker

    def _leave(self, role: Role) -> Act:
        role.leaving = True
        role.live.send(signal.SIGTERM)
        while role.live.exit_code is None:
            yield f"{role.live.name} ends after SIGTERM"
        if role.live.exit_code != 0:
            raise self._failed(f"{role.live.name} ended with exit code {role.live.exit_code} after SIGTERM")

    # ── directing ──────────────────────────────────────────────────────────────────────────────────────────

    def _play(self, acts: list[Act], *, paced: bool) -> None:
        began = time.monotonic()
        ahead = self.produced
        waiting: dict[Act, tuple[str, float]] = {}
        while acts:
            tick = time.monotonic()
            self._fleet.poll()
            for role in self._roles:
                self._look_after(role)
            for act in list(acts):
                try:
                    text = next(act)
                except StopIteration:
                    acts.remove(act)
                    continue
                _, since = waiting[act] = (
                    text,
                    waiting[act][1] if waiting.get(act, ("",))[0] == text else tick,
                )
                if tick - since > IMPATIENCE:
                    raise self._failed(f"waited {IMPATIENCE:g} s: {text}")
            if paced:
                due = ahead + int((tick - began) * self._events / PACED_SECONDS)
                self._produce(due - self.produced)
            time.sleep(max(0.0, tick + TICK - time.monotonic()))

    def _look_after(self, role: Role) -> None:
        """Count the end of a worker and start the next one."""
        worker = role.live
        if worker.exit_code is None or worker.name in self._counted:
            return
        self._counted.add(worker.name)
        self.exit_codes[worker.exit_code] += 1
        if role.leaving:
            return
        if worker.exit_code == KILLED and role.crashes:
            crash = role.crashes.pop(0)
            self.kills[crash.split(":")[0]] += 1
            self._say(f"{worker.name} died at {crash}")
        elif worker.exit_code == FENCED:
            self._say(f"{worker.name} was fenced")
        else:
            raise self._failed(f"{worker.name} ended unasked with exit code {worker.exit_code}")
        self._start(role)

    def _start(self, role: Role) -> None:
        crash = role.crashes[0] if role.crashes else ""
        role.worker = self._fleet.start(role.name, *role.options, crash=crash, instance=role.instance)

    def _produce(self, count: int) -> None:
        for number in range(self.produced, self.produced + max(0, count)):
            record = case(number)
            try:
                self._producer.produce(
                    self._cluster.ingest, record.value, record.key, headers=list(record.headers)
                )
            except BufferError:
                break
            self.produced = number + 1
        self._producer.poll(0)

    def _failed(self, what: str) -> ScenarioFailed:
        return ScenarioFailed(f"{what}\n{self._fleet.tails()}")


def _reached(offsets: Mapping[int, int], ends: Mapping[int, int]) -> bool:
    return all(offsets[partition] >= end for partition, end in ends.items())


def _all_behind(before: Mapping[int, int], now: Mapping[int, int], partitions: Iterable[int]) -> bool:
    return all(now[partition] > before[partition] for partition in partitions)


def _refusal(fact: dict[str, object]) -> str:
    """How an export worker learns that it is a zombie; empty for any other line of its log."""
    if fact["event"] == "partitions_lost" and fact["partitions"]:
        return f"partitions_lost {fact['partitions']}"
    if fact["event"] == "commit_failed":
        return f"commit_failed {fact['error']}"
    return ""
