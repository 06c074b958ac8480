"""One suite of incidents: whatever goes wrong, a page, a metric and a line of the log name the cause and the
next action, within fifteen seconds, and the three agree.

A new incident is a scene and a row of the table; a new question to all of them is a field of `Incident`.
"""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from tests.support.exporting import event, events, files, kafka_section
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_limits import BrokerLimits
from tests.support.kafka_process import free_ports
from tests.support.kafka_records import Sent, produce
from tests.support.receiver import Reply, receiving
from tests.support.running_worker import Configuration, RunningWorker, Topics, configuration, eventually

SECONDS = 15.0
"""Within which an incident has to be reported."""
FRESH = int(time.time())


@dataclass(frozen=True)
class World:
    """Holds what an incident needs: a Kafka, topics of its own, and a folder."""

    admin: AdminClient
    bootstrap: str
    limits: BrokerLimits
    folder: Path

    def topics(self) -> Topics:
        return Topics.create(self.admin, "incident")

    def config(self, topics: Topics, **sections: Any) -> Configuration:
        kafka = kafka_section("classic", self.limits)
        return configuration(self.bootstrap, self.folder, topics, kafka=kafka, **sections)

    @contextmanager
    def worker(self, config: Configuration, *arguments: str, **options: Any) -> Iterator[RunningWorker]:
        """A worker that has begun to answer."""
        with RunningWorker(config, self.folder, arguments=arguments, **options) as worker:
            eventually(lambda: answers(worker))
            yield worker


Scene = Callable[[World], AbstractContextManager[RunningWorker]]


@dataclass(frozen=True)
class Incident:
    """What happens, and what has to be reported of it: `cause` and `action` stand in the page and in
    the log."""

    scene: Scene
    source: str
    kind: str
    logged_as: str
    cause: str
    action: str
    ready: bool = True
    """Whether a rollout goes on."""


def answers(worker: RunningWorker) -> bool:
    """Whether the web server is up."""
    try:
        return worker.get("/live")[0] == 200
    except OSError:
        return False


def raw(number: int, made: int = FRESH, value: str = "true") -> bytes:
    """Return an evaluation event as applications send it."""
    return b'{"kind":"feature","userKey":"u%d","creationDate":%d,"key":"new-checkout","value":%s}' % (
        number,
        made,
        value.encode(),
    )


# ── the scenes: each brings the incident about and yields the worker ───────────────────────────────


@contextmanager
def broker_away(world: World) -> Iterator[RunningWorker]:
    with KafkaBroker() as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        topics = Topics.create(admin, "incident")
        config = configuration(broker.bootstrap_servers, world.folder, topics)
        with world.worker(config, "--stage", "enrich") as worker:
            worker.healthy()
            broker.stop()
            yield worker
            broker.start()


@contextmanager
def bucket_denied(world: World) -> Iterator[RunningWorker]:
    denial = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    with http_server(403, denial) as url, in_s3(world, url) as worker:
        yield worker


@contextmanager
def store_that_hangs(world: World) -> Iterator[RunningWorker]:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with in_s3(world, f"http://127.0.0.1:{port}") as worker:
            yield worker


@contextmanager
def in_s3(world: World, url: str) -> Iterator[RunningWorker]:
    """A worker whose archive is a bucket at this address."""
    topics = world.topics()
    produce(world.bootstrap, topics.output, [Sent(None, value) for value in events(5)])
    sink = {"type": "s3", "bucket": "events", "endpoint": url, "region": "eu-central-1", "path_style": True}
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    config = world.config(topics, sinks={"archive": sink})
    with world.worker(config, "--sink", "archive", environment=keys) as worker:
        yield worker


@contextmanager
def topic_missing(world: World) -> Iterator[RunningWorker]:
    topics = world.topics()._replace(ingest="nobody-made-it")
    with world.worker(world.config(topics), "--stage", "enrich") as worker:
        yield worker


@contextmanager
def bad_flag_file(world: World) -> Iterator[RunningWorker]:
    with world.worker(world.config(world.topics()), "--stage", "enrich") as worker:
        worker.healthy()
        (world.folder / "flags.yaml").write_text("new-checkout: {variations: [")
        yield worker


@contextmanager
def growing_lag(world: World) -> Iterator[RunningWorker]:
    topics = world.topics()
    ended = threading.Event()

    def send() -> None:
        number = 0
        while not ended.wait(0.1):
            number += 1
            produce(world.bootstrap, topics.output, [Sent(None, event(number))])

    with receiving() as receiver:

        def slowly(request: object) -> Reply:
            receiver.wait(1.0)
            return Reply()

        receiver.answer = slowly
        hook = webhook(receiver.url) | {"max_events": 1, "flush_interval": "1s"}
        with world.worker(world.config(topics, sinks={"hook": hook}), "--sink", "hook") as worker:
            worker.healthy()
            sender = threading.Thread(target=send)
            sender.start()
            try:
                yield worker
            finally:
                ended.set()
                sender.join()


@contextmanager
def disk_full(world: World) -> Iterator[RunningWorker]:
    topics = world.topics()
    noise = [b'{"kind":"feature","key":"banner","noise":"%s"}' % os.urandom(20_000).hex().encode()] * 5
    with small_disk(world.folder / "disk") as folder:
        sink = files(folder / "archive", compression="none")
        with world.worker(world.config(topics, sinks={"archive": sink}), "--sink", "archive") as worker:
            worker.healthy()
            produce(world.bootstrap, topics.output, [Sent(None, value) for value in noise])
            yield worker


@contextmanager
def log_full(world: World) -> Iterator[RunningWorker]:
    topics = world.topics()
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with world.worker(world.config(topics), "--stage", "enrich", log_to=full) as worker:
            yield worker
    finally:
        os.close(full)


@contextmanager
def receiver_gone(world: World) -> Iterator[RunningWorker]:
    topics = world.topics()
    with receiving() as receiver:
        receiver.answer = lambda request: Reply(410)
        config = world.config(topics, sinks={"hook": webhook(receiver.url)})
        with world.worker(config, "--sink", "hook") as worker:
            worker.healthy()
            produce(world.bootstrap, topics.output, [Sent(None, value) for value in events(5)])
            yield worker


@contextmanager
def poison_burst(world: World) -> Iterator[RunningWorker]:
    topics = world.topics()
    with world.worker(world.config(topics), "--stage", "enrich") as worker:
        worker.healthy()
        produce(world.bootstrap, topics.ingest, [Sent(None, b"not JSON")] * 20_000)
        yield worker


@contextmanager
def registry_away(world: World) -> Iterator[RunningWorker]:
    topics = world.topics()
    config = world.config(topics, registry={"url": f"http://127.0.0.1:{free_ports(1)[0]}"})
    config["topics"] = {**config["topics"], "output_format": "avro"}
    with world.worker(config, "--stage", "enrich") as worker:
        yield worker


@contextmanager
def wrong_clock(world: World) -> Iterator[RunningWorker]:
    topics = world.topics()
    with world.worker(world.config(topics), "--stage", "enrich") as worker:
        worker.healthy()
        values = [raw(number) for number in range(50)]
        values[20:] = [raw(number, FRESH + 400 * 86_400) for number in range(30)]
        produce(world.bootstrap, topics.ingest, [Sent(None, value) for value in values])
        yield worker


INCIDENTS = {
    "broker away": Incident(
        broker_away,
        "enrich",
        "kafka",
        "kafka_error",
        "no broker answers at kafka.bootstrap_servers",
        "look whether they run and can be reached",
    ),
    "bucket denied": Incident(
        bucket_denied,
        "archive",
        "sink_refused",
        "sink_failed",
        "AccessDenied",
        "look at the rights and settings of the sink",
    ),
    "topic missing": Incident(
        topic_missing,
        "enrich",
        "topic",
        "stage_waits",
        "missing topics: nobody-made-it",
        "create them, or set topics.create = true",
        ready=False,
    ),
    "bad flag file": Incident(
        bad_flag_file, "enrich", "flags", "flags_unreadable", "flags.yaml", "mend the source"
    ),
    "growing lag": Incident(
        growing_lag, "hook", "lag_grows", "lag_grows", "more come in than go out", "add workers"
    ),
    "disk full for data": Incident(
        disk_full,
        "archive",
        "sink_unavailable",
        "sink_failed",
        "No space left on device",
        "look whether the sink is up and has room",
    ),
    "disk full for the log": Incident(
        log_full, "process", "log_lines_lost", "", "lines of the log are lost", "make room"
    ),
    "webhook 410": Incident(
        receiver_gone,
        "hook",
        "partition_stopped",
        "partition_stopped",
        "410 Gone",
        "have the receiver take requests again",
    ),
    "poison burst": Incident(
        poison_burst,
        "enrich",
        "dead_letters",
        "dead_letters",
        "invalid_json",
        "look at their headers in the dead-letter topic",
    ),
    "registry away": Incident(
        registry_away,
        "enrich",
        "registry",
        "stage_waits",
        "does not answer",
        "look whether it is up, and at registry.url",
        ready=False,
    ),
    "store that hangs": Incident(
        store_that_hangs,
        "archive",
        "delivery_under_way",
        "delivery_under_way",
        "open",
        "look whether it works",
    ),
    "wrong clock in events": Incident(
        wrong_clock,
        "enrich",
        "event_clock",
        "event_clock",
        "say that they were made at",
        "set the clock of the application",
    ),
}


@pytest.mark.parametrize("incident", INCIDENTS.values(), ids=INCIDENTS.keys())
def test_an_incident_is_told_everywhere_alike(
    incident: Incident, admin: AdminClient, bootstrap: str, limits: BrokerLimits, tmp_path: Path
) -> None:
    """/health, flagstream_problems and the log name it in time; /ready says whether a rollout goes on."""
    world = World(admin, bootstrap, limits, tmp_path)
    with incident.scene(world) as worker:
        deadline = time.monotonic() + SECONDS

        def names_it(text: str) -> bool:
            return incident.cause in text and incident.action in text

        def reported() -> bool:
            return any(map(names_it, _texts(worker, incident))) and _agrees(worker, incident)

        def logged() -> bool:
            return any(names_it(str(line)) for line in worker.seen(incident.logged_as))

        eventually(reported, deadline - time.monotonic())
        if incident.logged_as:
            eventually(logged, max(0.1, deadline - time.monotonic()))
        if incident.ready:
            eventually(worker.ready, max(0.1, deadline - time.monotonic()))
        else:
            assert not worker.ready()


def _texts(worker: RunningWorker, incident: Incident) -> list[str]:
    """What /health says of the source, where it counts a problem of this kind."""
    page = worker.health()
    if incident.kind not in page["kinds"].get(incident.source, {}):
        return []
    return list(page["problems"][incident.source])


def _agrees(worker: RunningWorker, incident: Incident) -> bool:
    """Whether the metric counts what the page does."""
    counted = worker.health()["kinds"].get(incident.source, {}).get(incident.kind, 0)
    shown = worker.value("flagstream_problems", source=incident.source, kind=incident.kind)
    return bool(counted == shown > 0)


def webhook(url: str) -> dict[str, Any]:
    return {
        "type": "webhook",
        "endpoint_url": url,
        "allow_private_addresses": True,
        "flush_interval": "200ms",
    }


@contextmanager
def http_server(status: int, body: bytes) -> Iterator[str]:
    """A server that answers every request the same."""
    with receiving() as receiver:
        receiver.answer = lambda request: Reply(status, {"Content-Type": "application/xml"}, body)
        yield receiver.url.removesuffix("/hook")


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 64 KiB; fails where mounting is not allowed."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.fail(
            f"a file system cannot be mounted here ({mounted.stderr.strip()}); run as root, or with "
            "unshare --user --map-root-user --mount make test-more",
            pytrace=False,
        )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
