"""One run of a worker as users run it: a process of the command, whose CPU time is read from outside.

Two revisions are measured alike in this way, whatever their packages are called.
"""

import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka.admin import AdminClient

from bench.events import FLAGS, PARTITIONS, tracked
from tests.chaos.offsets import Offsets
from tests.support.archive import lines, stored
from tests.support.kafka_records import create_topic
from tests.support.running_worker import RunningWorker, Topics, configuration, eventually
from tests.support.seaweed import ACCESS_KEY, SECRET_KEY, SeaweedFs

LONGEST_RUN = 900.0
"""Seconds after which a run has failed."""
ASK_SECONDS = 0.05
"""Between two questions how far a run is; they go to the broker, so they cost the worker nothing."""
FILES, OBJECTS = "files", "objects"


class Program(NamedTuple):
    """A worker to measure: the command that users start, and the tree that it was installed from."""

    command: Path
    tree: Path


class Job(NamedTuple):
    """The events of ``ingest`` (a topic), ``events`` of them, which a worker processes."""

    bootstrap: str
    ingest: str
    events: int
    store: SeaweedFs | None
    """Where the whole job exports to, beside files; None for the enrich stage alone."""


def cpu_per_event(program: Program, job: Job, folder: Path) -> float:
    """Run ``job`` once and return microseconds of CPU an event, of all threads of the process, from its first
    assignment to its last commit.

    Each run has consumer groups, output topics and places to export to of its own; ``folder`` is empty.
    Raises AssertionError if the run does not end, or if it exported another number of events.
    """
    admin = AdminClient({"bootstrap.servers": job.bootstrap})
    output = create_topic(admin, "bench-output", PARTITIONS)
    topics = Topics(job.ingest, output, create_topic(admin, "bench-dead-letters"))
    name = f"bench-{uuid.uuid4().hex[:8]}"
    (folder / "flags.yaml").write_text(FLAGS)
    sinks = _sinks(job.store, folder) if job.store else {}
    config = configuration(job.bootstrap, folder, topics, name=name, sinks=sinks)
    arguments = () if sinks else ("--stage", "enrich")
    environment = {"PYTHONPATH": str(program.tree)}
    with RunningWorker(
        config, folder, program=(program.command,), arguments=arguments, environment=environment
    ) as worker:
        worker.await_event("partitions_assigned", source="enrich")
        before = worker.cpu_seconds()
        with closing(Offsets(job.bootstrap, PARTITIONS)) as offsets:
            finished = _finished(offsets, name, topics, job.events, list(sinks))
            eventually(lambda: not worker.alive or finished(), LONGEST_RUN, ASK_SECONDS)
        assert worker.alive, worker.log
        spent = worker.cpu_seconds() - before
        assert worker.stop() == 0, worker.log
    if sinks:
        archive = folder / FILES
        exported = sum(len(lines(stored(archive, output, partition))) for partition in range(PARTITIONS))
        assert exported == tracked(job.events), f"{exported} events exported, not {tracked(job.events)}"
    for answer in admin.delete_topics([topics.output, topics.dead_letters]).values():
        answer.result(30)
    return spent / job.events * 1e6


def _sinks(store: SeaweedFs, folder: Path) -> Mapping[str, Any]:
    """A sink of files and one of S3, whose last windows do not wait for a minute."""
    objects = store.folder()
    return {
        FILES: {"type": "file", "path": str(folder / FILES), "flush_interval": "3s"},
        OBJECTS: {
            "type": "s3",
            "bucket": objects.bucket,
            "prefix": objects.prefix,
            "endpoint": objects.url,
            "path_style": True,
            "region": "us-east-1",
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
            "flush_interval": "3s",
        },
    }


def _finished(
    offsets: Offsets, name: str, topics: Topics, count: int, sinks: list[str]
) -> Callable[[], bool]:
    """Whether the enrich stage has committed ``count`` events, and each sink all that came of them."""

    def enriched() -> bool:
        found = offsets.committed(f"{name}.enrich", topics.ingest)
        return sum(max(position.offset, 0) for position in found.values()) >= count

    def exported(sink: str) -> bool:
        found = offsets.committed(f"{name}.sink.{sink}", topics.output)
        # The last offset of a partition is the marker of its last transaction, which no window contains.
        return all(
            found[index].offset >= end - 1 for index, end in offsets.ends(topics.output).items() if end
        )

    return lambda: enriched() and all(map(exported, sinks))
