"""``make bench``: the enrich stage against the bare client and against stock Faust, on the same broker in one
run.

The contenders run in turn, several rounds, each in a fresh process with fresh output topic and group on the
same ingest topic; ratios are taken round by round and their median is what counts, for machines drift.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import uuid
from typing import Any

from bench.events import PARTITIONS, fill
from tests.support.kafka_records import create_topic

GOALS = {
    "events/s, (b) / (a)": ("at least", 0.8),
    "CPU an event, (b) / (a)": ("at most", 2.0),
    "events/s, (b) / (c)": ("at least", 30.0),
    "peak RSS of (b), MB": ("at most", 250.0),
}


def measure(name: str, bootstrap: str, ingest: str, events: int) -> dict[str, float]:
    """Run one contender in a process of its own."""
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap})
    output = create_topic(admin, f"bench-{name}".replace("_", "-"), PARTITIONS)
    create_dead(admin, output)
    environment = {
        **os.environ,
        "BENCH_BOOTSTRAP": bootstrap,
        "BENCH_INGEST": ingest,
        "BENCH_OUTPUT": output,
        "BENCH_EVENTS": str(events),
        "BENCH_RUN": f"bench-{uuid.uuid4().hex[:8]}",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "bench.contenders", name],
        env=environment,
        stdout=subprocess.PIPE,
        timeout=900,
        check=True,
        text=True,
    )
    admin.delete_topics([output])
    found: dict[str, float] = json.loads(next(out for out in done.stdout.splitlines() if out.startswith("{")))
    return found


def create_dead(admin: Any, output: str) -> None:
    """The dead-letter topic that goes with an output topic."""
    from confluent_kafka.admin import NewTopic

    admin.create_topics([NewTopic(f"{output}.dead", 1)])[f"{output}.dead"].result(30)


def main() -> int:
    """Print the figures of each contender and the ratios with their goals; exit code 1 if one is missed."""
    from confluent_kafka.admin import AdminClient

    options = argparse.ArgumentParser(prog="bench", description=__doc__)
    options.add_argument("--events", type=int, default=1_000_000, help="events for (a) and (b)")
    options.add_argument("--slow-events", type=int, default=30_000, help="events for (c), which is slow")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    bootstrap = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    print(f"filling the ingest topics: {chosen.events} events on {PARTITIONS} partitions", flush=True)
    plain = create_topic(admin, "bench-ingest", PARTITIONS)
    fill(bootstrap, plain, chosen.events)
    slow = create_topic(admin, "bench-ingest-slow", PARTITIONS)
    fill(bootstrap, slow, chosen.slow_events)
    whole = create_topic(admin, "bench-ingest-headers", PARTITIONS)
    fill(bootstrap, whole, chosen.events // 4, headers=True)
    jobs = {
        "(a) bare confluent-kafka loop": ("bare", plain, chosen.events),
        "(b) flagstream, enrich stage": ("worker", plain, chosen.events),
        "(c) stock Faust agent": ("stock_faust", slow, chosen.slow_events),
        "    (b) with headers and timestamps": ("worker_keeping", whole, chosen.events // 4),
    }
    found: dict[str, list[dict[str, float]]] = {title: [] for title in jobs}
    measure("bare", bootstrap, plain, chosen.events)  # not counted: a broker that has just started is slow
    for number in range(chosen.rounds):
        for title, (name, topic, events) in jobs.items():
            figures = measure(name, bootstrap, topic, events)
            found[title].append(figures)
            print(f"round {number + 1}  {title:36} {line(figures)}", flush=True)
    print("\nmedians")
    for title, rounds in found.items():
        print(f"{title:36} {line({key: statistics.median(r[key] for r in rounds) for key in rounds[0]})}")
    a, b, c, _ = found.values()
    results = {
        "events/s, (b) / (a)": ratio(b, a, "events_per_second"),
        "CPU an event, (b) / (a)": ratio(b, a, "cpu_us_per_event"),
        "events/s, (b) / (c)": ratio(b, c, "events_per_second"),
        "peak RSS of (b), MB": statistics.median(r["peak_bytes"] for r in b) / 1e6,
    }
    print("\nratios (median of the rounds)")
    missed = 0
    for title, value in results.items():
        kind, goal = GOALS[title]
        met = value >= goal if kind == "at least" else value <= goal
        missed += not met
        print(f"{title:28} {value:8.2f}   goal: {kind} {goal:g}   {'met' if met else 'MISSED'}")
    return 1 if missed else 0


def line(figures: dict[str, float]) -> str:
    """One contender's figures."""
    return (
        f"{figures['events_per_second']:>10,.0f} events/s {figures['cpu_us_per_event']:8.2f} µs CPU an event "
        f"{figures['peak_bytes'] / 1e6:7.0f} MB peak RSS"
    )


def ratio(one: list[dict[str, float]], other: list[dict[str, float]], key: str) -> float:
    """Round by round, then the median."""
    return statistics.median(x[key] / y[key] for x, y in zip(one, other, strict=True))


if __name__ == "__main__":
    sys.exit(main())
