"""Runs the worker as users do: a process of the command, observed by its log, its pages and its exit code."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.child_process import die_with_parent
from tests.support.kafka_jars import REPOSITORY
from tests.support.kafka_process import free_ports
from tests.support.kafka_records import Received, consume_all, create_topic

Configuration = dict[str, Any]
Event = dict[str, Any]

# Seconds. A start takes 2 on two idle cores, a takeover one session time-out; the rest is for busy machines.
PATIENCE = 40.0

FLAGS = """
new-checkout: {variations: {on: true, off: false}, defaultRule: {variation: on}, version: "1.4"}
banner: {variations: {a: {n: 1, text: hi}, b: {n: 2}}, defaultRule: {variation: a}}
quiet: {variations: {on: true, off: false}, defaultRule: {variation: on}, trackEvents: false}
"""
"""Flags of the tests: `quiet` is not tracked."""


class Topics(NamedTuple):
    """Names the three topics of a worker."""

    ingest: str
    output: str
    dead_letters: str

    @classmethod
    def create(cls, admin: AdminClient, name: str, partitions: int = 1, **configs: Mapping[str, str]) -> Self:
        """Create them as `<name>.ingest-…` and so on; `configs`: topic settings by role."""
        return cls(
            *(create_topic(admin, f"{name}.{role}", partitions, configs.get(role)) for role in cls._fields)
        )


def configuration(bootstrap: str, folder: Path, topics: Topics, **sections: Any) -> Configuration:
    """Return a configuration for tests: `sections` are merged into it, tables key by key, the rest as it is.

    The flag file is `folder/flags.yaml`, written if it is not there yet. The name is that of the ingest
    topic, which is the test's own. Sessions are as short as brokers allow by default (6 s).
    """
    flags = folder / "flags.yaml"
    if not flags.exists():
        flags.write_text(FLAGS)
        os.utime(flags, (0, 0))  # at rest: a file that was just written is looked at twice
    base: Configuration = {
        "name": topics.ingest,
        "kafka": {"bootstrap_servers": bootstrap, "session_timeout": "6s"},
        "topics": topics._asdict(),
        "flags": {"path": str(flags), "poll_interval": "200ms"},
        "log": {"format": "json"},
    }
    return _merged(base, sections)


class RunningWorker:
    """Holds one process of `flagstream run`. A context manager: leaving it kills the process if it still
    lives.

    `folder` gets the configuration file; it is the working folder too. `crash` is the value of
    FLAGSTREAM_CRASH. `log_to` is a descriptor for its log, which then is not read here. `arguments` are
    those of `run`: `--stage enrich`, `--sink archive`. `program` is the command, if not this tree's own. A
    free port is chosen for the web server unless `config` names one.
    """

    def __init__(
        self,
        config: Configuration,
        folder: Path,
        *,
        crash: str = "",
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        log_to: int | None = None,
        program: Sequence[str | Path] = (sys.executable, "-m", "flagstream"),
    ) -> None:
        self.config = _merged({"web": {"port": free_ports(1)[0]}}, config)
        self.events: list[Event] = []
        self.lines: list[str] = []
        self._news = threading.Condition()
        file = folder / f"worker-{self.config['web']['port']}.toml"
        file.write_text(to_toml(self.config))
        self.output = file.with_suffix(".out")
        variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), **(environment or {})}
        if crash:
            variables |= {"FLAGSTREAM_CRASH": crash, "FLAGSTREAM_TEST_CRASH_POINTS": "allowed"}
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [*program, "run", "-c", file, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE if log_to is None else log_to,
                cwd=folder,
                env=variables,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if error is not None:  # pytest shows it with the failure
            file = self.output.with_suffix(".log")
            file.write_text(self.log)
            print(f"--- end of {file}:", *self.lines[-30:], sep="\n", file=sys.stderr)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def log(self) -> str:
        """Return all that it wrote to standard error."""
        return "\n".join(self.lines)

    # what it logged

    def seen(self, name: str, **fields: object) -> list[Event]:
        """The events called `name` with these fields that were logged so far."""
        with self._news:
            return [event for event in self.events if _matches(event, name, fields)]

    def await_event(self, name: str, *, count: int = 1, timeout: float = PATIENCE, **fields: object) -> Event:
        """The `count`-th event called `name` with these fields, as soon as it is logged.

        Fails with the log's end when it does not come in `timeout` seconds or the process ended without it.
        """
        deadline = time.monotonic() + timeout
        while True:
            ended = not self._reader.is_alive()
            with self._news:
                found = [event for event in self.events if _matches(event, name, fields)]
                if len(found) >= count:
                    return found[count - 1]
                left = deadline - time.monotonic()
                if ended or left <= 0:
                    why = f"ended with {self._process.poll()}" if ended else f"ran {timeout:g} s"
                    tail = "\n".join(self.lines[-30:])
                    raise AssertionError(f"worker {why} without {count} of {name} {fields}; its log:\n{tail}")
                self._news.wait(min(left, 0.5))

    # its pages

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a page. Raises OSError while the web server is not up."""
        try:
            with urllib.request.urlopen(self._url(path), timeout=10) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metrics(self) -> list[Metric]:
        """What /metrics says, parsed as Prometheus does."""
        status, body = self.get("/metrics")
        assert status == 200, body
        return list(text_string_to_metric_families(body))

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples with these labels; NaN where there are none."""
        found = [
            sample.value
            for metric in self.metrics()
            for sample in metric.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else math.nan

    def health(self) -> dict[str, Any]:
        """Return the body of /health."""
        status, body = self.get("/health")
        answer: dict[str, Any] = json.loads(body)
        assert (status == 200) is answer["healthy"] is (not answer["problems"]), f"{status}: {body}"
        return answer

    def problems(self) -> dict[str, list[str]]:
        """What /health says is wrong, by source; empty when nothing is."""
        return dict(self.health()["problems"])

    def ready(self) -> bool:
        """Whether /ready says yes."""
        status, body = self.get("/ready")
        assert (status == 200) is json.loads(body)["ready"], f"{status}: {body}"
        return status == 200

    def healthy(self, timeout: float = PATIENCE) -> None:
        """Wait until /health finds no problem; the worker is ready then, too."""
        self.await_problem(lambda problems: not problems, timeout)
        assert self.ready()

    def healthy_but_for_dead_letters(self, timeout: float = PATIENCE) -> None:
        """Wait until /health finds nothing but the dead letters that the test has made."""
        self.await_problem(
            lambda problems: all(
                "became dead letters" in text for texts in problems.values() for text in texts
            ),
            timeout,
        )

    def await_problem(
        self, wanted: Callable[[dict[str, list[str]]], object], timeout: float = PATIENCE
    ) -> dict[str, list[str]]:
        """Ask /health until `wanted` is true of its problems; returns them."""
        found: list[dict[str, list[str]]] = []

        def ask() -> bool:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                found.append(self.problems())
                return bool(wanted(found[-1]))
            return False

        try:
            eventually(ask, timeout)
        except AssertionError:
            raise AssertionError(
                f"/health said last {found[-1:]}; the log:\n" + "\n".join(self.lines[-30:])
            ) from None
        return found[-1]

    # its process

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit code once it ended: -9 when it was killed."""
        code = self._process.wait(timeout)
        self._reader.join(timeout)
        return code

    def stop(self, timeout: float = PATIENCE) -> int:
        """SIGTERM; returns the exit code."""
        self.send(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL, also while it is frozen; returns when it is gone."""
        self._process.kill()
        self.wait()

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    @property
    def frozen(self) -> bool:
        """Whether a signal has stopped it (SIGSTOP)."""
        return self._stat()[0] == "T"

    def _stat(self) -> list[str]:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()

    def cpu_seconds(self) -> float:
        """Return the CPU time used so far, of all threads."""
        fields = self._stat()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.config['web']['port']}{path}"

    def _read(self) -> None:
        if self._process.stderr is None:
            return
        for line in self._process.stderr:
            text = line.decode(errors="replace").rstrip("\n")
            with self._news:
                self.lines.append(text)
                with contextlib.suppress(json.JSONDecodeError):
                    event = json.loads(text)
                    if isinstance(event, dict):
                        self.events.append(event)
                self._news.notify_all()


def eventually(happened: Callable[[], bool], timeout: float = PATIENCE, every: float = 0.1) -> None:
    """Ask until `happened` says yes. Fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not happened():
        assert time.monotonic() < deadline, f"it did not happen within {timeout:g} s"
        time.sleep(every)


def add_partition(admin: AdminClient, topic: str) -> None:
    """Give a topic of one partition a second one; returns when the broker has it."""
    admin.create_partitions([NewPartitions(topic, 2)])[topic].result(30)
    eventually(lambda: len(admin.list_topics(topic).topics[topic].partitions) == 2)


def make_anew(admin: AdminClient, topic: str) -> None:
    """Delete a topic and create it again under the same name, with one partition."""
    admin.delete_topics([topic])[topic].result(timeout=20)
    eventually(lambda: topic not in admin.list_topics(timeout=10).topics)
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(timeout=20)


def await_records(bootstrap: str, topic: str, count: int, timeout: float = PATIENCE) -> list[Received]:
    """All records of a topic, `read_committed`, once there are `count`. Fails if there are more."""
    found: list[Received] = []

    def enough() -> bool:
        found[:] = consume_all(bootstrap, topic)
        return len(found) >= count

    try:
        eventually(enough, timeout)
    except AssertionError:
        raise AssertionError(f"{topic}: {len(found)} records, not {count}, in {timeout:g} s") from None
    assert len(found) == count, f"{topic}: {len(found)} records instead of {count}"
    return found


def to_toml(table: Mapping[str, Any]) -> str:
    """TOML of a table of scalars, lists and tables; JSON's scalars are TOML's, but for null."""
    return "\n".join(_lines(table, ()))


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = [f"[{'.'.join(map(json.dumps, path))}]"] if path else []
    lines += [
        f"{json.dumps(key)} = {_inline(value)}"
        for key, value in table.items()
        if not isinstance(value, Mapping)
    ]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += _lines(value, (*path, key))
    return lines


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(key)} = {_inline(one)}' for key, one in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_inline, value))}]"
    return json.dumps(value)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Configuration:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _matches(event: Event, name: str, fields: Mapping[str, object]) -> bool:
    return event.get("event") == name and all(event.get(key) == value for key, value in fields.items())
