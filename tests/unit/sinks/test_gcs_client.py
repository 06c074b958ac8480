"""How the client of Google Cloud Storage finds, renews and hides its credentials, for sinks and flags."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from flagstream.config.flags import GcsFlagSettings
from flagstream.errors import SinkError, SinkRefused, SinkUnavailable
from flagstream.flag_sources.gcs import GcsLocation
from flagstream.sinks.objects.gcs.settings import GcsSettings
from flagstream.sinks.objects.gcs.store import GcsStore
from flagstream.sinks.objects.probing import MANIFEST as PROBE_MANIFEST
from tests.support.small_gcs import SmallGcs
from tests.support.small_server import Reply, Request, SmallServer

CANARY = "canary-7Tq2"


def answered(status: int = 200, **body: Any) -> Reply:
    """Return an answer in JSON."""
    headers = {"Content-Type": "application/json", "Metadata-Flavor": "Google"}
    return Reply(status, json.dumps(body).encode(), headers)


def quoting(status: int) -> Reply:
    """A failure in Google's form that quotes what it was sent."""
    return answered(status, error={"code": status, "message": CANARY, "errors": [{"reason": "forbidden"}]})


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials but those of a test, and nobody who waits between tries."""
    for name in os.environ:
        if name.startswith(("GOOGLE_", "GCE_", "GCLOUD_", "CLOUDSDK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("GCE_METADATA_TIMEOUT", "1")
    monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda seconds: None)


@pytest.fixture
def server() -> Iterator[SmallServer]:
    """Start storage, token service and metadata service in one."""
    with SmallServer(lambda request: answered(items=[])) as server:
        yield server


def listing(server: SmallServer, **settings: Any) -> Callable[[], object]:
    """Return the same call, of one store."""
    store = GcsStore(GcsSettings(**{"bucket": "flags", "endpoint": server.url, "timeout": "5s", **settings}))
    return lambda: list(store.names(""))


def flags(server: SmallServer, credentials_file: Path | None = None) -> Callable[[], object]:
    """Return a look at flags, of one source."""
    place = GcsLocation(
        GcsFlagSettings(
            type="gcs", bucket="flags", object="f.yaml", endpoint=server.url, credentials=credentials_file
        )
    )
    return lambda: place.fetch(unconditional=True)


CALLS: list[Callable[[SmallServer], Callable[[], object]]] = [listing, flags]


@pytest.fixture(scope="module")
def private_key() -> str:
    """A key that signs; nobody verifies it here."""
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    return made.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def key_file(path: Path, server: SmallServer, private_key: str, account: str = "one") -> Path:
    """A key file of a service account whose tokens `server` gives."""
    content = {
        "type": "service_account",
        "client_email": f"{account}@example.iam.gserviceaccount.com",
        "token_uri": f"{server.url}/token",
        "private_key": private_key,
        "private_key_id": account,
    }
    path.write_text(json.dumps(content))
    return path


def on_google(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A machine whose metadata service is at `host`; the library has read one of the variables long ago."""
    monkeypatch.setenv("GCE_METADATA_HOST", host)
    monkeypatch.setenv("GCE_METADATA_IP", host)
    monkeypatch.setattr("google.auth.compute_engine._metadata._GCE_METADATA_HOST", host)


def bearer(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


class Service:
    """Start a token service and a store: `good` are the accounts' tokens that the store takes."""

    def __init__(self, *good: str) -> None:
        self.good = good
        self.given = 0
        self.token: Callable[[int], Reply] | None = None

    def __call__(self, request: Request) -> Reply:
        if request.path == "/token":
            self.given += 1
            if self.token is not None:
                return self.token(self.given)
            return answered(access_token=f"{CANARY}-{self.given}", expires_in=3600, token_type="Bearer")
        if bearer(request).removeprefix(f"{CANARY}-") not in self.good:
            return quoting(401)
        if "/o/" in request.path:
            return quoting(404)
        return answered(items=[])


def test_a_key_file_that_comes_later_is_found(server: SmallServer, tmp_path: Path, private_key: str) -> None:
    """A client that found none at its start does not stay without."""
    server.answer = Service("1")
    ask = listing(server, credentials_file=tmp_path / "key.json")
    with pytest.raises(SinkRefused, match=r"key\.json: No such file") as raised:
        ask()
    assert raised.value.denied
    key_file(tmp_path / "key.json", server, private_key)
    ask()


def test_default_credentials_that_come_later_are_found(
    server: SmallServer, tmp_path: Path, private_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that the variable names is found when it appears, too."""
    file = tmp_path / "key.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    server.answer = Service("1")
    ask = listing(server)
    with pytest.raises(SinkRefused, match="no credentials: none were found"):
        ask()
    key_file(file, server, private_key)
    ask()


def test_rotated_credentials_are_read_again(server: SmallServer, tmp_path: Path, private_key: str) -> None:
    """The store does not take those in use any more: the call succeeds with those of the file."""
    file = key_file(tmp_path / "key.json", server, private_key)
    server.answer = service = Service("1")
    ask = listing(server, credentials_file=file)
    ask()
    key_file(file, server, private_key, "two")
    # the library asks for two more tokens of the old key before it gives up
    service.good = ("4", "5", "6")
    ask()
    accounts = [one.body for one in server.seen if one.path == "/token"]
    assert len(accounts) == service.given >= 4


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, {}, SinkUnavailable),
        (429, {"error": "slow"}, SinkUnavailable),
        (503, {"error": CANARY}, SinkUnavailable),
        (400, {"error": "temporarily_unavailable"}, SinkUnavailable),
        (400, {"error": "invalid_grant", "error_description": CANARY}, SinkRefused),
        (401, {"error": "invalid_client"}, SinkRefused),
    ],
)
@pytest.mark.parametrize("call", CALLS)
def test_a_token_service_is_judged_by_its_answer(
    call: Any,
    status: int,
    body: dict[str, str],
    kind: type[SinkError],
    server: SmallServer,
    tmp_path: Path,
    private_key: str,
) -> None:
    """One that is busy is passing trouble; one that refuses is for a person."""
    file = key_file(tmp_path / "key.json", server, private_key)
    server.answer = service = Service()
    service.token = lambda number: answered(status, **body)
    expected = kind if call is listing else OSError
    with pytest.raises(expected, match="no credentials") as raised:
        call(server, credentials_file=file)()
    assert CANARY not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, SinkUnavailable),
        (429, SinkUnavailable),
        (503, SinkUnavailable),
        (403, SinkRefused),
        (404, SinkRefused),
    ],
)
def test_a_metadata_service_is_judged_by_its_status(
    status: int, kind: type[SinkError], server: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there, and gives no token."""
    on_google(monkeypatch, server.host)

    def answer(request: Request) -> Reply:
        if "service-accounts" in request.path:
            return Reply(status, CANARY.encode(), {"Content-Type": "text/plain"})
        found = 404 if "universe" in request.path else 200
        return Reply(found, b"project", {"Content-Type": "text/plain", "Metadata-Flavor": "Google"})

    server.answer = answer
    with pytest.raises(kind, match=f"no credentials: the service for tokens answers {status}") as raised:
        listing(server)()
    assert CANARY not in str(raised.value)


def test_a_metadata_service_that_fails_from_the_first_request(
    server: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library takes it for none; it is expected to be there, so it is passing trouble."""
    on_google(monkeypatch, server.host)
    server.answer = lambda request: Reply(500, CANARY.encode())
    with pytest.raises(SinkUnavailable, match="the metadata service does not answer"):
        listing(server)()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, "an error page", SinkUnavailable),
        (429, json.dumps({"error": {"code": 429, "message": CANARY}}), SinkUnavailable),
        (400, json.dumps({"error": "invalid_grant", "error_description": CANARY}), SinkRefused),
        (403, json.dumps({"error": {"code": 403, "message": CANARY}}), SinkRefused),
    ],
)
def test_workload_identity_is_judged_by_its_answer(
    status: int,
    body: str,
    kind: type[SinkError],
    server: SmallServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Start the service that exchanges a token of another provider."""
    (tmp_path / "token").write_text(CANARY)
    content = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{server.url}/sts",
        "credential_source": {"file": str(tmp_path / "token")},
    }
    (tmp_path / "external.json").write_text(json.dumps(content))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "external.json"))
    server.answer = lambda request: Reply(status, body.encode(), {"Content-Type": "application/json"})
    with pytest.raises(kind) as raised:
        listing(server)()
    assert CANARY not in str(raised.value)


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "no such file": {"GOOGLE_APPLICATION_CREDENTIALS": f"/{CANARY}"},
    "a file that is not JSON": {"GOOGLE_APPLICATION_CREDENTIALS": "{folder}/text"},
    "a file of another kind": {"GOOGLE_APPLICATION_CREDENTIALS": "{folder}/kind"},
    "a key that cannot be read": {"GOOGLE_APPLICATION_CREDENTIALS": "{folder}/key"},
    "metadata host": {"GCE_METADATA_HOST": f"{CANARY}\n", "GCE_METADATA_IP": f"u:{CANARY}@127.0.0.1:1"},
    "proxy": {"HTTP_PROXY": f"http://u:{CANARY}@127.0.0.1:1"},
    "proxy that is none": {"HTTP_PROXY": f"{CANARY}://:x"},
    "certificates": {"REQUESTS_CA_BUNDLE": f"/{CANARY}"},
    "project": {"GOOGLE_CLOUD_PROJECT": CANARY},
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_what_the_environment_holds_is_never_told(
    name: str,
    call: Any,
    server: SmallServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    private_key: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A planted word in each variable that the library reads: neither the error nor a log of the library has
    it, and what fails is that sink's or that source's failure, whatever the library raises.
    """
    (tmp_path / "text").write_text(CANARY)
    (tmp_path / "kind").write_text(json.dumps({"type": CANARY}))
    key_file(tmp_path / "key", server, CANARY)
    given = ENVIRONMENTS[name]
    for variable, value in given.items():
        monkeypatch.setenv(variable, value.replace("{folder}", str(tmp_path)))
    own = None
    if name in {"proxy", "proxy that is none", "certificates", "project"}:
        own = key_file(tmp_path / "own", server, private_key)
    server.answer = lambda request: quoting(403)
    if name == "certificates":
        server.url = server.url.replace("http:", "https:")

    with pytest.raises((SinkError, OSError)) as raised:
        call(server, **({"credentials_file": own} if own else {}))()

    assert isinstance(raised.value, SinkError) or type(raised.value) is OSError
    assert CANARY not in str(raised.value)
    output = capfd.readouterr()
    assert CANARY not in output.out + output.err


@pytest.mark.parametrize("name", ["GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST", "https_proxy"])
def test_the_configuration_check_sees_control_characters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are reported before anything is sent, as far as variables show it, with the variable's name
    alone."""
    monkeypatch.setenv(name, f"{CANARY}\n")
    source = GcsFlagSettings(type="gcs", bucket="flags", object="flags.yaml")
    sink = GcsSettings(bucket="flags")
    for problem in (list(sink.variable_problems()), list(source.variable_problems())):
        assert len(problem) == 1
        assert name in problem[0]
        assert CANARY not in problem[0]


def test_the_permission_that_is_missing_is_named(
    server: SmallServer, tmp_path: Path, private_key: str
) -> None:
    """It is all that is taken of what the store says."""
    message = f"{CANARY} does not have storage.objects.list access to the bucket."
    server.answer = lambda request: (
        answered(access_token="t", expires_in=3600)
        if request.path == "/token"
        else answered(403, error={"code": 403, "message": message, "errors": [{"reason": "forbidden"}]})
    )
    with pytest.raises(SinkRefused) as raised:
        listing(server, credentials_file=key_file(tmp_path / "key", server, private_key))()
    assert str(raised.value) == (
        "listing gs://flags/: 403 forbidden: the credentials have no right to this (storage.objects.list)"
    )


# ── what the store has to keep ────────────────────────────────────────────────────────────────────────────


class Forgetful(SmallGcs):
    """A store that changes what an object says of itself."""

    def __init__(self, change: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._change = change

    def _store(self, bucket: str, resource: dict[str, Any], content: bytes) -> dict[str, Any]:
        made = super()._store(bucket, resource, content)
        self._change(made)
        return made


def lose(resource: dict[str, Any]) -> None:
    resource.pop("metadata")


def lower(resource: dict[str, Any]) -> None:
    resource["metadata"] = {key: value.lower() for key, value in resource["metadata"].items()}


@pytest.mark.parametrize("change", [lose, lower])
def test_a_store_that_does_not_keep_metadata_is_refused(change: Any) -> None:
    """When the sink opens, and not at the first window that comes again; likewise in ``flagstream check``."""
    with Forgetful(change) as server:
        server.create_bucket("flags")
        store = GcsStore(GcsSettings(bucket="flags", endpoint=server.url, anonymous=True))
        with pytest.raises(SinkRefused, match="does not keep the metadata"):
            store.open()
        failed = [proof for proof in store.probe() if proof.outcome == "failed"]
        assert [proof.what for proof in failed] == ["read"]


def test_the_probe_says_as_much_as_a_window() -> None:
    """It is stored with a manifest, and recognised by it."""
    with SmallGcs() as server:
        server.create_bucket("flags")
        GcsStore(GcsSettings(bucket="flags", endpoint=server.url, anonymous=True)).open()
        stored = next(one for one in server.seen if one.method == "POST")
    assert PROBE_MANIFEST.range.partition.topic.encode() in stored.body
