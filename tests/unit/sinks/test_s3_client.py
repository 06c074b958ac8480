"""How the S3 client finds, renews and hides its credentials, for sinks and for sources of flags."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.retries.standard import ThrottledRetryableChecker
from pydantic import SecretStr

from flagstream.config.flags import FlagSettings, S3FlagSettings
from flagstream.errors import FlagstreamError, SinkError, SinkRefused, SinkUnavailable
from flagstream.flag_sources.cache import FlagCache
from flagstream.flag_sources.document import Document
from flagstream.flag_sources.opening import watch
from flagstream.flag_sources.s3 import S3Location
from flagstream.flags import FlagFileError
from flagstream.formats.manifest import manifest_json
from flagstream.formats.protocol import EncodedObject
from flagstream.sinks.objects.probing import MANIFEST as PROBE_MANIFEST
from flagstream.sinks.objects.s3.failures import THROTTLING, translated
from flagstream.sinks.objects.s3.settings import S3Settings
from flagstream.sinks.objects.s3.store import S3Store
from tests.support.small_server import Reply, Request, SmallServer

CANARY = "canary-7Tq2"
EMPTY = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


def error(code: str, status: int = 403) -> Reply:
    """An answer of S3 that quotes what it was sent, as stores of others may."""
    text = f"<Error><Code>{code}</Code><Message>refused {CANARY}</Message></Error>"
    return Reply(status, text.encode(), {"Content-Type": "application/xml"})


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No credentials but those of a test; returns the credentials file."""
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return file


@pytest.fixture
def server() -> Iterator[SmallServer]:
    with SmallServer(lambda request: Reply(body=EMPTY)) as server:
        yield server


def store(server: SmallServer, **settings: Any) -> S3Store:
    base = {"bucket": "flags", "endpoint": server.url, "path_style": True, "region": "us-east-1"}
    return S3Store(S3Settings(**{**base, "read_timeout": "5s", **settings}))


def listing(server: SmallServer, **settings: Any) -> Callable[[], object]:
    """Return the same call, of one store."""
    made = store(server, **settings)
    return lambda: list(made.names(""))


def flags(server: SmallServer, **settings: Any) -> Callable[[], object]:
    """Return a look at flags, of one source."""
    base = {"type": "s3", "bucket": "flags", "key": "flags.yaml", "endpoint": server.url, "path_style": True}
    place = S3Location(S3FlagSettings(**{**base, "region": "us-east-1", "timeout": "5s", **settings}))
    return lambda: place.fetch(unconditional=True)


CALLS = [listing, flags]


def keys(file: Path, name: str) -> None:
    """What an agent that rotates credentials writes."""
    file.write_text(f"[default]\naws_access_key_id = {name}\naws_secret_access_key = {CANARY}\n")


def only(key: str, code: str = "InvalidAccessKeyId") -> Callable[[Request], Reply]:
    """A store at which one access key is good."""
    return lambda request: (
        Reply(body=EMPTY) if f"Credential={key}/" in request.headers["authorization"] else error(code)
    )


@pytest.mark.parametrize("call", CALLS)
def test_credentials_that_come_later_are_found(call: Any, server: SmallServer, no_environment: Path) -> None:
    """A client that found none at its start does not stay without."""
    ask = call(server)
    with pytest.raises((SinkRefused, OSError), match="no credentials were found"):
        ask()
    keys(no_environment, "NEW")
    ask()
    assert "Credential=NEW/" in server.seen[-1].headers["authorization"]


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "ExpiredToken", "AccessDenied"])
@pytest.mark.parametrize("call", CALLS)
def test_rotated_credentials_are_read_again(
    call: Any, code: str, server: SmallServer, no_environment: Path
) -> None:
    """Those in use are unknown, expired or without rights now: the call succeeds with those of the file."""
    keys(no_environment, "OLD")
    server.answer = only("OLD")
    ask = call(server)
    ask()
    keys(no_environment, "NEW")
    server.answer = only("NEW", code)
    ask()
    used = [one.headers["authorization"].partition("Credential=")[2][:3] for one in server.seen]
    assert used == ["OLD", "OLD", "NEW"]


@pytest.mark.parametrize("call", CALLS)
def test_a_refusal_comes_from_a_new_client(call: Any, server: SmallServer, no_environment: Path) -> None:
    """Nothing counts as refused before a client that was made for it got the same answer."""
    keys(no_environment, "OLD")
    ask = call(server)
    ask()
    server.answer = lambda request: error("AccessDenied")
    with pytest.raises((SinkRefused, OSError), match="403 AccessDenied: the credentials have no right"):
        ask()
    assert len(server.seen) == 3


ELSEWHERE = {"x-amz-bucket-region": "eu-west-1"}


def reported(server: SmallServer, reply: Reply) -> SinkError:
    """What a listing that is answered so raises."""
    server.answer = lambda request: reply
    with pytest.raises(SinkError) as raised:
        listing(server, access_key="A", secret_key=SecretStr("s"))()
    assert CANARY not in str(raised.value)
    return raised.value


def test_the_throttling_codes_are_botocores() -> None:
    """A release of the library that knows more of them fails this test."""
    assert set(ThrottledRetryableChecker()._throttled_error_codes) <= THROTTLING


PASSING = ["IDPCommunicationError", "RequestTimeout", "TemporaryRedirect", "TooManyRequests"]


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize("code", [*sorted(THROTTLING), *PASSING])
def test_passing_trouble_by_its_code(code: str, status: int) -> None:
    """Whatever status a code comes with, it says who has to act."""
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(SinkUnavailable, match=code), translated("storing x"):
        raise ClientError(answer, "PutObject")


def test_a_new_bucket_is_not_known_everywhere(server: SmallServer) -> None:
    """S3 answers 307 for a while; it passes by itself."""
    for answer in (error("TemporaryRedirect", 307), Reply(307), Reply(307, headers=ELSEWHERE)):
        assert isinstance(reported(server, answer), SinkUnavailable)
    assert len(server.seen) <= 6


@pytest.mark.parametrize("code", ["AccessDenied", "NoSuchBucket", "InvalidAccessKeyId"])
@pytest.mark.parametrize("status", [200, 403, 404])
def test_a_denial_by_its_code(code: str, status: int, server: SmallServer) -> None:
    """A store may say 200 and then fail."""
    refused = reported(server, error(code, status))
    assert isinstance(refused, SinkRefused)
    assert refused.denied


def test_what_is_about_the_content_is_no_denial(server: SmallServer) -> None:
    """It is the same with any credentials and at any time."""
    refused = reported(server, error("EntityTooLarge", 400))
    assert isinstance(refused, SinkRefused)
    assert not refused.denied


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "IDPCommunicationError", SinkUnavailable),
        (500, "InternalFailure", SinkUnavailable),
        (400, "ThrottlingException", SinkUnavailable),
        (403, "AccessDenied", SinkRefused),
        (400, "ExpiredTokenException", SinkRefused),
        (400, "InvalidIdentityToken", SinkRefused),
    ],
)
def test_a_token_service_is_judged_by_its_code(
    status: int,
    code: str,
    kind: type[SinkError],
    server: SmallServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """An identity provider that does not answer is passing trouble; a refused token is not."""
    token = tmp_path / "token"
    token.write_text(CANARY)
    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>{CANARY}</Message></Error></ErrorResponse>"
    server.answer = lambda request: Reply(status, body.encode(), {"Content-Type": "text/xml"})
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/archive")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(SinkError) as raised:
        listing(server)()
    assert type(raised.value) is kind
    assert CANARY not in str(raised.value)


@pytest.mark.parametrize("given", ["a role", "web identity"])
def test_a_token_service_that_hangs_is_given_up(
    given: str, server: SmallServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After the time-outs of the settings, twice, and not after the library's own, which take minutes."""
    over = threading.Event()

    def hang(request: Request) -> Reply:
        over.wait(30)
        return Reply(500)

    server.answer = hang
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
    role = "arn:aws:iam::123456789012:role/archive"
    settings = {"role_arn": role, "access_key": "A", "secret_key": "s"}
    if given == "web identity":
        settings = {}
        (tmp_path / "token").write_text(CANARY)
        monkeypatch.setenv("AWS_ROLE_ARN", role)
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(SinkUnavailable, match="no answer within read_timeout"):
        listing(server, read_timeout="200ms", **settings)()
    over.set()
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("status", "kind"), [(500, SinkUnavailable), (429, SinkUnavailable), (403, SinkRefused)]
)
def test_a_containers_service_for_credentials(
    status: int, kind: type[SinkError], server: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not answer passes; one that refuses is for a person."""
    server.answer = lambda request: Reply(status, CANARY.encode())
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/{CANARY}")
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    with pytest.raises(SinkError) as raised:
        listing(server)()
    assert type(raised.value) is kind
    assert CANARY not in str(raised.value)


# ── nothing that the environment holds is shown ───────────────────────────────────────────────────────────

ENVIRONMENTS: dict[str, dict[str, str]] = {
    "session token with a line break": {
        "AWS_ACCESS_KEY_ID": "A",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_SESSION_TOKEN": f"{CANARY}\n",
    },
    "access key with a line break": {"AWS_ACCESS_KEY_ID": f"{CANARY}\n", "AWS_SECRET_ACCESS_KEY": "s"},
    "secret alone": {"AWS_SECRET_ACCESS_KEY": CANARY},
    "profile": {"AWS_PROFILE": CANARY},
    "region": {"AWS_DEFAULT_REGION": f"{CANARY}\n"},
    "endpoint": {"AWS_ENDPOINT_URL_S3": f"ftp:{CANARY}"},
    "endpoint with a password": {"AWS_ENDPOINT_URL_S3": f"http://u:{CANARY}@127.0.0.1:1"},
    "endpoint of the token service": {
        "AWS_ENDPOINT_URL_STS": f"http://u:{CANARY}@127.0.0.1:1",
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/archive",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "{folder}/token",
        "AWS_MAX_ATTEMPTS": "1",
    },
    "web identity file": {
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/archive",
        "AWS_WEB_IDENTITY_TOKEN_FILE": f"/{CANARY}",
    },
    "container address": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://evil.example/{CANARY}"},
    "container token with a line break": {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}/",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": f"{CANARY}\nX: y",
    },
    "container token file": {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}/",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": f"/{CANARY}",
    },
    "certificates": {"AWS_CA_BUNDLE": f"/{CANARY}"},
    "proxy": {"HTTP_PROXY": f"http://u:{CANARY}@127.0.0.1:1"},
    "proxy that is none": {"HTTP_PROXY": f"{CANARY}://u:{CANARY}@:x"},
    "retry mode": {"AWS_RETRY_MODE": CANARY},
    "attempts": {"AWS_MAX_ATTEMPTS": CANARY},
    "configuration file": {"AWS_CONFIG_FILE": "{folder}/token"},
    "credential command that fails": {"AWS_CONFIG_FILE": "{folder}/fails"},
    "credential command that prints no JSON": {"AWS_CONFIG_FILE": "{folder}/text"},
    "credential command that prints a list": {"AWS_CONFIG_FILE": "{folder}/list"},
    "credential command that prints too little": {"AWS_CONFIG_FILE": "{folder}/little"},
    "credential command that is missing": {"AWS_CONFIG_FILE": "{folder}/missing"},
    "credential command with an open quote": {"AWS_CONFIG_FILE": "{folder}/quote"},
}
COMMANDS = {
    "fails": f"sh -c 'echo {CANARY} >&2; exit 3'",
    "text": f"echo {CANARY}",
    "list": f"echo '[\"{CANARY}\"]'",
    "little": f'echo \'{{"Version": 1, "AccessKeyId": "{CANARY}"}}\'',
    "missing": f"/{CANARY}",
    "quote": f"echo '{CANARY}",
}
GIVEN = {"AWS_ACCESS_KEY_ID": CANARY, "AWS_SECRET_ACCESS_KEY": CANARY, "AWS_SESSION_TOKEN": CANARY}
NEEDS_CREDENTIALS = {
    "certificates",
    "proxy",
    "proxy that is none",
    "region",
    "endpoint",
    "endpoint with a password",
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_what_the_environment_holds_is_never_told(
    name: str,
    call: Any,
    server: SmallServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A planted word in each variable that the library reads: neither the error nor a log of the library has
    it, and what fails is that sink's or that source's failure, whatever the library raises.
    """
    (tmp_path / "token").write_text(CANARY)
    for command, line in COMMANDS.items():
        (tmp_path / command).write_text(f"[default]\ncredential_process = {line}\n")
    given = {**GIVEN, **ENVIRONMENTS[name]} if name in NEEDS_CREDENTIALS else ENVIRONMENTS[name]
    for variable, value in given.items():
        monkeypatch.setenv(variable, value.replace("{folder}", str(tmp_path)).replace("{url}", server.url))
    settings: dict[str, Any] = {"region": "" if name == "region" else "us-east-1"}
    if "endpoint" in name:
        settings["endpoint"] = None if call is flags else ""
    if name == "certificates":
        settings["endpoint"] = server.url.replace("http:", "https:")
    server.answer = lambda request: error("AccessDenied")

    with pytest.raises((FlagstreamError, OSError)) as raised:
        call(server, **settings)()

    assert isinstance(raised.value, SinkError) or type(raised.value) is OSError
    assert CANARY not in str(raised.value)
    assert CANARY not in repr(raised.value)
    output = capfd.readouterr()
    assert CANARY not in output.out + output.err


@pytest.mark.parametrize("name", [name for name in ENVIRONMENTS if "command" in name or "line break" in name])
def test_what_a_person_must_mend_is_refused(
    name: str, server: SmallServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error is not unavailable, and never one that ends the process."""
    for command, line in COMMANDS.items():
        (tmp_path / command).write_text(f"[default]\ncredential_process = {line}\n")
    for variable, value in ENVIRONMENTS[name].items():
        monkeypatch.setenv(variable, value.replace("{folder}", str(tmp_path)).replace("{url}", server.url))
    with pytest.raises(SinkRefused) as raised:
        listing(server)()
    assert raised.value.denied


@pytest.mark.parametrize("name", [name for name in ENVIRONMENTS if "command" in name or "line break" in name])
def test_a_worker_starts_with_the_flags_of_its_cache(
    name: str, server: SmallServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the library raises is the source's failure: without a cache the start waits and says why."""
    for command, line in COMMANDS.items():
        (tmp_path / command).write_text(f"[default]\ncredential_process = {line}\n")
    for variable, value in ENVIRONMENTS[name].items():
        monkeypatch.setenv(variable, value.replace("{folder}", str(tmp_path)).replace("{url}", server.url))
    source = {"type": "s3", "bucket": "flags", "key": "flags.yaml", "endpoint": server.url, "region": "x-y-1"}
    settings = FlagSettings.model_validate({"sources": [source], "cache_path": tmp_path / "cache"})

    with pytest.raises(FlagFileError, match=r"s3://flags/flags\.yaml: ") as raised:
        watch(settings, lambda flags: None).load()
    assert CANARY not in str(raised.value)
    FlagCache(tmp_path / "cache").write(
        {"s3://flags/flags.yaml": Document(b"a: {variations: {x: 1}}", "yaml")}
    )
    assert list(watch(settings, lambda flags: None).load()) == ["a"]


@pytest.mark.parametrize("name", ["AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "HTTPS_PROXY"])
def test_the_configuration_check_sees_control_characters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are reported before anything is sent, as far as variables show it, with the variable's name
    alone."""
    monkeypatch.setenv(name, f"{CANARY}\n")
    settings = S3Settings(bucket="flags")
    source = S3FlagSettings(type="s3", bucket="flags", key="flags.yaml")
    for problem in (list(settings.variable_problems()), list(source.variable_problems())):
        assert len(problem) == 1
        assert name in problem[0]
        assert CANARY not in problem[0]


@pytest.mark.parametrize(
    "value", [CANARY, f"{CANARY}:9000", f"http://u:{CANARY}@h:x", "s3://h", "http://[::1"]
)
@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_configuration_check_sees_what_is_no_address(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's error says nothing of the variable. Where the sink has an endpoint, nobody reads it."""
    monkeypatch.setenv(name, value)
    (problem,) = S3Settings(bucket="flags").variable_problems()
    assert problem == f"the variable {name} holds no address; write https://HOST or http://HOST:PORT"
    assert list(S3Settings(bucket="flags", endpoint="http://minio:9000").variable_problems()) == []
    monkeypatch.setenv(name, "https://bucket.vpce-1a2b3c4d.s3.eu-west-1.vpce.amazonaws.com")
    assert list(S3Settings(bucket="flags").variable_problems()) == []


def test_own_credentials_do_not_look_at_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is not read cannot be wrong."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"{CANARY}\n")
    assert (
        list(S3Settings(bucket="flags", access_key="A", secret_key=SecretStr("s")).variable_problems()) == []
    )


# ── what the store has to keep ────────────────────────────────────────────────────────────────────────────


class Bucket:
    """Answers as much of S3 as an opening needs. ``keep`` is what becomes of metadata."""

    def __init__(self, keep: Callable[[str], str | None] = lambda text: text, missing: int = 404) -> None:
        self._keep = keep
        self._missing = missing
        self._objects: dict[str, str] = {}

    def __call__(self, request: Request) -> Reply:
        name, query = request.path, request.query
        if request.method == "PUT" and "partNumber" in query:
            return Reply(headers={"ETag": '"part"'})
        if request.method == "POST" and "uploads" in query:
            return Reply(body=b"<R><UploadId>u</UploadId></R>")
        if request.method in ("PUT", "POST"):
            if name in self._objects:
                return error("PreconditionFailed", 412)
            self._objects[name] = request.headers.get("x-amz-meta-flagstream", "")
            return Reply(headers={"ETag": '"whole"'})
        if request.method == "HEAD":
            if name not in self._objects:
                return Reply(self._missing)
            kept = self._keep(self._objects[name])
            return Reply(headers={"x-amz-meta-flagstream": kept} if kept is not None else {})
        if request.method == "GET":
            found = "".join(f"<Contents><Key>{key[7:]}</Key></Contents>" for key in self._objects)
            return Reply(body=f"<R><IsTruncated>false</IsTruncated>{found}</R>".encode())
        return Reply(204)


OWN = {"access_key": "A", "secret_key": "s"}


def test_a_store_that_keeps_all_is_opened(server: SmallServer) -> None:
    """The probe carries a manifest as long as a window's can be, and is recognised by it."""
    server.answer = Bucket()
    store(server, **OWN).open()
    (sent, *_) = (one.headers for one in server.seen if one.method == "PUT")
    assert PROBE_MANIFEST.range.partition.topic in sent["x-amz-meta-flagstream"]


@pytest.mark.parametrize(
    "keep",
    [lambda text: None, str.lower, lambda text: text[:200], lambda text: text.replace("\\", "")],
    ids=["lost", "lower case", "cut", "changed"],
)
def test_a_store_that_does_not_keep_metadata_is_refused(keep: Any, server: SmallServer) -> None:
    """When the sink opens, and not at the first window that comes again; likewise in ``flagstream check``."""
    server.answer = Bucket(keep)
    with pytest.raises(SinkRefused, match="does not keep the metadata"):
        store(server, **OWN).open()
    failed = [proof for proof in store(server, **OWN).probe() if proof.outcome == "failed"]
    assert [proof.what for proof in failed] == ["read"]


@pytest.mark.parametrize(("status", "words"), [(200, "does not keep|is said to exist"), (403, "403")])
def test_a_name_that_is_not_there_has_to_be_missing(status: int, words: str, server: SmallServer) -> None:
    """A store that does not say so could not show whether a window is stored."""
    server.answer = Bucket(missing=status)
    with pytest.raises(SinkRefused, match=words):
        store(server, **OWN).open()


@pytest.mark.parametrize("status", [200, 412])
def test_parts_that_were_put_together_before(status: int, server: SmallServer) -> None:
    """The answer to the first completion was lost, and the second is 200 with an error in its body: it is
    our own object, and is not uploaded for ever.
    """

    def answer(request: Request) -> Reply:
        if request.method == "HEAD":
            return Reply(headers={"x-amz-meta-flagstream": manifest_json(PROBE_MANIFEST).decode()})
        if request.method == "POST" and "uploads" in request.query:
            return Reply(body=b"<R><UploadId>u</UploadId></R>")
        if request.method == "POST":
            return error("PreconditionFailed", status)
        return Reply(headers={"ETag": '"x"'}, body=EMPTY if request.method == "GET" else b"")

    server.answer = answer
    content = EncodedObject((b"x" * 6_000_000,), PROBE_MANIFEST)

    class Lines:
        content_type = "text/plain"

    kind: Any = Lines()
    assert store(server, part_size="5MiB", **OWN).create("a", content, kind) is False
