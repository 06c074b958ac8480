"""What happens to the fleet while the events are produced: who dies where, who freezes, who comes and goes.

Every wait is for something seen in a log or in committed offsets, so timing decides nothing but the duration.
"""

import json
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from confluent_kafka import Producer

from tests.chaos.director import FENCED, Act, Director, Role
from tests.chaos.fleet import Fact, Fleet
from tests.chaos.offsets import Offsets
from tests.chaos.stream import case

PARTITIONS = 8
SINK = "archive"
BOTH = ("enrich", SINK)

ENRICH_FREEZE = "transaction.offsets_sent:freeze:3"
EXPORT_FREEZE = "export.planned:freeze:2"
SLOW = "commit_failed slow"

FLUSH_SECONDS = 120.0


@dataclass(frozen=True)
class Script:
    """Where two whole workers die, one after the other of these; and whether others freeze, come and go."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    others: bool
    paced_seconds: float
    """Pace while incidents happen: all events in so long. After them the rest comes at once."""

    @property
    def points(self) -> set[str]:
        """The steps at which somebody dies."""
        return {death.split(":")[0] for death in (*self.first, *self.second)}


WHOLE = Script(
    first=(
        "source.revoking:kill",
        "export.planned:kill:3",
        "enrich.committed:kill:3",
        "export.delivering:kill:2",
        "export.committed:kill:4",
    ),
    second=(
        "transaction.offsets_sent:kill:5",
        "export.delivered:kill:3",
        "enrich.produced:kill:10",
        "export.planning:kill:4",
        "export.planned:kill:5",
    ),
    others=True,
    paced_seconds=120.0,
)
SHORT = Script(
    first=("export.delivering:kill:2", "export.planned:kill:3"),
    second=("export.delivered:kill:3",),
    others=False,
    paced_seconds=25.0,
)
"""What depends on the sink: deaths with a window planned, stored, and stored and known to be."""


def in_layout(script: Script) -> Script:
    """The same, with a death when of a window's objects some are stored and some are not."""
    return replace(script, second=(*script.second, "export.indexed:kill:3"))


@dataclass(frozen=True)
class Cluster:
    """Names the cluster in which the scenario plays."""

    bootstrap_servers: str
    ingest: str
    output: str
    enrich_group: str
    sink_group: str


class Scenario:
    """`refused` holds, for each woken zombie, how it learned that others had gone on; `produced` is the
    number of events, which is more than `events` if the incidents took so long.
    """

    def __init__(
        self, script: Script, fleet: Fleet, cluster: Cluster, events: int, say: Callable[[str], None]
    ) -> None:
        self.director = Director(fleet, say)
        self.refused: dict[str, list[str]] = {"enrich": [], "export": []}
        self.produced = 0
        self._script = script
        self._cluster = cluster
        self._events = events
        self._offsets = Offsets(cluster.bootstrap_servers, PARTITIONS)
        self._producer = Producer(
            {
                "bootstrap.servers": cluster.bootstrap_servers,
                "enable.idempotence": True,
                "linger.ms": 20,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self._first = Role("first", BOTH, crashes=list(script.first), instance="first")
        self._second = Role("second", BOTH, crashes=list(script.second))
        self._enricher = Role("enricher", ("enrich",), ("--stage", "enrich"), [ENRICH_FREEZE])
        self._visitor = Role("visitor", BOTH)

    def run(self) -> None:
        """Returns when every act is over, all events are enriched and exported, and all workers have stopped.

        Raises ScenarioFailed.
        """
        incidents = [self._two_workers()]
        if self._script.others:
            incidents += [self._frozen_enrich(), self._frozen_export(), self._visit()]
        try:
            self.director.play(incidents, self._pace())
            self.director.play([self._rest()])
            self.director.play([self.director.leave_all()])
        finally:
            self._offsets.close()

    # ── the acts ───────────────────────────────────────────────────────────────────────────────────────────

    def _two_workers(self) -> Act:
        """Two whole workers die at one point after the other. The first one's partitions are revoked when the
        second joins, and that is where it dies first."""
        self.director.enter(self._first)
        yield from self.director.settled(self._first)
        self.director.enter(self._second)
        while self._first.crashes or self._second.crashes:
            yield f"the deaths of two workers at {self._first.crashes} and {self._second.crashes}"
        yield from self.director.settled(self._first)
        yield from self.director.settled(self._second)

    def _frozen_enrich(self) -> Act:
        """An enrich-only worker freezes inside a transaction, until others have enriched what it held."""
        yield from self.director.settled(self._second)
        self.director.enter(self._enricher)
        worker = yield from self.director.frozen(self._enricher)
        before, held = self._enriched(), worker.held("enrich")
        # Its successors have to wait for the transaction that holds these offsets: so it has timed out, too.
        while not _all_behind(before, self._enriched(), held):
            yield f"others enrich partitions {sorted(held)} of the frozen {worker.name}"
        worker.send(signal.SIGCONT)
        while worker.exit_code is None:
            yield f"{worker.name}, woken after its transaction timed out, exits"
        if worker.exit_code != FENCED:
            raise self.director.failure(
                f"the zombie {worker.name} ended with {worker.exit_code}, not {FENCED}"
            )
        reasons = [fact["error"] for fact in worker.facts if fact["event"] == "worker_failed"]
        self.refused["enrich"].append(f"{worker.name}: exit code {FENCED}: {reasons}")
        yield from self.director.settled(self._enricher)

    def _frozen_export(self) -> Act:
        """An export-only worker freezes when its plan is written, until others have delivered the window.

        It may freeze while a commit of another partition is under way. Then it finds that this took too long,
        and joins again without a look at whether it was still a member; so another one has to try.
        """
        yield from self.director.settled(self._second)
        while not self.refused["export"]:
            role = Role("exporter", (SINK,), ("--sink", SINK), [EXPORT_FREEZE])
            self.director.enter(role)
            yield from self._frozen_behind_plan(role)

    def _frozen_behind_plan(self, role: Role) -> Act:
        worker = yield from self.director.frozen(role)
        facts, plans = len(worker.facts), self._plans(worker.held(SINK))
        if not plans:
            raise self.director.failure(f"{worker.name} is frozen after a plan, but none is committed")
        while not _reached(self._exported(), plans):
            yield f"others deliver the windows that the frozen {worker.name} planned: {plans}"
        worker.send(signal.SIGCONT)
        while not (refusals := [text for fact in worker.facts[facts:] if (text := _refusal(fact))]):
            yield f"{worker.name}, woken after others delivered its window, learns that it is out"
        if refusals != [SLOW]:
            self.refused["export"].append(f"{worker.name}: {refusals}")
        yield from self.director.settled(role)

    def _visit(self) -> Act:
        """A worker joins, works, and leaves by SIGTERM."""
        while self._first.crashes[2:] or self._second.crashes[2:]:
            yield "some deaths before the visit"
        self.director.enter(self._visitor)
        worker = yield from self.director.settled(self._visitor)
        while not any(fact["event"] == "window_delivered" for fact in worker.facts):
            yield f"{worker.name} delivers a window"
        yield from self.director.leave(self._visitor)

    def _rest(self) -> Act:
        """What is not produced yet comes at once; then everything is enriched and exported."""
        while self.produced < self._events:
            self._produce(min(20_000, self._events - self.produced))
            yield "the producer's queue"
        if self._producer.flush(FLUSH_SECONDS):
            raise self.director.failure("the producer could not deliver all events")
        self.director.say(f"{self.produced} events produced; draining")
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

    # ── producing ──────────────────────────────────────────────────────────────────────────────────────────

    def _pace(self) -> Callable[[], None]:
        began = time.monotonic()

        def produce() -> None:
            due = int((time.monotonic() - began) * self._events / self._script.paced_seconds)
            self._produce(due - self.produced)

        return produce

    def _produce(self, count: int) -> None:
        for number in range(self.produced, self.produced + count):
            record = case(number)
            try:
                self._producer.produce(
                    self._cluster.ingest, record.value, record.key, headers=list(record.headers)
                )
            except BufferError:
                break
            self.produced = number + 1
        self._producer.poll(0)

    # ── progress ───────────────────────────────────────────────────────────────────────────────────────────

    def _enriched(self) -> dict[int, int]:
        committed = self._offsets.committed(self._cluster.enrich_group, self._cluster.ingest)
        return {partition: found.offset for partition, found in committed.items()}

    def _exported(self) -> dict[int, int]:
        committed = self._offsets.committed(self._cluster.sink_group, self._cluster.output)
        return {partition: found.offset for partition, found in committed.items()}

    def _plans(self, partitions: Iterable[int]) -> dict[int, int]:
        """The ends of the windows that are planned in these partitions."""
        committed = self._offsets.committed(self._cluster.sink_group, self._cluster.output)
        texts = {partition: committed[partition].metadata or "" for partition in partitions}
        return {partition: json.loads(text)["end"] for partition, text in texts.items() if '"end"' in text}


def _reached(offsets: Mapping[int, int], ends: Mapping[int, int]) -> bool:
    return all(offsets[partition] >= end for partition, end in ends.items())


def _all_behind(before: Mapping[int, int], now: Mapping[int, int], partitions: Iterable[int]) -> bool:
    return all(now[partition] > before[partition] for partition in partitions)


def _refusal(fact: Fact) -> str:
    """How an export worker learns that it is a zombie; empty for any other line of its log."""
    if fact["event"] == "partitions_lost" and fact["partitions"]:
        return f"partitions_lost {fact['partitions']}"
    if fact["event"] == "commit_failed":
        return f"commit_failed {fact['error']}"
    return ""
