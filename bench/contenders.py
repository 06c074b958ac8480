"""The programs that are compared. Each runs in a process of its own: ``python -m bench.contenders NAME``.

All read their job from the environment: BENCH_BOOTSTRAP, BENCH_INGEST, BENCH_OUTPUT, BENCH_EVENTS,
BENCH_FLAGS. Each prints one line of JSON when it has read all events: events a second (from the first record
to the last commit), CPU microseconds an event, peak resident bytes. Starting up is not counted.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.accounting import Measurement
from bench.events import FLAGS

BOOTSTRAP = os.environ.get("BENCH_BOOTSTRAP", "")
INGEST = os.environ.get("BENCH_INGEST", "")
OUTPUT = os.environ.get("BENCH_OUTPUT", "")
EVENTS = int(os.environ.get("BENCH_EVENTS", "0"))
RUN = os.environ.get("BENCH_RUN", "")
COMMIT_SECONDS = 0.2


def settings(**enrich: Any) -> Any:
    """The worker's settings as a user has them who sets nothing but names."""
    from flagstream.config import load

    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    (folder / "flags.yaml").write_text(FLAGS)
    lines = [
        f'name = "{RUN}"',
        "[kafka]",
        f'bootstrap_servers = "{BOOTSTRAP}"',
        "[topics]",
        f'ingest = "{INGEST}"\noutput = "{OUTPUT}"\ndead_letters = "{OUTPUT}.dead"',
        "[flags]",
        f'path = "{folder / "flags.yaml"}"',
        "[web]\nenabled = false",
        '[log]\nformat = "json"\nlevel = "warning"',
        "[enrich]",
        *(f"{key} = {json.dumps(value)}" for key, value in enrich.items()),
    ]
    path = folder / "flagstream.toml"
    path.write_text("\n".join(lines))
    return load(path)


def report(measurement: Measurement, **more: object) -> None:
    """The line that the comparison reads."""
    usage = measurement.usage()
    print(
        json.dumps(
            {
                "events_per_second": EVENTS / usage.wall,
                "cpu_us_per_event": usage.cpu / EVENTS * 1e6,
                "peak_bytes": usage.peak,
                **more,
            }
        ),
        flush=True,
    )


def bare() -> None:
    """(a) consume → transactional produce_batch, 200 ms commits, with the worker's own client settings; no
    job done.
    """
    from confluent_kafka import Consumer, Message, Producer, TopicPartition

    from flagstream.kafka import properties
    from flagstream.kafka.consumer import POLL_SECONDS
    from flagstream.kafka.handover import MAX_RECORDS

    made = settings()
    consumer = Consumer(properties.consumer_properties(made, properties.enrich_group(made), None))
    producer = Producer(properties.producer_properties(made, f"{RUN}.bare"))
    producer.init_transactions(30)

    def on_assign(client: Any, partitions: list[TopicPartition]) -> None:
        client.incremental_assign([TopicPartition(tp.topic, tp.partition, 0) for tp in partitions])

    consumer.subscribe([INGEST], on_assign=on_assign)
    measurement, seen, due = None, 0, 0.0
    offsets: dict[int | None, int] = {}
    while seen < EVENTS:
        messages = consumer.consume(MAX_RECORDS, POLL_SECONDS)
        if not messages:
            continue
        if measurement is None:
            measurement = Measurement()
        if not offsets:
            producer.begin_transaction()
            due = time.monotonic() + COMMIT_SECONDS
        seen += len(messages)
        partitions = list(map(Message.partition, messages))
        producer.produce_batch(OUTPUT, [{"value": m.value(), "key": m.key()} for m in messages])
        for partition in set(partitions):
            last = len(partitions) - 1 - partitions[::-1].index(partition)
            offsets[partition] = (messages[last].offset() or 0) + 1
        if time.monotonic() >= due or seen >= EVENTS:
            targets = [TopicPartition(INGEST, int(p or 0), offset) for p, offset in offsets.items()]
            producer.send_offsets_to_transaction(targets, consumer.consumer_group_metadata())
            producer.commit_transaction()
            offsets = {}
    assert measurement is not None
    report(measurement)
    consumer.close()


def worker(**enrich: Any) -> None:
    """(b) the enrich stage as users run it: the whole process, Faust app, agent, channel."""
    from flagstream.host import Host
    from flagstream.operate import metrics
    from flagstream.operate.logging import configure

    made = settings(**enrich)
    configure(made.log.format, made.log.level)

    # The two series that these events move: all of them, every 10 ms, would take several percent of the CPU.
    series = [metrics.EVENTS.labels("enriched", ""), metrics.EVENTS.labels("dropped", "untracked")]

    def count() -> float:
        return sum(next(iter(one.collect())).samples[0].value for one in series)

    async def main() -> None:
        host = Host(made, enrich=True, sinks=[])
        running = asyncio.create_task(host.run())
        source = host.sources["enrich"]
        while not source.positions:  # noqa: ASYNC110  # assigned, nothing fetched yet
            await asyncio.sleep(0.001)
        measurement = Measurement()
        while count() < EVENTS:  # noqa: ASYNC110  # a counter notifies nobody
            await asyncio.sleep(0.01)
        report(measurement)
        host.stop()
        await running

    asyncio.run(main())


def stock_faust() -> None:
    """(c) a stock Faust agent doing the same job: one event at a time, at least once, no transactions."""
    import faust

    from flagstream.enrich.transform import Transform
    from flagstream.flags import parse_flags

    transform = Transform(parse_flags(FLAGS, "yaml", datetime.now(UTC)))
    app = faust.App(
        RUN,
        broker=f"kafka://{BOOTSTRAP}",
        value_serializer="raw",
        key_serializer="raw",
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
        datadir=tempfile.mkdtemp(prefix="bench-"),
        broker_max_poll_records=4_000,
        producer_linger_ms=5,
    )
    ingest, output = app.topic(INGEST), app.topic(OUTPUT)
    state: dict[str, Any] = {"seen": 0}

    @app.agent(ingest)
    async def enrich(stream: Any) -> None:
        async for record in stream.events():
            if not state["seen"]:
                state["measurement"] = Measurement()
            outcome = transform(record.value)
            if isinstance(outcome, bytes):
                await output.send(key=record.key, value=outcome)
            state["seen"] += 1
            if state["seen"] == EVENTS:
                await app.producer.flush()
                report(state["measurement"])
                os._exit(0)

    app.finalize()
    faust.Worker(app, loglevel="ERROR", redirect_stdouts=False).execute_from_commandline()


CONTENDERS: dict[str, Callable[[], None]] = {
    "bare": bare,
    "worker": worker,
    "stock_faust": stock_faust,
    "worker_keeping": lambda: worker(keep_timestamps=True),
}

if __name__ == "__main__":
    CONTENDERS[sys.argv[1]]()
