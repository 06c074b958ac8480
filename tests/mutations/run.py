"""Put each deliberate fault into a scratch copy of this checkout and run its tests: `make mutants`.

A fault whose tests pass has survived; one whose old text is no longer there has to follow code that moved.
Either ends the run with exit code 1, after the table of all of them.
"""

import argparse
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutations.faults import REPOSITORY, Fault, read

AT_A_TIME = 2
LONGEST = 180.0
"""Seconds that a fault's tests may take; a fault that makes them hang is caught, too."""
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "demo-output", "*.egg-info")
_FAILED = 1
"""pytest's exit code when tests ran and some failed; others mean that they did not run."""
_LIBRARIES = (
    *(
        "pytest",
        "hypothesis",
        "pydantic",
        "structlog",
        "msgspec",
        "confluent_kafka.admin",
        "prometheus_client",
    ),
    *("faust", "boto3", "google.cloud.storage", "fastavro", "pyarrow.parquet", "yaml", "httpcore2", "duckdb"),
)
"""What tests import that is not the worker's: loaded once, before the processes that run tests are forked."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`caught` is None where the fault could not be tried; `detail` says which test failed, or why not."""

    fault: Fault
    caught: bool | None
    detail: str
    seconds: float


@dataclass(slots=True)
class Copy:
    """A scratch copy of the checkout. One process at a time runs pytest in it."""

    folder: Path
    pid: int = 0
    began: float = 0.0
    fault: Fault | None = None
    text: str = field(default="", repr=False)
    """Of the fault's file, without the fault."""

    @property
    def _output(self) -> Path:
        return self.folder.with_suffix(".out")

    def start(self, tests: Sequence[str], fault: Fault | None = None) -> None:
        """Run `tests`, with `fault` in place. Raises ValueError or OSError if it does not fit."""
        self.fault = fault
        if fault is not None:
            path = self.folder / fault.file
            self.text = path.read_text()
            path.write_text(fault.applied(self.text))
        self.began = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            with suppress(BaseException):
                os._exit(_tested(self.folder, self._output, tests))
            os._exit(70)

    def ended(self) -> tuple[int | None, str] | None:
        """Exit code and output of pytest once it has ended, the code None if it took too long; else None."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        code: int | None = os.waitstatus_to_exitcode(status) if pid else None
        if not pid:
            if time.monotonic() - self.began < LONGEST:
                return None
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self.fault is not None:
            (self.folder / self.fault.file).write_text(self.text)
        return code, self._output.read_text(errors="replace")


def _tested(folder: Path, output: Path, tests: Sequence[str]) -> int:
    """In a new process: run pytest in `folder`, and return its exit code."""
    os.setsid()
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(folder)
    places = [str(folder / "worker"), str(folder)]
    os.environ["PYTHONPATH"] = os.pathsep.join(places)
    # A change within a second would leave a compiled file that looks new enough.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    sys.path[:0] = places
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "flagstream")]:
        del sys.modules[name]
    import pytest

    return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))


def _judged(fault: Fault, code: int | None, output: str, seconds: float) -> Outcome:
    if code == _FAILED:
        return Outcome(fault, True, _failed_test(output), seconds)
    if code is None:
        return Outcome(fault, True, f"{fault.tests[0]} (it hangs)", seconds)
    if code == 0:
        return Outcome(fault, False, "its tests pass", seconds)
    return Outcome(fault, None, f"its tests did not run: {_last_line(output)}", seconds)


def _failed_test(output: str) -> str:
    failed = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return failed[0].split(" ", 1)[1].split(" - ")[0] if failed else _last_line(output)


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "E  "))]
    return (errors or lines or ["no output"])[-1][:160]


@contextmanager
def copies(count: int) -> Iterator[list[Copy]]:
    """Scratch copies of the checkout, with libraries loaded for the processes in them."""
    for library in _LIBRARIES:
        with suppress(ImportError):  # one that an extra brings; the tests that need it say so
            importlib.import_module(library)
    with tempfile.TemporaryDirectory(prefix="flagstream-mutants-") as scratch:
        made = [Copy(Path(scratch) / str(number)) for number in range(count)]
        for copy in made:
            shutil.copytree(REPOSITORY, copy.folder, ignore=_LEFT_OUT)
        yield made


def passes_without(faults: Sequence[Fault], copy: Copy) -> str:
    """Run the tests of all faults without any; returns the output if they fail."""
    copy.start(sorted({test for fault in faults for test in fault.tests}))
    while (answer := copy.ended()) is None:
        time.sleep(0.05)
    return "" if answer[0] == 0 else answer[1] or "They take too long."


def try_all(faults: Sequence[Fault], free: list[Copy]) -> Iterator[Outcome]:
    """Try each fault in a copy; yields outcomes as they come."""
    waiting, busy = list(faults), list[Copy]()
    while waiting or busy:
        while waiting and free:
            fault = waiting.pop(0)
            try:
                free[-1].start(fault.tests, fault)
            except (OSError, ValueError) as error:
                yield Outcome(fault, None, str(error), 0.0)
                continue
            busy.append(free.pop())
        for copy in list(busy):
            if (answer := copy.ended()) is not None and copy.fault is not None:
                busy.remove(copy)
                free.append(copy)
                yield _judged(copy.fault, *answer, time.monotonic() - copy.began)
        time.sleep(0.02)


def line(outcome: Outcome) -> str:
    """The line of the table."""
    fault = outcome.fault
    verdict = {True: "caught by", False: "SURVIVED:", None: "NOT TRIED:"}[outcome.caught]
    file = fault.file.removeprefix("worker/flagstream/")
    detail = outcome.detail.removeprefix("tests/")
    return f"{fault.name:<88} {file:<34} {verdict} {detail}  {outcome.seconds:.1f} s"


def main() -> int:
    """Try all faults, or those whose area or name has the given text in it. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", nargs="?", default="", help="try only faults with this in area or name")
    parser.add_argument("-n", type=int, default=AT_A_TIME, help="how many at a time")
    options = parser.parse_args()
    faults = [fault for fault in read() if options.text in f"{fault.area}: {fault.name}"]
    outcomes = []
    with copies(options.n) as free:
        if output := passes_without(faults, free[0]):
            print(output[-3000:], "The tests do not pass without any fault.", sep="\n")
            return 1
        for outcome in try_all(faults, free):
            outcomes.append(outcome)
            print(line(outcome), flush=True)
    bad = [outcome for outcome in outcomes if not outcome.caught]
    print(f"\n{len(outcomes)} faults, {len(outcomes) - len(bad)} caught")
    for outcome in bad:
        print(f"{outcome.fault.area}.toml: {outcome.fault.name}: {outcome.detail}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
