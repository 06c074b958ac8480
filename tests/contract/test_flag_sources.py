"""Flags arrive over a network, from servers that answer."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from flagstream.config.flags import (
    SOURCES,
    GcsFlagSettings,
    HttpFlagSettings,
    RelayFlagSettings,
    S3FlagSettings,
)
from flagstream.flag_sources.gcs import GcsLocation
from flagstream.flag_sources.http import HttpLocation
from flagstream.flag_sources.kept import KeptFlags
from flagstream.flag_sources.opening import place
from flagstream.flag_sources.relay import RelayLocation
from flagstream.flag_sources.s3 import S3Location
from flagstream.flags import FlagFileError
from tests.support.seaweed import ACCESS_KEY, SECRET_KEY, SeaweedFs
from tests.support.small_gcs import SmallGcs

CONFIGURATION = Path("tests/goff/v1.55.2/cmd/relayproxy/testdata/goff/configuration")
A = b"a: {variations: {x: 1}}"
B = b"b: {variations: {x: 1}}"
HIDDEN = "hunter2"


@dataclass
class Site:
    """Serves one document, which tests change; ``asked`` are the requests that it got."""

    url: str = ""
    content: bytes = A
    content_type: str = "application/yaml"
    status: int = 200
    retry_after: str | None = None
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            site.asked.append((self.command, self.path, headers, body))
            etag = f'"{hash(site.content)}"'
            status = site.status
            if status == 200 and headers.get("if-none-match") == etag:
                status = 304
            content = site.content if status == 200 else b""
            self.send_response(status)
            self.send_header("ETag", etag)
            self.send_header("Location", "/elsewhere")
            if site.retry_after is not None:
                self.send_header("Retry-After", site.retry_after)
            self.send_header("Content-Type", site.content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    server.server_close()


def http(site: Site, **more: object) -> KeptFlags:
    url = site.url.replace("://", f"://u:{HIDDEN}@") + f"/flags.yaml?token={HIDDEN}"
    settings = HttpFlagSettings(type="http", url=SecretStr(url), **more)  # type: ignore[arg-type]
    return KeptFlags(settings.called(), HttpLocation(settings))


def test_a_document_is_read_again_only_when_it_changed(site: Site) -> None:
    """The second look sends the ETag and gets 304; a new document is new flags."""
    source = http(site)
    assert list(source.load()) == ["a"]
    assert source.poll() is None
    assert "if-none-match" in site.asked[1][2]

    site.content = B
    assert list(source.poll() or ()) == ["b"]


def test_headers_are_sent_and_nothing_secret_is_shown(site: Site) -> None:
    """The header arrives; the name and the error hold neither password nor token."""
    source = http(site, headers={"X-Token": SecretStr(HIDDEN)})
    site.status = 403
    with pytest.raises(OSError, match=r"/flags\.yaml: answers 403") as caught:
        source.load()
    assert site.asked[0][2]["x-token"] == HIDDEN
    assert HIDDEN not in f"{caught.value}{source.name}"


def test_a_failing_server_is_told_once_and_its_return_is_seen(site: Site) -> None:
    """The same failure is raised once; afterwards the flags come back although the server says 304."""
    source = http(site)
    source.load()
    site.status = 503
    with pytest.raises(OSError, match="503"):
        source.poll()
    assert source.poll() is None
    assert source.problem is not None

    site.status = 200
    assert list(source.poll() or ()) == ["a"]
    assert source.problem is None


@pytest.mark.parametrize("kind", ["http", "relay", "s3", "gcs"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_to_wait_is_left_alone(
    site: Site, kind: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked no more by 20 polls; whatever kind of server it is."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    site.status, site.retry_after = status, "3600"
    sources: dict[str, Any] = {
        "http": {"url": SecretStr(site.url)},
        "relay": {"url": SecretStr(site.url)},
        "s3": {
            "bucket": "flags",
            "key": "k",
            "endpoint": site.url,
            "region": "us-east-1",
            "path_style": True,
        },
        "gcs": {"bucket": "flags", "object": "o", "endpoint": site.url, "anonymous": True},
    }
    settings = SOURCES[kind].model_validate({"type": kind, **sources[kind]})
    source = KeptFlags(settings.called(), place(settings))  # type: ignore[arg-type]
    with pytest.raises(OSError, match=str(status)):
        source.load()
    asked = len(site.asked)
    for _ in range(20):
        assert source.poll() is None
    assert len(site.asked) == asked <= 2


def test_the_log_says_how_long_a_server_asks_to_wait(site: Site) -> None:
    """Also with a status that means something else: GitHub limits with 403."""
    site.status, site.retry_after = 403, "60"
    with pytest.raises(OSError, match=r"answers 403 Forbidden, and asks to wait 60 s"):
        http(site).load()


def test_redirects_and_large_documents_are_refused(site: Site) -> None:
    """Headers must not reach another server, and a document must not fill the memory."""
    site.status = 302
    with pytest.raises(OSError, match="302"):
        http(site).load()
    assert len(site.asked) == 1
    site.status = 200
    with pytest.raises(OSError, match="more than 5 bytes"):
        http(site, max_bytes=5).load()


def test_the_content_type_tells_the_format(site: Site) -> None:
    """Stronger than the suffix; a given format is stronger than both."""
    site.content, site.content_type = b"a = {variations = {x = 1}}", "application/toml; charset=utf-8"
    assert list(http(site).load()) == ["a"]
    site.content_type = "text/plain"
    assert list(http(site, format="toml").load()) == ["a"]


def test_a_structured_content_type_does_not_beat_the_suffix(site: Site) -> None:
    """GitHub serves every raw file as …+json; the error says what decided the format."""
    site.content_type = "application/vnd.github.raw+json; charset=utf-8"
    assert list(http(site).load()) == ["a"]

    site.content = b"a: ["
    with pytest.raises(FlagFileError, match=r"read as yaml by the suffix \.yaml"):
        http(site).load()
    site.content_type = "application/json"
    with pytest.raises(FlagFileError, match="read as json by the content type application/json"):
        http(site).load()


def test_an_error_in_place_of_the_file_is_no_flags(site: Site) -> None:
    """A proxy answers 200 with its own text: the flags before stay in use."""
    source = http(site)
    source.load()
    site.content = b"upstream connect error. reset reason: connection timeout"
    with pytest.raises(FlagFileError, match="is a flag"):
        source.poll()
    assert source.good is not None
    assert source.good.content == A


def relay(site: Site) -> KeptFlags:
    settings = RelayFlagSettings(type="relay", url=SecretStr(site.url))
    return KeptFlags(settings.called(), RelayLocation(settings))


@pytest.mark.parametrize(
    "answer",
    [
        b"{}",
        b'{"flags": {}}',
        b'{"flags": null}',
        b'{"evaluationContextEnrichment": {"env": "prod"}}',
        b'{"flags": {}, "evaluationContextEnrichment": {}}',
    ],
)
def test_a_relay_without_flags_is_an_empty_set(site: Site, answer: bytes) -> None:
    """Go leaves an empty map out of its answer; nothing but what an answer may hold beside flags is there."""
    site.content = answer

    assert len(relay(site).load()) == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b'{"message": "not found"}',
        b'{"errorCode": "RETRIEVING_FLAGS_ERROR", "errorDetails": "no"}',
        b'{"flags": {}, "error": "x"}',
        b'{"flags": {"error": "bad gateway"}}',
        b'{"flags": "none"}',
    ],
)
def test_what_a_relay_does_not_answer_is_no_flags(site: Site, answer: bytes) -> None:
    """An error, its own or a proxy's, is not an empty set."""
    site.content = answer

    with pytest.raises(FlagFileError):
        relay(site).load()


@pytest.mark.parametrize(
    ("request_file", "response_file"),
    [
        ("empty.json", "empty.json"),
        ("empty.json", "empty2.json"),
        ("empty-flag-array.json", "empty-flag-array.json"),
        ("filter-flags.json", "filter-flags.json"),
    ],
)
def test_a_relay_is_asked_as_its_providers_ask_it(site: Site, request_file: str, response_file: str) -> None:
    """Upstream's request is sent and upstream's answer understood: every flag of it, and none invalid."""
    asked = (CONFIGURATION / "requests" / request_file).read_text().strip()
    wanted = json.loads(asked)["flags"] if asked else []
    site.content = (CONFIGURATION / "responses" / response_file).read_bytes()
    settings = RelayFlagSettings(type="relay", url=SecretStr(site.url), api_key=SecretStr("k"), flags=wanted)
    source = KeptFlags(settings.called(), RelayLocation(settings))

    flags = source.load()

    method, path, headers, body = site.asked[0]
    assert (method, path, headers["x-api-key"]) == ("POST", "/v1/flag/configuration", "k")
    assert json.loads(body) == {"flags": wanted}
    assert set(flags) == set(json.loads(site.content)["flags"])
    assert flags.invalid == {}
    assert source.poll() is None


def test_an_object_in_s3_is_read_again_only_when_it_changed(
    seaweed: SeaweedFs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ETag shows a change; a missing object is a failure that is seen to end."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    folder = seaweed.folder()
    at = folder.at("f.yaml")
    settings = S3FlagSettings(
        type="s3",
        bucket=at["Bucket"],
        key=at["Key"],
        endpoint=seaweed.url,
        region="us-east-1",
        path_style=True,
    )
    place = S3Location(settings)
    source = KeptFlags(settings.called(), place)
    with pytest.raises(OSError, match=r"s3://.*/f\.yaml"):
        source.load()
    folder.put("f.yaml", A)
    assert list(source.poll() or ()) == ["a"]
    assert place.fetch(unconditional=False) is None
    folder.put("f.yaml", B)
    assert list(source.poll() or ()) == ["b"]


def test_an_object_in_gcs_is_read_again_only_when_it_changed() -> None:
    """The generation shows a change; a missing object is a failure that is seen to end."""
    with SmallGcs() as server:
        server.create_bucket("flags")
        settings = GcsFlagSettings(
            type="gcs", bucket="flags", object="p/f.yaml", endpoint=server.url, anonymous=True
        )
        place = GcsLocation(settings)
        source = KeptFlags(settings.called(), place)
        with pytest.raises(OSError, match="is not there"):
            source.load()
        server.put("flags", "p/f.yaml", A)
        assert list(source.poll() or ()) == ["a"]
        assert place.fetch(unconditional=False) is None
        server.put("flags", "p/f.yaml", B)
        assert list(source.poll() or ()) == ["b"]
