"""Workers of the version before the rename and of today take over from each other on a real Kafka: an upgrade
loses and doubles nothing, nor does the way back, nor a fleet of both.
"""

import os
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from confluent_kafka.admin import AdminClient
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from tests.chaos.archive import OneObject
from tests.chaos.checker import Subject, check
from tests.chaos.contents import GzipLines
from tests.chaos.stores import Folder, GcsBucket, S3Bucket
from tests.chaos.stream import FLAGS, case, number_of
from tests.chaos.topics import Topics as Reader
from tests.kafka.conftest import own_broker
from tests.support import seaweed
from tests.support.exporting import kafka_section
from tests.support.kafka_limits import BrokerLimits
from tests.support.kafka_records import Received, Sent, consume_all, create_topic, produce
from tests.support.old_version import PACKAGE, NoHistory, OldVersion, archive, old_version
from tests.support.receiver import Reply, Request, receiving
from tests.support.running_worker import RunningWorker, Topics, configuration, eventually
from tests.support.small_gcs import SmallGcs

__all__ = ["own_broker"]

SINK = "copy"
PORTION = 300
"""Records that are produced before each worker starts: several windows of each partition."""
LONG = 180.0
"""Seconds. A takeover waits for a session time-out, and for the transaction that a dead worker left open."""

Version = Literal["old", "new"]


@pytest.fixture(scope="session")
def old() -> OldVersion:
    """The old version, installed; a clone without its commit fails, with the reason."""
    try:
        return old_version()
    except NoHistory as error:
        pytest.fail(str(error), pytrace=False)


class Pending(NamedTuple):
    """Holds a plan beside a committed offset."""

    start: int
    end: int


@dataclass(slots=True)
class Upgrade:
    """Topics and configuration that workers of both versions share.

    `whole`: records go through the enrich stage of the same workers; otherwise they are put into the output
    topic, and the workers have nothing but the sink.
    """

    bootstrap: str
    folder: Path
    topics: Topics
    config: dict[str, Any]
    old: OldVersion
    whole: bool
    produced: int = 0
    outputs: list[Path] = field(default_factory=list)
    """What each worker wrote to its standard output."""

    @property
    def group(self) -> str:
        return f"{self.config['name']}.sink.{SINK}"

    @property
    def tracked(self) -> list[int]:
        """The numbers of all events that have to be exported."""
        return [number for number in range(self.produced) if case(number).enriched is not None]

    @contextmanager
    def worker(self, version: Version, crash: str = "") -> Iterator[RunningWorker]:
        """A worker of one version, which dies at `crash`."""
        options: dict[str, Any] = {} if version == "new" else program_of(self.old)
        arguments = () if self.whole else ("--sink", SINK)
        with RunningWorker(self.config, self.folder, crash=crash, arguments=arguments, **options) as worker:
            self.outputs.append(worker.output)
            yield worker

    def produce(self, count: int = PORTION) -> None:
        """Produce the next records of tests.chaos.stream."""
        cases = [case(number) for number in range(self.produced, self.produced + count)]
        self.produced += count
        if self.whole:
            sent = [Sent(one.key, one.value, one.headers) for one in cases]
            produce(self.bootstrap, self.topics.ingest, sent)
        else:
            enriched = [Sent(one.key, one.enriched) for one in cases if one.enriched is not None]
            produce(self.bootstrap, self.topics.output, enriched)

    def output(self) -> list[Received]:
        """The records of the output topic."""
        return consume_all(self.bootstrap, self.topics.output)

    def plans(self) -> dict[int, Pending]:
        """The plans that are committed now, by partition."""
        with closing(Reader(self.bootstrap)) as reader:
            committed = reader.committed(self.group, self.topics.output)
        return {
            partition: Pending(offset, int(metadata.partition('"end":')[2].partition(",")[0]))
            for partition, (offset, metadata) in committed.items()
            if '"end"' in metadata
        }

    def await_exported(self) -> None:
        """Wait until every record that was produced is in a window that is committed."""
        eventually(self._exported, LONG, every=0.5)

    def _exported(self) -> bool:
        records = self.output()
        if len(records) < len(self.tracked):
            return False
        ends = {record.partition: record.offset + 1 for record in records}
        with closing(Reader(self.bootstrap)) as reader:
            committed = reader.committed(self.group, self.topics.output)
        return all(committed[at][0] >= end and '"end"' not in committed[at][1] for at, end in ends.items())

    def play(self, old_dies: str, new_dies: str, *, planned: bool = True) -> list[dict[int, Pending]]:
        """An old worker is killed, a new one takes over and is killed, an old one takes over and stops, and a
        new one goes on. Returns the plans that were pending at each death.
        """
        deaths: list[dict[int, Pending]] = []
        for version, crash in self._dying(old_dies, new_dies):
            self.produce()
            with self.worker(version, crash) as worker:
                assert worker.wait(LONG) == -signal.SIGKILL, worker.log[-2000:]
                self._took_over(worker, deaths)
            deaths.append(self.plans())
            assert bool(deaths[-1]) is planned
        for version in self._staying():
            self.produce()
            with self.worker(version) as worker:
                self.await_exported()
                assert worker.stop() == 0
                if version == "old":
                    self._took_over(worker, deaths)
        return deaths

    @staticmethod
    def _dying(old_dies: str, new_dies: str) -> list[tuple[Version, str]]:
        return [("old", old_dies), ("new", new_dies)]

    @staticmethod
    def _staying() -> list[Version]:
        return ["old", "new"]

    @staticmethod
    def _took_over(worker: RunningWorker, deaths: list[dict[int, Pending]]) -> None:
        """The plans of the worker that died before were found; no partition has stopped over them."""
        assert worker.seen("partition_stopped") == []
        if deaths and deaths[-1]:
            taken = {(fact["start"], fact["end"]) for fact in worker.seen("plan_taken_over")}
            assert taken & {(plan.start, plan.end) for plan in deaths[-1].values()}


def program_of(old: OldVersion) -> dict[str, Any]:
    """Return the arguments of RunningWorker for the old version."""
    return {"program": (old.python, "-m", PACKAGE), "environment": {"PYTHONPATH": ""}}


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes what a test needs, on the broker that all tests share."""

    admin: AdminClient
    bootstrap: str
    limits: BrokerLimits
    folder: Path
    old: OldVersion

    def upgrade(self, sink: Mapping[str, Any], *, whole: bool = False, partitions: int = 2) -> Upgrade:
        """Topics of a test's own, and a configuration with one sink."""
        return self.with_sinks({SINK: sink}, whole=whole, partitions=partitions)

    def with_sinks(self, sinks: Mapping[str, Any], *, whole: bool, partitions: int) -> Upgrade:
        """The same with several sinks; the one called `copy` is looked at."""
        topics = Topics.create(self.admin, "upgrade", partitions)
        flags = self.folder / "flags.yaml"
        flags.write_text(FLAGS)
        os.utime(flags, (0, 0))
        few = {"max_events": 25, "flush_interval": "300ms"}
        config = configuration(
            self.bootstrap,
            self.folder,
            topics,
            kafka=kafka_section("classic", self.limits),
            sinks={name: {**few, **sink} for name, sink in sinks.items()},
        )
        return Upgrade(self.bootstrap, self.folder, topics, config, self.old, whole)


@pytest.fixture
def maker(admin: AdminClient, bootstrap: str, limits: BrokerLimits, tmp_path: Path, old: OldVersion) -> Maker:
    return Maker(admin, bootstrap, limits, tmp_path, old)


def test_a_clone_without_the_commit_says_what_would_help() -> None:
    """A shallow clone lacks the old version: the error names the commit, and the command that fetches it."""
    with pytest.raises(NoHistory, match=f"{'0' * 40}.*git fetch --unshallow"):
        archive("0" * 40)


# ── one sink after the other ──────────────────────────────────────────────────────────────────────────────


@contextmanager
def file_place(folder: Path) -> Iterator[tuple[dict[str, Any], OneObject]]:
    files = folder / "archive"
    yield {"type": "file", "path": str(files)}, OneObject(Folder(files), GzipLines())


@contextmanager
def s3_place(folder: Path) -> Iterator[tuple[dict[str, Any], OneObject]]:
    with seaweed.SeaweedFs() as server:
        place = server.folder()
        settings = {
            "type": "s3",
            "bucket": place.bucket,
            "prefix": place.prefix,
            "endpoint": place.url,
            "path_style": True,
            "region": "us-east-1",
            "access_key": seaweed.ACCESS_KEY,
            "secret_key": seaweed.SECRET_KEY,
        }
        yield settings, OneObject(S3Bucket(place.client, place.bucket, place.prefix), GzipLines())


@contextmanager
def gcs_place(folder: Path) -> Iterator[tuple[dict[str, Any], OneObject]]:
    with SmallGcs() as server:
        bucket = server.create_bucket("upgrade")
        client = storage.Client(
            project="test",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": server.url},
        )
        settings = {"type": "gcs", "bucket": bucket, "endpoint": server.url, "anonymous": True}
        yield settings, OneObject(GcsBucket(client.bucket(bucket)), GzipLines())


@pytest.mark.parametrize(
    ("place", "old_dies", "new_dies"),
    [
        pytest.param(file_place, "export.planned:kill:3", "export.delivering:kill:3", id="file"),
        pytest.param(s3_place, "export.delivering:kill:3", "export.planned:kill:3", id="s3"),
        pytest.param(gcs_place, "export.delivered:kill:3", "export.delivering:kill:3", id="gcs"),
    ],
)
def test_objects_are_stored_once_by_both_versions(
    maker: Maker, place: Callable[[Path], Any], old_dies: str, new_dies: str
) -> None:
    """Whole workers die with a window planned, stored, or known to be stored; the other version takes over.
    Each tracked event is in one object, and each broken one is a dead letter.
    """
    with place(maker.folder) as (settings, objects):
        upgrade = maker.upgrade(settings, whole=True)
        upgrade.play(old_dies, new_dies)
        topics = upgrade.topics
        verdict = check(
            Subject(
                upgrade.bootstrap,
                topics.ingest,
                topics.output,
                topics.dead_letters,
                upgrade.group,
                objects,
                upgrade.produced,
            )
        )
    assert verdict.problems == {}
    assert verdict.exported == len(upgrade.tracked)


def poisoned(number: int) -> bool:
    """Whether the receiver refuses every request that holds this event."""
    return number % 40 == 6


def judge(request: Request) -> Reply:
    """A receiver that refuses requests for what they hold."""
    return Reply(422 if any(map(poisoned, numbers_in(request))) else 204)


def numbers_in(request: Request) -> list[int]:
    """Return the numbers of a request's events."""
    return [int(event["userKey"].removeprefix("u-")) for event in request.events]


def test_a_divided_window_goes_on_under_the_same_ids(maker: Maker) -> None:
    """Workers die while a refused request is divided, and the other version goes on with the cuts of the
    plan: each id stands for the same events on every try, each event is accepted under one id, and each that
    is refused is a dead letter.
    """
    with receiving() as receiver:
        receiver.answer = judge
        upgrade = maker.upgrade(
            {
                "type": "webhook",
                "endpoint_url": receiver.url,
                "allow_private_addresses": True,
                "secret": "hidden",
                "max_part_events": 10,
                "on_refused": "dead_letter",
                "breaker_pause": "200ms",
            }
        )
        upgrade.play("export.divided:kill:2", "export.part_accepted:kill:4")

    by_id: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    for request in receiver.requests:
        by_id[request.id].add(tuple(numbers_in(request)))
    assert {id_: contents for id_, contents in by_id.items() if len(contents) > 1} == {}
    accepted = {request.id: numbers_in(request) for request in receiver.accepted}
    good = [number for number in upgrade.tracked if not poisoned(number)]
    assert sorted(number for numbers in accepted.values() for number in numbers) == good
    letters = consume_all(upgrade.bootstrap, upgrade.topics.dead_letters)
    assert sorted(number_of(letter.value) for letter in letters) == [
        number for number in upgrade.tracked if poisoned(number)
    ]
    assert {dict(letter.headers)["flagstream-reason"] for letter in letters} == {b"refused"}


def assert_doubled_only_at_deaths(
    upgrade: Upgrade, found: list[int], deaths: list[dict[int, Pending]]
) -> None:
    """Nothing is lost; only what was in a window that was planned at a death may be there again, once for
    each death.
    """
    counts = Counter(found)
    assert sorted(counts) == upgrade.tracked
    allowed = Counter(
        number_of(record.value)
        for plans in deaths
        for record in upgrade.output()
        if record.partition in plans
        and plans[record.partition].start <= record.offset < plans[record.partition].end
    )
    beyond = {number: times for number, times in counts.items() if times > 1 + allowed[number]}
    assert beyond == {}


def test_lines_of_the_log_are_repeated_only_for_planned_windows(maker: Maker) -> None:
    """Each event is a line of some worker's output; those of a window that was planned at a death may be
    there once more.
    """
    upgrade = maker.upgrade({"type": "log", "template": "{{ .UserKey }}"})

    deaths = upgrade.play("export.planned:kill:3", "export.delivering:kill:3")

    lines = [line for output in upgrade.outputs for line in output.read_text().splitlines()]
    found = [int(line.removeprefix("u-")) for line in lines]
    assert_doubled_only_at_deaths(upgrade, found, deaths)


def test_records_in_another_cluster_are_repeated_only_for_planned_windows(
    maker: Maker, own_broker: Callable[[], Any]
) -> None:
    """Each event is a record of the other cluster's topic; those of a window that was planned at a death may
    be there once more.
    """
    other = own_broker().bootstrap_servers
    topic = create_topic(AdminClient({"bootstrap.servers": other}), "copies", 2)
    upgrade = maker.upgrade({"type": "kafka", "topic": topic, "bootstrap_servers": other})

    deaths = upgrade.play("export.delivering:kill:3", "export.planned:kill:3")

    found = [number_of(record.value) for record in consume_all(other, topic)]
    assert_doubled_only_at_deaths(upgrade, found, deaths)


def test_records_in_the_own_cluster_are_there_once(maker: Maker) -> None:
    """Workers die inside the transaction that holds a window and its offset: each event is a record once."""
    topic = create_topic(maker.admin, "copies", 2)
    upgrade = maker.upgrade({"type": "kafka", "topic": topic})

    upgrade.play("transaction.offsets_sent:kill:3", "transaction.offsets_sent:kill:3", planned=False)

    found = [number_of(record.value) for record in consume_all(upgrade.bootstrap, topic)]
    assert sorted(found) == upgrade.tracked


# ── together ──────────────────────────────────────────────────────────────────────────────────────────────

PARTITIONS = 4


class Step(NamedTuple):
    """What happens to the fleet: a worker joins it, leaves it by SIGTERM, or is killed."""

    does: Literal["joins", "leaves", "dies"]
    name: str


REBALANCES = (
    Step("joins", "old 2"),
    Step("joins", "new 2"),
    Step("dies", "new 1"),
    Step("leaves", "old 1"),
    Step("joins", "new 3"),
    Step("joins", "old 3"),
    Step("dies", "old 2"),
    Step("leaves", "new 2"),
    Step("joins", "new 4"),
    Step("dies", "new 3"),
)


def held(worker: RunningWorker, source: str) -> set[int]:
    """The partitions that a worker holds, by its log."""
    found: set[int] = set()
    for fact in list(worker.events):
        if fact.get("source") != source:
            continue
        if fact["event"] == "partitions_assigned":
            found.update(fact["partitions"])
        elif fact["event"] in ("partitions_revoked", "partitions_lost"):
            found.difference_update(fact["partitions"])
    return found


def settled(workers: Mapping[str, RunningWorker], sources: tuple[str, ...]) -> bool:
    """Return whether these workers share all partitions among them, of every group, each with one at
    least."""
    for source in sources:
        shares = [held(worker, source) for worker in workers.values()]
        if not all(shares) or sorted(at for share in shares for at in share) != list(range(PARTITIONS)):
            return False
    return True


def test_a_fleet_of_both_versions_exports_everything_once(maker: Maker) -> None:
    """Old and new workers in one fleet, through ten rebalances in which workers of both versions join, leave
    and die while events come: each tracked event is in one file and in another topic once.
    """
    copies = create_topic(maker.admin, "copies", PARTITIONS)
    files = maker.folder / "archive"
    sinks = {SINK: {"type": "file", "path": str(files)}, "topic": {"type": "kafka", "topic": copies}}
    fleet = maker.with_sinks(sinks, whole=True, partitions=PARTITIONS)
    sources = ("enrich", SINK, "topic")
    with ExitStack() as stack:
        workers: dict[str, RunningWorker] = {}
        seen: list[RunningWorker] = []

        def join(name: str) -> None:
            version: Version = "old" if name.startswith("old") else "new"
            workers[name] = stack.enter_context(fleet.worker(version))
            seen.append(workers[name])

        join("old 1")
        join("new 1")
        eventually(lambda: settled(workers, sources), LONG)
        for step in REBALANCES:
            fleet.produce(200)
            match step.does:
                case "joins":
                    join(step.name)
                case "leaves":
                    assert workers.pop(step.name).stop() == 0
                case "dies":
                    workers.pop(step.name).kill()
            eventually(lambda: settled(workers, sources), LONG)
        fleet.produce()
        fleet.await_exported()
        eventually(lambda: len(consume_all(fleet.bootstrap, copies)) >= len(fleet.tracked), LONG)
        for worker in workers.values():
            assert worker.stop() == 0
        stopped = [fact for worker in seen for fact in worker.seen("partition_stopped")]
    assert stopped == []
    topics = fleet.topics
    objects = OneObject(Folder(files), GzipLines())
    verdict = check(
        Subject(
            *(fleet.bootstrap, topics.ingest, topics.output, topics.dead_letters),
            *(fleet.group, objects, fleet.produced),
        )
    )
    assert verdict.problems == {}
    found = [number_of(record.value) for record in consume_all(fleet.bootstrap, copies)]
    assert sorted(found) == fleet.tracked
