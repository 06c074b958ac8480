"""Runs one Kafka broker as a process of its own, for tests that also stop, restart and freeze it."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.child_process import die_with_parent
from tests.support.kafka_jars import BrokerUnavailable, find_java, kafka_class_path

# Measured: 3 s on two idle cores; the rest is for machines that are busy. Seconds.
START_TIMEOUT = 90.0
STOP_TIMEOUT = 20.0

# Any 16 bytes in base64 do; a fixed one makes no difference to a broker that is alone.
_CLUSTER_ID = "ZmxhZ3N0cmVhbS10ZXN0cw"

# What makes takeovers quick enough to test, and one node enough. Times in milliseconds. A property given to
# KafkaBroker wins over these.
_PROPERTIES = {
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "10",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "10",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.min.heartbeat.interval.ms": "100",
    # how often the broker looks for transactions past their time-out (10 s by default)
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    # 128 MB by default, a quarter of the heap, for compaction that nothing here waits for
    "log.cleaner.dedupe.buffer.size": "16777216",
}


class KafkaBroker:
    """Runs a single-node Apache Kafka in KRaft mode with its data in a temporary folder.

    A context manager: entering starts it, leaving ends it and removes the data. `properties` are server
    properties that win over the ones for tests. `sasl_users` (name to password) adds a listener for
    SASL_PLAINTEXT with mechanism PLAIN at `sasl_bootstrap_servers`, beside the open `bootstrap_servers`.

    Entering raises BrokerUnavailable without Java or Maven, or when the broker does not answer in time, with
    the tail of its log. The broker dies with the process, and on Linux with the thread, that started it.
    """

    def __init__(
        self,
        properties: Mapping[str, str] | None = None,
        sasl_users: Mapping[str, str] | None = None,
    ) -> None:
        self._extra = dict(properties or {})
        self._sasl_users = dict(sasl_users or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.gettempdir()) / f"flagstream-kafka-{uuid.uuid4().hex}"
        port, controller_port, sasl_port = free_ports(3)
        self.controller_port = controller_port
        self.bootstrap_servers = f"127.0.0.1:{port}"
        self.sasl_bootstrap_servers = f"127.0.0.1:{sasl_port}"

    def __enter__(self) -> Self:
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def configure(self, properties: Mapping[str, str]) -> None:
        """Add server properties, before `prepare`."""
        self._extra |= properties

    def prepare(self) -> None:
        """Format its data folder."""
        self._java, self._class_path = find_java(), kafka_class_path()
        self._folder.mkdir()
        self._format()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id; raises BrokerUnavailable while the broker is stopped."""
        return self._running().pid

    def start(self) -> None:
        """Start it, again after `stop`: same ports, same data. Returns when it answers."""
        self.launch()
        self._await_answer()

    def launch(self) -> None:
        """Start it, and do not wait: one of several answers only when there are enough of them."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._java_command("-Xmx512m", "kafka.Kafka", self._server_properties),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                # out of reach of a terminal's Ctrl-C: what uses the broker ends before it does
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    def kill(self) -> None:
        """End it at once (SIGKILL); its data stays."""
        process, self._process = self._running(), None
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End it, in order if it manages that within STOP_TIMEOUT; its data stays. No-op when stopped."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """Stop its clock (SIGSTOP): connections stay open. Returns when nothing is answered any more.

        The signal is sent at once, but on a busy machine some threads of the broker run on for a while.
        """
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        # The kernel reports a stopped child when its last thread has stopped.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let it go on after `freeze` (SIGCONT)."""
        self._running().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop it and remove its data. May be called twice."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of what the broker logged since it was first started."""
        return (
            "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
            if self._log.exists()
            else ""
        )

    @property
    def _log(self) -> Path:
        return self._folder / "broker.log"

    @property
    def _server_properties(self) -> Path:
        return self._folder / "server.properties"

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise BrokerUnavailable("the broker is stopped")
        return self._process

    def _java_command(self, heap: str, main: str, *arguments: str | Path) -> list[str | Path]:
        return [self._java, heap, "-cp", self._class_path, main, *arguments]

    def _format(self) -> None:
        lines = [f"{name}={value}" for name, value in {**self._settings(), **self._extra}.items()]
        self._server_properties.write_text("\n".join(lines) + "\n")
        arguments = ("format", "-t", _CLUSTER_ID, "-c", self._server_properties)
        command = self._java_command("-Xmx256m", "kafka.tools.StorageTool", *arguments)
        with self._log.open("ab") as log:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=START_TIMEOUT
            )
        if done.returncode != 0:
            raise BrokerUnavailable(f"Kafka's storage tool refused:\n{self.log_tail()}")

    def _settings(self) -> dict[str, str]:
        listeners = {
            "PLAINTEXT": self.bootstrap_servers,
            "CONTROLLER": f"127.0.0.1:{self.controller_port}",
        }
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{listeners['CONTROLLER']}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": (
                "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT"
            ),
            "log.dirs": str(self._folder / "data"),
            **_PROPERTIES,
        }
        if self._sasl_users:
            listeners["SASL_PLAINTEXT"] = self.sasl_bootstrap_servers
            users = " ".join(f'user_{name}="{password}"' for name, password in self._sasl_users.items())
            settings["sasl.enabled.mechanisms"] = "PLAIN"
            settings["listener.name.sasl_plaintext.plain.sasl.jaas.config"] = (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
            )
        settings["listeners"] = ",".join(f"{name}://{address}" for name, address in listeners.items())
        return settings

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._running().poll() is not None:
                raise BrokerUnavailable(f"Kafka ended while starting; its log ends with:\n{self.log_tail()}")
            if answers(self.bootstrap_servers, timeout=2.0):
                return
            time.sleep(0.1)
        raise BrokerUnavailable(f"Kafka did not answer in {START_TIMEOUT:g} s; its log:\n{self.log_tail()}")


def answers(bootstrap_servers: str, timeout: float) -> bool:
    """Whether a broker at one of these addresses answers a metadata request within `timeout` seconds."""
    # A plain connection first: librdkafka writes each refused one to standard error.
    if not any(_listens(address, timeout) for address in bootstrap_servers.split(",")):
        return False
    try:
        AdminClient({"bootstrap.servers": bootstrap_servers}).list_topics(timeout=timeout)
    except KafkaException:
        return False
    return True


def _listens(address: str, timeout: float) -> bool:
    host, _, port = address.strip().rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout).close()
    except (OSError, ValueError):
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, outside the range from which systems number outgoing connections.

    A port of that range could be taken by any client while its broker is stopped and about to start again.
    """
    ports: list[int] = []
    for port in random.sample(range(15_000, 32_000), 500):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise BrokerUnavailable("no free ports between 15000 and 32000")
