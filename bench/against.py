"""``make bench-against OLD=REVISION``: this tree's worker against that of an earlier revision.

The earlier revision is unpacked and installed, by its own constraints, in a folder of its own, and run by its
own interpreter. The two run in turn on one ingest topic of one broker, and change places in every second
pair. What counts is the ratio of CPU an event within a pair: a shared machine drifts.

``--job enrich`` is the enrich stage alone. ``--job whole`` is the process that users have: from the ingest
topic to the output topic, and from there to files and to a local S3 server.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from confluent_kafka.admin import AdminClient

from bench.events import PARTITIONS, fill
from bench.observed import Job, Program, cpu_per_event
from tests.support.kafka_jars import REPOSITORY
from tests.support.kafka_records import create_topic
from tests.support.seaweed import SeaweedFs


def installed(revision: str, folder: Path) -> Program:
    """The worker of ``revision``, in ``folder`` with a virtual environment of its own."""
    archive = subprocess.run(
        ["git", "-C", REPOSITORY, "archive", revision], stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    subprocess.run([sys.executable, "-m", "venv", folder / ".venv"], check=True)
    binaries = folder / ".venv/bin"
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraints = ["--constraint", "constraints.txt", "--editable", "."]
    subprocess.run([binaries / "python", *install, *constraints], cwd=folder, check=True)
    return Program(binaries / "flagstream", folder)


def interval(values: list[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the median, by order statistics: no distribution is assumed. Below six
    values there is none, and it is the range.
    """
    ordered, count = sorted(values), len(values)
    tail, rank = 0.0, 0
    while tail + math.comb(count, rank) / 2**count <= 0.025:
        tail += math.comb(count, rank) / 2**count
        rank += 1
    return ordered[max(rank - 1, 0)], ordered[min(count - rank, count - 1)]


def main() -> int:
    """Print each pair and the median ratio with its interval; exit code 1 if the interval ends above the
    bound.
    """
    options = argparse.ArgumentParser(
        prog="bench.against", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("revision", help="the earlier revision, as git names it")
    options.add_argument("--job", choices=("enrich", "whole"), default="enrich")
    options.add_argument("--pairs", type=int, default=15)
    options.add_argument("--events", type=int, default=1_000_000)
    options.add_argument("--below", type=float, default=1.03, help="where the interval has to end")
    chosen = options.parse_args()
    bootstrap = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
    ratios = []
    with ExitStack() as stack:
        old = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-against-")))
        print(f"installing {chosen.revision}", flush=True)
        programs = {
            "old": installed(chosen.revision, old),
            "new": Program(Path(sys.executable).with_name("flagstream"), REPOSITORY),
        }
        store = stack.enter_context(SeaweedFs()) if chosen.job == "whole" else None
        ingest = create_topic(AdminClient({"bootstrap.servers": bootstrap}), "bench-ingest", PARTITIONS)
        fill(bootstrap, ingest, chosen.events)
        job = Job(bootstrap, ingest, chosen.events, store)

        def cost(name: str) -> float:
            with tempfile.TemporaryDirectory(prefix="bench-run-") as folder:
                return cpu_per_event(programs[name], job, Path(folder))

        for number in range(-1, chosen.pairs):
            costs = {name: cost(name) for name in (("old", "new") if number % 2 else ("new", "old"))}
            ratio = costs["new"] / costs["old"]
            if number < 0:
                continue  # a broker that has just started is slow
            ratios.append(ratio)
            print(
                f"pair {number + 1:2}  old {costs['old']:.3f}  new {costs['new']:.3f} µs CPU an event  "
                f"new / old {ratio:.3f}",
                flush=True,
            )
    low, high = interval(ratios)
    met = high < chosen.below
    print(
        f"\nmedian ratio {statistics.median(ratios):.3f}, 95 % interval {low:.3f} to {high:.3f}; "
        f"has to end below {chosen.below:g}: {'met' if met else 'MISSED'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
