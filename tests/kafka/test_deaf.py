"""A worker never goes deaf: whatever of it dies or hangs, it says so or it ends."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from flagstream.errors import ExitCode
from tests.support.child_process import die_with_parent
from tests.support.exporting import Exporting, events
from tests.support.kafka_jars import REPOSITORY
from tests.support.running_worker import RunningWorker, eventually


class Log:
    """Where a worker's log goes: `end` is the descriptor that it gets."""

    def __init__(self, kind: str) -> None:
        self.reading: int | None = None
        if kind == "full disk":
            self.end = os.open("/dev/full", os.O_WRONLY)
            return
        self.reading, self.end = os.pipe()
        if kind == "no reader":
            os.close(self.reading)
        elif kind == "nobody reads":
            os.set_blocking(self.end, False)
            with contextlib.suppress(BlockingIOError):
                while os.write(self.end, b"." * 4096):
                    pass
            os.set_blocking(self.end, True)


@contextmanager
def exporting(export: Exporting, kind: str) -> Iterator[tuple[RunningWorker, Log]]:
    """A worker with a file sink whose log goes to a place of this kind."""
    log = Log(kind)
    with RunningWorker(
        export.config, export.folder.parent, arguments=("--sink", "archive"), log_to=log.end
    ) as worker:
        os.close(log.end)
        yield worker, log


def lost_lines(worker: RunningWorker) -> float:
    """What the worker counts as lost."""
    [family] = [f for f in worker.metrics() if f.name == "flagstream_log_lines_lost"]
    return next(sample.value for sample in family.samples if sample.name.endswith("_total"))


@pytest.mark.parametrize("kind", ["full disk", "no reader", "nobody reads"])
def test_a_log_that_cannot_be_written_stops_nothing(
    kind: str, admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """Events are exported, lost lines are counted, and one SIGTERM ends the worker in order."""
    export = Exporting.create(admin, bootstrap, tmp_path)

    with exporting(export, kind) as (worker, _):
        export.produce(events(25))
        export.await_lines(25)
        if kind != "nobody reads":  # there the lines wait in the queue, which has room for hours of them
            assert lost_lines(worker) > 0
        assert worker.stop() == ExitCode.OK

    assert export.committed().offset == 25


def test_the_log_goes_on_when_somebody_reads_it_again(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """What was queued meanwhile comes in its order: nothing was lost."""
    export = Exporting.create(admin, bootstrap, tmp_path)

    with exporting(export, "nobody reads") as (worker, log):
        export.produce(events(10))
        export.await_lines(10)
        assert log.reading is not None
        found = b""
        while b"window_delivered" not in found:
            found += os.read(log.reading, 65_536)
        lost = lost_lines(worker)

    assert found.index(b"worker_starting") < found.index(b"stage_started") < found.index(b"window_delivered")
    assert lost == 0


def test_crash_points_need_a_setting(admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
    """The variable alone kills no worker: it is said in the log, and events are exported."""
    export = Exporting.create(admin, bootstrap, tmp_path)

    with RunningWorker(
        export.config,
        tmp_path,
        arguments=("--sink", "archive"),
        environment={"FLAGSTREAM_CRASH": "export.planned:kill"},
    ) as worker:
        worker.await_event("crash_points_ignored")
        export.produce(events(10))
        export.await_lines(10)


def test_sigterm_counts_from_the_first_moment_on(tmp_path: Path) -> None:
    """The handlers come before anything heavy is loaded: a worker that was just started ends with code 0."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flagstream", "run", "-c", str(tmp_path / "none.toml")],
        cwd=REPOSITORY,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )

    def handled() -> bool:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) & (1 << (signal.SIGTERM - 1)))

    eventually(handled, every=0.001)
    process.send_signal(signal.SIGTERM)

    assert process.wait(30) == ExitCode.OK


def test_the_entry_loads_nothing_heavy() -> None:
    """What the command imports before it handles signals takes no time."""
    program = (
        "import sys, flagstream.__main__; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    assert {"click", "pydantic", "faust", "structlog", "asyncio"} & set(found.stdout.split()) == set()


def child(tmp_path: Path, what: str) -> subprocess.CompletedProcess[str]:
    """A worker on the broker that is built into librdkafka, with something done to it."""
    flags = tmp_path / "flags.yaml"
    flags.write_text("new-checkout: {variations: {on: true, off: false}, defaultRule: {variation: on}}\n")
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(flags), what],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_the_death_of_any_task_ends_the_process(tmp_path: Path) -> None:
    """Each task of a running worker is cancelled in turn, ours and Faust's: it stops with exit code 1."""
    done = child(tmp_path, "kill")
    outcomes = dict(line.rsplit(" = ", 1) for line in done.stdout.splitlines())

    assert len(outcomes) >= 10, done.stderr[-3000:]
    assert {name: end for name, end in outcomes.items() if end not in ("UNEXPECTED", "gone before")} == {}


def test_an_event_loop_that_is_blocked_ends_the_process(tmp_path: Path) -> None:
    """Its consumers would go on polling, and keep the partitions from everyone else."""
    done = child(tmp_path, "block")

    assert done.returncode == ExitCode.STUCK
    assert '"threads": ["event loop"]' in done.stderr


PROGRAM = """
import asyncio, os, sys, time
from pathlib import Path

from flagstream.config.flags import FlagSettings
from flagstream.config.settings import KafkaSettings, Settings, WebSettings
from flagstream import host as process
from flagstream.host import Host
from flagstream.kafka.embedded import EmbeddedBroker
from flagstream.kafka.topics import TopicFacts
from flagstream.operate.logging import configure
from flagstream.sinks.objects.file import FileSettings

folder, flags = Path(sys.argv[1]), Path(sys.argv[2])
PASSING = 10.0
EVENT = b'{"kind":"feature","userKey":"u","creationDate":1,"key":"new-checkout","value":true}'

def settings(servers, number):
    return Settings(
        name=f"tasks-{number}",
        kafka=KafkaSettings(bootstrap_servers=servers, group_protocol="consumer"),
        flags=FlagSettings(path=flags),
        sinks={"archive": FileSettings(type="file", path=folder / str(number), flush_interval=0.2)},
        web=WebSettings(enabled=False),
    )

def lasting(own):
    # by what they run: names have numbers that differ from run to run
    found = {}
    for task in asyncio.all_tasks():
        if task not in own:
            name = getattr(task.get_coro(), "__qualname__", "?")
            found.setdefault(name, []).append(task)
    return {f"{name} {n}": task for name, all in found.items() for n, task in enumerate(sorted(all, key=id))}

async def running(broker, number):
    made = settings(broker.bootstrap_servers, number)
    host = Host(made, enrich=True, sinks=("archive",), facts=TopicFacts())
    work = asyncio.create_task(host.run())
    for _ in range(200):
        broker.send(made.topics.ingest, b"u", EVENT, lambda ok: None)
        broker.poll()
        if len(host.sources["archive"].positions) == 4 and len(host.sources["enrich"].positions) == 4:
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)  # what only starts is over
    return host, work

async def listed(broker):
    host, work = await running(broker, 0)
    first = set(lasting({asyncio.current_task(), work}))
    await asyncio.sleep(1.0)
    names = first & set(lasting({asyncio.current_task(), work}))
    host.stop()
    assert await work == 0
    return sorted(names)

async def killed(broker, number, name):
    host, work = await running(broker, number)
    task = lasting({asyncio.current_task(), work}).get(name)
    if task is None:
        host.stop()
        await work
        return "gone before"
    task.cancel()
    done, _ = await asyncio.wait([work], timeout=PASSING)
    if not done:
        host.stop()
        await work
        return "DEAF"
    return work.result().name

async def blocked(broker):
    await running(broker, 0)
    time.sleep(60)

configure("json", "info")
with EmbeddedBroker() as broker:
    for topic in ("flag-evaluations", "flag-evaluations-enriched", "flag-evaluations-dead-letters"):
        broker.create(topic)
    if sys.argv[3] == "block":
        process.ALIVE_SECONDS = 3
        asyncio.run(blocked(broker))
    for number, name in enumerate(asyncio.run(listed(broker)), 1):
        print(name, "=", asyncio.run(killed(broker, number, name)), flush=True)
os._exit(0)
"""
