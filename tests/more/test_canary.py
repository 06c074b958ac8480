"""No secret leaves the worker: a planted word is looked for wherever a person or a program could read it.

The word stands in every secret setting and in every variable that a client library reads. Every client is
made to fail, mostly by a server that quotes the whole request in its answers, as some proxies and stores do.
"""

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from flagstream.errors import ExitCode
from tests.support.exporting import events
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_jars import REPOSITORY
from tests.support.kafka_process import free_ports
from tests.support.kafka_records import Sent, consume_all, produce
from tests.support.running_worker import RunningWorker, Topics, configuration, eventually, to_toml

WORD = "Canary7wolf9Moth"
"""Letters and digits only, so that no way of quoting changes it."""
QUIET = 8.0
"""Seconds for a client to fail a few times, each time in another way."""


def traces() -> set[bytes]:
    """The word as it could appear: as it is, and within base64 at each of three alignments."""
    word = WORD.encode()
    found = {word, word.lower(), word[::-1]}
    for before in range(3):
        encoded = base64.b64encode(b"." * before + word + b"...")
        found.add(encoded[4 : 4 + 12])
    return found


TRACES = traces()


def leaks(text: str | bytes, where: str) -> list[str]:
    """Each place of the word in a text, with what surrounds it."""
    data = text.encode(errors="replace") if isinstance(text, str) else text
    return [
        f"{where}: …{data[max(0, at - 150) : at + 60].decode(errors='replace')}…"
        for trace in TRACES
        if (at := data.find(trace)) >= 0
    ]


class Echo:
    """A server whose answers quote the request, each in another way, over and over."""

    WAYS = ("500", "403", "400", "garbage", "redirect", "401", "200", "404", "reset", "429", "xml")

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ways = cycle(self.WAYS)
        self._lock = threading.Lock()
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(10)
            request = connection.recv(65_536)
            with self._lock:
                way = next(self._ways)
            connection.sendall(self._reply(way, request))

    def _reply(self, way: str, request: bytes) -> bytes:
        quoted = request.replace(b"\r\n", b" | ")[:4_000]
        if way == "reset":
            return b""
        if way == "garbage":
            return b"SSH-2.0 " + quoted + b"\r\n"
        body, status, more = b"you sent: " + quoted, way, b""
        if way == "redirect":
            status, more = "302", b"Location: http://127.0.0.1:9/" + WORD.encode() + b"\r\n"
        if way == "xml":
            status = "400"
            body = b"<Error><Code>" + quoted[:40] + b"</Code><Message>" + quoted + b"</Message></Error>"
        head = f"HTTP/1.1 {status} {WORD}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n".encode()
        return head + b"X-Quoted: " + quoted[:200] + b"\r\n" + more + b"\r\n" + body


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture(scope="module")
def closed() -> int:
    """A port on which nobody listens."""
    return free_ports(1)[0]


@dataclass(frozen=True)
class Run:
    """Holds a worker's configuration and its variables."""

    sections: dict[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    failing: frozenset[str] = frozenset()
    """The sinks and stages that have to be seen failing, or the worker has to refuse its configuration."""


def clean() -> dict[str, str]:
    """The variables of this process but for those that a client library could read."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("AWS_", "GOOGLE_", "FLAGSTREAM_", "STORAGE_", "GCE_"))
        and not name.upper().endswith("_PROXY")
    }


def command(folder: Path, environment: Mapping[str, str], *words: str) -> str:
    """What a command prints, on both outputs."""
    done = subprocess.run(
        [sys.executable, "-m", "flagstream", *words],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    return done.stdout + done.stderr


def failing(health: dict[str, Any]) -> set[str]:
    """What /health names as failing, not as starting."""
    return {name for name, kinds in health["kinds"].items() if set(kinds) - {"starting"}}


def watched(worker: RunningWorker, failing_ones: frozenset[str], seconds: float) -> dict[str, str]:
    """All that its pages said, until each of these was seen failing and the time is over, or it ended."""
    pages = {"/health": "", "/ready": "", "/metrics": "", "/live": ""}
    failed: set[str] = set()
    over = threading.Event()
    timer = threading.Timer(seconds, over.set)
    timer.daemon = True
    timer.start()

    def look() -> bool:
        for path in pages:
            with contextlib.suppress(OSError):
                answer = worker.get(path)[1]
                pages[path] += answer
                if path == "/health":
                    failed.update(failing(json.loads(answer)))
        return (over.is_set() and failing_ones <= failed) or not worker.alive

    eventually(look, every=0.5)
    return pages


def looked_through(run: Run, bootstrap: str, topics: Topics, folder: Path) -> list[str]:
    """Every place in which the word appears while the worker runs, and in what its commands print."""
    config = configuration(bootstrap, folder, topics)
    for name, section in run.sections.items():
        config[name] = {**config.get(name, {}), **section}
    if "sources" in config["flags"]:
        del config["flags"]["path"]
    found: list[str] = []
    environment = {**clean(), **run.environment}
    file = folder / "flagstream.toml"
    file.write_text(to_toml(config))
    for words in (("config", "check"), ("render",), ("check",)):
        found += leaks(command(folder, environment, *words, "-c", str(file)), " ".join(words))
    for form in ("json", "console"):
        config["log"] = {"format": form, "level": "debug"}
        with RunningWorker(config, folder, arguments=run.arguments, environment=run.environment) as worker:
            pages = watched(worker, run.failing, QUIET if form == "json" else QUIET / 2)
            if worker.alive:
                worker.stop()
            else:
                assert worker.wait() == ExitCode.CONFIG, worker.log[-2000:]
        found += leaks(worker.log, f"log ({form})")
        found += leaks(worker.output.read_bytes(), "standard output")
        for path, text in pages.items():
            found += leaks(text, path)
    for letter in consume_all(bootstrap, topics.dead_letters):
        found += leaks(repr(letter), "dead letter")
    return found


def searched(run: Run, admin: AdminClient, bootstrap: str, folder: Path) -> None:
    """Run it on topics of its own that hold events; fails with every place where the word appears."""
    topics = Topics.create(admin, "canary")
    produce(bootstrap, topics.output, [Sent(b"k", value) for value in events(20)])
    produce(bootstrap, topics.ingest, [Sent(b"k", b"{")])

    found = looked_through(run, bootstrap, topics, folder)

    assert found == [], "\n".join(found)


WINDOWS = {"flush_interval": "200ms", "on_refused": "dead_letter", "refused_after": "1s"}


def s3(endpoint: str, **more: Any) -> dict[str, Any]:
    return {"type": "s3", "bucket": "b", "endpoint": endpoint, "path_style": True, **WINDOWS, **more}


def with_keys(endpoint: str) -> dict[str, Any]:
    return s3(endpoint, access_key=f"AKIA{WORD}", secret_key=f"secret{WORD}")


class TestSettings:
    """The word is in every secret setting."""

    def test_sinks(self, echo: Echo, closed: int, admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
        """Stores, receivers and other clusters that refuse, quote, redirect, break off or are not there."""
        key = tmp_path / "key.json"
        key.write_text(
            json.dumps(
                {
                    "type": "service_account",
                    "client_email": f"a@{WORD}.example",
                    "private_key": f"-----BEGIN PRIVATE KEY-----\n{WORD}\n-----END PRIVATE KEY-----\n",
                    "private_key_id": WORD,
                    "token_uri": f"{echo.url}/token",
                    "project_id": "p",
                }
            )
        )
        hook = {
            "type": "webhook",
            "secret": f"s{WORD}",
            "previous_secrets": [f"p{WORD}"],
            "headers": {"Authorization": f"Bearer {WORD}", "X-Key": WORD},
            "allow_private_addresses": True,
            **WINDOWS,
        }
        other = {
            "type": "kafka",
            "topic": "elsewhere",
            "flush_interval": "200ms",
            "properties": {
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN",
                "sasl.username": "u",
                "sasl.password": WORD,
            },
        }
        sinks = {
            "s3-quoting": with_keys(echo.url),
            "s3-away": with_keys(f"http://127.0.0.1:{closed}"),
            "s3-role": with_keys(echo.url)
            | {"role_arn": "arn:aws:iam::123456789012:role/r", "external_id": WORD},
            "gcs-key": {
                "type": "gcs",
                "bucket": "bucket",
                "endpoint": echo.url,
                "credentials_file": str(key),
                **WINDOWS,
            },
            "hook-quoting": {**hook, "endpoint_url": f"{echo.url}/{WORD}?token={WORD}"},
            "hook-away": {**hook, "endpoint_url": f"http://u:{WORD}@127.0.0.1:{closed}/{WORD}"},
            "other-quoting": {**other, "bootstrap_servers": f"127.0.0.1:{echo.port}"},
            "other-wrong": {**other, "bootstrap_servers": bootstrap},
        }
        environment = {
            "AWS_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL_STS": echo.url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        arguments = tuple(word for name in sinks for word in ("--sink", name))

        searched(Run({"sinks": sinks}, environment, arguments, frozenset(sinks)), admin, bootstrap, tmp_path)

    def test_flag_sources(
        self, echo: Echo, closed: int, admin: AdminClient, bootstrap: str, tmp_path: Path
    ) -> None:
        """Flags at addresses and with keys that nobody may see; the enrich stage waits and says why."""
        sources = [
            {"type": "http", "url": f"{echo.url}/flags?token={WORD}", "headers": {"Authorization": WORD}},
            {"type": "http", "name": "away", "url": f"http://u:{WORD}@127.0.0.1:{closed}/flags?t={WORD}"},
            {"type": "relay", "url": f"{echo.url}/?t={WORD}", "api_key": WORD},
            {"type": "s3", "bucket": "b", "key": "flags.yaml", "endpoint": echo.url},
            {"type": "gcs", "bucket": "bucket", "object": "flags.yaml", "endpoint": echo.url},
        ]
        environment = {
            "AWS_ACCESS_KEY_ID": f"AKIA{WORD}",
            "AWS_SECRET_ACCESS_KEY": WORD,
            "AWS_SESSION_TOKEN": WORD,
            "AWS_REGION": "eu-west-1",
        }
        flags: dict[str, Any] = {"sources": sources, "poll_interval": "200ms"}

        run = Run({"flags": flags}, environment, ("--stage", "enrich"), frozenset({"enrich"}))
        searched(run, admin, bootstrap, tmp_path)

    @pytest.mark.parametrize("away", [False, True])
    def test_registry(
        self, away: bool, echo: Echo, closed: int, admin: AdminClient, bootstrap: str, tmp_path: Path
    ) -> None:
        """A registry that quotes its requests, or is not there."""
        port = closed if away else echo.port
        registry = {"url": f"http://127.0.0.1:{port}", "user": "u", "password": WORD}
        sections = {"topics": {"output_format": "avro"}, "registry": registry}

        run = Run(sections, {}, ("--stage", "enrich"), frozenset({"enrich"}))
        searched(run, admin, bootstrap, tmp_path)

    @pytest.mark.parametrize(
        "properties",
        [
            {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}
            | {"sasl.username": "alice", "sasl.password": WORD},
            {"security.protocol": "SSL", "ssl.key.pem": WORD, "ssl.key.password": WORD},
            {"security.protocol": "SSL", "ssl.certificate.pem": WORD, "ssl.key.pem": f"-----BEGIN {WORD}"},
            {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "OAUTHBEARER"}
            | {"sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.client.id": "c"}
            | {"sasl.oauthbearer.client.secret": WORD, "sasl.oauthbearer.token.endpoint.url": "ECHO"},
        ],
        ids=["plain", "key", "certificate", "oidc"],
    )
    def test_kafka(
        self, properties: dict[str, str], echo: Echo, admin: AdminClient, bootstrap: str, tmp_path: Path
    ) -> None:
        """Credentials of Kafka itself that a broker, a token endpoint or OpenSSL does not take."""
        made = {name: value.replace("ECHO", f"{echo.url}/{WORD}") for name, value in properties.items()}
        with KafkaBroker(sasl_users={"alice": "right"}) as broker:
            kafka = {"bootstrap_servers": broker.bootstrap_servers, "properties": made}
            run = Run({"kafka": kafka}, {}, ("--stage", "enrich"), frozenset({"enrich"}))
            searched(run, admin, bootstrap, tmp_path)


def variables(echo: str, closed: str, folder: Path) -> dict[str, dict[str, str]]:
    """Return the variables that the clients of stores read, by what they try."""
    (folder / "config").write_text(
        f"[default]\ncredential_process = sh -c 'echo {WORD}; echo {WORD} >&2; exit 1'\nregion = eu-west-1\n"
    )
    (folder / "no-json").write_text(f"[default]\ncredential_process = echo {WORD}\nregion = eu-west-1\n")
    (folder / "garbage").write_text(f"[default\naws_secret_access_key = {WORD}\n{WORD}\n")
    (folder / "token").write_text(WORD)
    (folder / "google").write_text(f'{{"type": "authorized_user", "client_secret": "{WORD}", {WORD}')
    user = {"type": "authorized_user", "client_id": WORD, "client_secret": WORD, "refresh_token": WORD}
    (folder / "user").write_text(json.dumps(user | {"token_uri": f"{echo}/token"}))
    external = {
        "type": "external_account",
        "audience": "a",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{echo}/{WORD}",
        "credential_source": {"file": str(folder / "token")},
    }
    (folder / "external").write_text(json.dumps(external))
    keys = {"AWS_ACCESS_KEY_ID": f"AKIA{WORD}", "AWS_SECRET_ACCESS_KEY": WORD, "AWS_REGION": "eu-west-1"}
    no_machine = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "eu-west-1"}
    container = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{echo}/{WORD}", **no_machine}
    proxy = f"http://user:{WORD}@{closed.removeprefix('http://')}"
    return {
        "token with a line break": {**keys, "AWS_SESSION_TOKEN": f"{WORD}\n"},
        "key with a line break": {**keys, "AWS_ACCESS_KEY_ID": f"AKIA{WORD}\n"},
        "secret with a line break": {**keys, "AWS_SECRET_ACCESS_KEY": f"{WORD}\n{WORD}"},
        "token with other letters": {**keys, "AWS_SESSION_TOKEN": f"{WORD}é\u2603"},
        "container": {**container, "AWS_CONTAINER_AUTHORIZATION_TOKEN": WORD},
        "container token with a line break": {
            **container,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": f"{WORD}\n{WORD}",
        },
        "container elsewhere": {
            **no_machine,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{WORD}.example/",
        },
        "process that fails": {"AWS_CONFIG_FILE": str(folder / "config"), **no_machine},
        "process without JSON": {"AWS_CONFIG_FILE": str(folder / "no-json"), **no_machine},
        "garbage file": {"AWS_SHARED_CREDENTIALS_FILE": str(folder / "garbage"), **no_machine},
        "web identity": {
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(folder / "token"),
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/r",
            "AWS_ENDPOINT_URL_STS": f"{echo}/{WORD}",
            **no_machine,
        },
        "proxies": {
            **keys,
            "HTTP_PROXY": proxy,
            "HTTPS_PROXY": proxy,
            "ALL_PROXY": proxy,
            "http_proxy": proxy,
        },
        "proxies of no form": {
            **keys,
            "HTTP_PROXY": WORD,
            "HTTPS_PROXY": f"http://u:{WORD}@:x",
            "http_proxy": WORD,
        },
        "endpoint with a password": {**keys, "AWS_ENDPOINT_URL": f"http://u:{WORD}@{closed[7:]}"},
        "endpoint of no form": {**keys, "AWS_ENDPOINT_URL_S3": f"://{WORD}"},
        "google garbage": {**keys, "GOOGLE_APPLICATION_CREDENTIALS": str(folder / "google")},
        "google user": {**keys, "GOOGLE_APPLICATION_CREDENTIALS": str(folder / "user")},
        "google external": {**keys, "GOOGLE_APPLICATION_CREDENTIALS": str(folder / "external")},
        "emulator": {**keys, "STORAGE_EMULATOR_HOST": f"http://u:{WORD}@{closed[7:]}"},
        "flagstream": {**keys, "FLAGSTREAM_KAFKA__PROPERTIES__SASL_PASSWORD": f"{WORD}\n"},
        "typo": {**keys, "FLAGSTREAM_KAFKA__SASL_PASSWORD": WORD, "FLAGSTREAM_REGISTRY__PASWORD": WORD},
    }


with tempfile.TemporaryDirectory() as _folder:
    NAMES = tuple(variables("http://127.0.0.1:1", "http://127.0.0.1:1", Path(_folder)))


class TestVariables:
    """The word in every variable that a client library reads."""

    @pytest.mark.parametrize("name", NAMES)
    def test_variable(
        self, name: str, echo: Echo, closed: int, admin: AdminClient, bootstrap: str, tmp_path: Path
    ) -> None:
        """S3 and Google Cloud Storage, as sinks and as sources of flags, find credentials by the library's
        own chain."""
        environment = variables(echo.url, f"http://127.0.0.1:{closed}", tmp_path)[name]
        own_endpoint = {} if "endpoint" in name or "proxies" in name else {"endpoint": echo.url}
        sinks: dict[str, Any] = {
            "s3": {"type": "s3", "bucket": "b", "path_style": True, **own_endpoint, **WINDOWS},
            "gcs": {
                "type": "gcs",
                "bucket": "bucket",
                **({} if name == "emulator" else own_endpoint),
                **WINDOWS,
            },
            "hook": {"type": "webhook", "endpoint_url": echo.url, "allow_private_addresses": True, **WINDOWS},
        }
        flags: dict[str, Any] = {
            "sources": [
                {"type": "s3", "bucket": "b", "key": "flags.yaml", **own_endpoint},
                {"type": "gcs", "bucket": "bucket", "object": "flags.yaml", **own_endpoint},
                {"type": "http", "url": f"{echo.url}/flags"},
            ]
        }

        run = Run({"sinks": sinks, "flags": flags}, environment, (), frozenset({"enrich", "s3", "gcs"}))
        searched(run, admin, bootstrap, tmp_path)
