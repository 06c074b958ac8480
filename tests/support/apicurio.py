"""Runs a real schema registry as a process of its own, for tests that also freeze it."""

import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import Request, urlopen

from tests.support.child_process import die_with_parent
from tests.support.kafka_process import free_ports
from tests.support.registry_jars import RegistryUnavailable, registry_command

# Measured: 5 s on two idle cores; the rest is for machines that are busy. Seconds.
START_TIMEOUT = 90.0


class Apicurio:
    """Apicurio with its schemas in memory: what was registered is gone when it is stopped. A context manager.

    Entering raises RegistryUnavailable without Java or Maven, or when it does not answer in time, with the
    tail of its log. It dies with the process that started it.
    """

    def __init__(self) -> None:
        port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
        self._properties = (f"quarkus.http.port={port}", "quarkus.http.host=127.0.0.1")
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="flagstream-registry-"))

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start it on its port; returns when it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                registry_command(*self._properties),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RegistryUnavailable(
                    "the schema registry does not answer:\n" + self._log.read_text(errors="replace")[-4000:]
                )
            time.sleep(0.1)

    def stop(self) -> None:
        """End it; it forgets its schemas. No-op when stopped."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """`freeze`, and `thaw` at the end in any case."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def freeze(self) -> None:
        """Stop its clock (SIGSTOP): connections are accepted, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze` (SIGCONT)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def register(self, subject: str, schema: str) -> int:
        """Add a schema through the interface itself; its id."""
        return int(self._ask(f"subjects/{subject}/versions", {"schema": schema}, timeout=30)["id"])

    def _ask(self, path: str, body: object = None, *, timeout: float) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}/{path}", data, {"Content-Type": "application/json"})
        with urlopen(request, timeout=timeout) as answer:
            return json.load(answer)

    @property
    def _log(self) -> Path:
        return self._folder / "registry.log"

    def _answers(self) -> bool:
        try:
            self._ask("subjects", timeout=2)
        except (OSError, ValueError):
            return False
        return True
