"""Worker processes that die, freeze and come back where a test says."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.child_process import die_with_parent

REPOSITORY = Path(__file__).resolve().parents[2]

Fact = dict[str, Any]
"""One line of a worker's log: its `event` and whatever else belongs to it."""


class Worker:
    """Holds one process. `poll` keeps `exit_code` (negative: the signal that ended it) and `frozen` up to
    date."""

    def __init__(self, name: str, options: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.exit_code: int | None = None
        self.frozen = False
        self._log = log
        self._facts: list[Fact] = []
        self._read = 0
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from flagstream.cli import main; main()", "run", *options],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    def poll(self) -> None:
        """See what became of the process, without waiting."""
        while self.exit_code is None:
            # Popen's own poll() reports nothing of a process that was stopped.
            pid, status = os.waitpid(self._process.pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                self.frozen = True
            elif os.WIFCONTINUED(status):
                self.frozen = False
            else:
                self.exit_code = self._process.returncode = os.waitstatus_to_exitcode(status)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        self.poll()
        if self.exit_code is None:
            os.kill(self._process.pid, number)

    def end(self) -> None:
        """Kill it if it lives, and wait for its end."""
        self.send(signal.SIGKILL)
        if self.exit_code is None:
            _, status = os.waitpid(self._process.pid, 0)
            self.exit_code = self._process.returncode = os.waitstatus_to_exitcode(status)

    @property
    def facts(self) -> list[Fact]:
        """What it has logged up to now; lines that are not JSON are left out."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            text = log.read()
        whole = text.rfind(b"\n") + 1
        self._read += whole
        for line in text[:whole].splitlines():
            with contextlib.suppress(ValueError):
                fact = json.loads(line)
                if isinstance(fact, dict):
                    self._facts.append(fact)
        return self._facts

    def held(self, source: str) -> set[int]:
        """The partitions that it holds in the group of `source` (`enrich`, or a sink's name), by its log."""
        held: set[int] = set()
        for fact in self.facts:
            if fact.get("source") != source:
                continue
            if fact["event"] == "partitions_assigned":
                held.update(fact["partitions"])
            elif fact["event"] in ("partitions_revoked", "partitions_lost"):
                held.difference_update(fact["partitions"])
        return held

    def tail(self, lines: int = 15) -> str:
        """Return the end of its log, with how it ended."""
        text = "\n  ".join(self._log.read_text(errors="replace").splitlines()[-lines:])
        state = (
            "frozen" if self.frozen else "alive" if self.exit_code is None else f"exit code {self.exit_code}"
        )
        return f"{self.name} ({state}):\n  {text}"


class Fleet:
    """Starts workers of one configuration file; leaving it kills those left. Logs stay in `folder`."""

    def __init__(self, folder: Path, configuration: Path) -> None:
        self.workers: list[Worker] = []
        self._folder = folder
        self._configuration = configuration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.end()

    def start(self, name: str, *options: str, crash: str = "", instance: str = "") -> Worker:
        """Start a worker that will die or freeze at `crash` (the value of FLAGSTREAM_CRASH; "": never)."""
        environment = {n: value for n, value in os.environ.items() if not n.startswith("FLAGSTREAM_")}
        environment |= {
            "FLAGSTREAM_CRASH": crash,
            "FLAGSTREAM_TEST_CRASH_POINTS": "allowed",
            "FLAGSTREAM_KAFKA__INSTANCE": instance,
        }
        unique = f"{name}-{len(self.workers) + 1:02}"
        log = self._folder / f"{unique}.log"
        worker = Worker(unique, ["-c", str(self._configuration), *options], environment, log)
        self.workers.append(worker)
        return worker

    def poll(self) -> None:
        for worker in self.workers:
            worker.poll()

    def facts(self) -> Iterator[Fact]:
        """What all of them have logged."""
        for worker in self.workers:
            yield from worker.facts

    def tails(self) -> str:
        """The ends of the logs of those that live, and of the last few that ended."""
        living = [worker for worker in self.workers if worker.exit_code is None]
        ended = [worker for worker in self.workers if worker.exit_code is not None]
        return "\n".join(worker.tail() for worker in [*ended[-3:], *living])
