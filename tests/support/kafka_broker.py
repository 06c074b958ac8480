"""Provides the real Kafka that tests, proof and bench run against.

`python -m tests.support.kafka_broker run -- COMMAND…` runs COMMAND with KAFKA_BOOTSTRAP_SERVERS set, ends
the broker after it and exits with its code (128 + the signal's number if one ended it). The broker is, in
this order:

1. the one that KAFKA_BOOTSTRAP_SERVERS already names, which is left alone;
2. a KafkaBroker on Java, its jars fetched by Maven;
3. the one of docker-compose.kafka.yml.

COMMAND finds in FLAGSTREAM_TEST_BROKER which one it got: `external`, `java` or `compose`.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from types import FrameType
from typing import NamedTuple

from tests.support.child_process import die_with_parent
from tests.support.kafka_jars import REPOSITORY, BrokerUnavailable
from tests.support.kafka_process import KafkaBroker, answers, free_ports

__all__ = ["BrokerUnavailable", "KafkaBroker", "Provided", "provide"]

BOOTSTRAP = "KAFKA_BOOTSTRAP_SERVERS"
KIND = "FLAGSTREAM_TEST_BROKER"
ADVICE = (
    "no Kafka to test against. Install Java 17 or newer with Maven, or Docker with its compose plug-in, "
    f"or name a running broker (4.0 or newer): {BOOTSTRAP}=host:port"
)


class Provided(NamedTuple):
    """A broker that answers: where, and which kind it is (`external`, `java`, `compose`)."""

    bootstrap_servers: str
    kind: str


@contextlib.contextmanager
def provide() -> Iterator[Provided]:
    """Provide a broker for the time of the `with`. Raises BrokerUnavailable: what was tried, what would
    help."""
    named = os.environ.get(BOOTSTRAP)
    if named:
        if not answers(named, timeout=10):
            raise BrokerUnavailable(f"{BOOTSTRAP}={named}: no broker answers there within 10 s")
        yield Provided(named, "external")
        return
    with contextlib.ExitStack() as stack:
        try:
            broker = stack.enter_context(KafkaBroker())
            provided = Provided(broker.bootstrap_servers, "java")
        except BrokerUnavailable as java:
            if not _docker_answers():
                raise BrokerUnavailable(
                    f"{ADVICE}\nTried: Java ({java}); docker compose (not there)"
                ) from java
            provided = Provided(stack.enter_context(_composed()), "compose")
        yield provided


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        if subprocess.run(command, capture_output=True, timeout=30).returncode != 0:
            return False
    return True


@contextlib.contextmanager
def _composed() -> Iterator[str]:
    port = free_ports(1)[0]
    file = REPOSITORY / "docker-compose.kafka.yml"
    compose = ["docker", "compose", "-f", str(file), "-p", f"flagstream-{uuid.uuid4().hex[:8]}"]
    environment = {**os.environ, "KAFKA_PORT": str(port)}
    try:
        up = subprocess.run([*compose, "up", "--detach", "--wait", "kafka"], env=environment, timeout=300)
        if up.returncode != 0:
            raise BrokerUnavailable(f"docker compose could not start {file.name}")
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run([*compose, "down", "--volumes"], env=environment, timeout=120)


def run(command: list[str]) -> int:
    """Run a command with a broker; SIGTERM and SIGINT go to the command, and the broker ends after it."""
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, _: FrameType | None) -> None:
        if child is None:
            raise SystemExit(128 + number)
        # A terminal sends Ctrl-C to the command too; twice would cut its clean-up short.
        if number == signal.SIGTERM or not sys.stdin.isatty():
            child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, forward)
    try:
        with provide() as broker:
            print(f"Kafka ({broker.kind}) at {broker.bootstrap_servers}", file=sys.stderr, flush=True)
            environment = {**os.environ, BOOTSTRAP: broker.bootstrap_servers, KIND: broker.kind}
            child = subprocess.Popen(command, env=environment, preexec_fn=die_with_parent(signal.SIGTERM))
            code = child.wait()
    except (BrokerUnavailable, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return code if code >= 0 else 128 - code


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.kafka_broker", description=__doc__)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="run a command with a broker")
    runner.add_argument("command", nargs="+", help="the command, after --")
    return run(parser.parse_args().command)


if __name__ == "__main__":
    sys.exit(main())
