"""These tests check the settings of the Google Cloud Storage sink, and what its errors mean, without a
store."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
import requests
from google.api_core.exceptions import from_http_response
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError
from pydantic import ValidationError

from flagstream.errors import SinkError, SinkRefused, SinkUnavailable
from flagstream.sinks.objects.gcs.failures import translated
from flagstream.sinks.objects.gcs.settings import GcsSettings
from flagstream.sinks.objects.gcs.store import GcsStore, Pieces

SESSION = "http://store/upload/storage/v1/b/archive/o?uploadType=resumable&upload_id=SECRET"


QUOTED = "what a server quotes"


def answer(
    status: int, *, method: str = "POST", reason: str = "", message: str = QUOTED, **headers: str
) -> requests.Response:
    """Return an answer in the form of Google's errors."""
    response = requests.Response()
    response.status_code = status
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    error = {"code": status, "message": message, "errors": [{"reason": reason}]}
    response._content = json.dumps({"error": error}).encode()
    response.request = requests.Request(method, SESSION).prepare()
    return response


def failed(response: requests.Response) -> Exception:
    """Return the library's error for an answer."""
    return cast(Exception, from_http_response(response))  # type: ignore[no-untyped-call]


def reported(error: Exception) -> SinkError:
    """The SinkError that `error` becomes."""
    with pytest.raises(SinkError) as raised, translated("storing gs://archive/x"):
        raise error
    return raised.value


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413])
def test_a_person_has_to_act(status: int) -> None:
    """Credentials, permissions and a missing bucket are refusals that say what was being done and why."""
    error = reported(failed(answer(status)))
    assert isinstance(error, SinkRefused)
    assert str(error).startswith(f"storing gs://archive/x: {status}")
    assert QUOTED not in str(error)


@pytest.mark.parametrize("status", [408, 409, 412, 429, 500, 502, 503, 504])
def test_it_passes_by_itself(status: int) -> None:
    """Trouble of the store is unavailability, with the seconds that it asks to wait."""
    error = reported(failed(answer(status, Retry_After="7")))
    assert isinstance(error, SinkUnavailable)
    assert error.retry_after == 7


@pytest.mark.parametrize("status", [404, 410])
def test_a_lost_upload_session_is_no_missing_bucket(status: int) -> None:
    """The address of a resumable upload that has ended asks for another upload, not for a person."""
    assert isinstance(reported(failed(answer(status, method="PUT"))), SinkUnavailable)


@pytest.mark.parametrize("reason", ["rateLimitExceeded", "userRateLimitExceeded"])
def test_a_403_that_limits_the_rate_is_no_refusal(reason: str) -> None:
    """Cloud Storage says so with a 403 too."""
    assert isinstance(reported(failed(answer(403, reason=reason))), SinkUnavailable)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (requests.ConnectionError("refused"), SinkUnavailable),
        (requests.Timeout("no answer"), SinkUnavailable),
        (requests.exceptions.ChunkedEncodingError("cut"), SinkUnavailable),
        (TransportError("no token server"), SinkUnavailable),  # type: ignore[no-untyped-call]
        (RefreshError("token server is busy", retryable=True), SinkUnavailable),  # type: ignore[no-untyped-call]
        (RefreshError("account is disabled"), SinkRefused),  # type: ignore[no-untyped-call]
        (DefaultCredentialsError("none found"), SinkRefused),  # type: ignore[no-untyped-call]
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_errors_without_an_answer(error: Exception, kind: type[SinkError]) -> None:
    """The connection passes by itself; missing or refused credentials do not."""
    assert isinstance(reported(error), kind)


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError(f"Max retries exceeded with url: {SESSION} (Caused by …)"),
        failed(answer(503, method="PUT")),
        failed(answer(400, message=f"bad request {SESSION}")),
    ],
)
def test_the_address_of_an_upload_is_never_shown(error: Exception) -> None:
    """Whoever has it can write the object."""
    shown = reported(error)
    assert "SECRET" not in str(shown)
    assert shown.__suppress_context__


def test_pieces_read_as_one_file() -> None:
    """The parts of an object read as their bytes in order, however they are cut."""
    parts = (b"", b"abc", b"defg", b"", b"h")
    for size in range(1, 10):
        pieces = Pieces(parts)
        read = []
        while data := pieces.read(size):
            read.append(data)
            assert pieces.tell() == sum(map(len, read))
        assert b"".join(read) == b"abcdefgh"
        assert {len(data) for data in read[:-1]} <= {size}


@pytest.mark.parametrize("content", ['{"private_key": "SECRET"}', "SECRET", "[]", ""])
def test_a_file_that_is_no_key(tmp_path: Path, content: str) -> None:
    """The error has its name, without its content."""
    file = tmp_path / "key.json"
    file.write_text(content)
    with pytest.raises(SinkRefused, match=r"key\.json is not a key file") as raised:
        next(GcsStore(settings(credentials_file=file)).names(""))
    assert "SECRET" not in str(raised.value)


def test_a_key_file_that_is_not_there(tmp_path: Path) -> None:
    """The error has its name and the system's reason."""
    with pytest.raises(SinkRefused, match=r"key\.json: No such file"):
        GcsStore(settings(credentials_file=tmp_path / "key.json")).open()


def test_nothing_is_looked_for_before_it_is_used(tmp_path: Path) -> None:
    """A store is made, and closed again, without credentials."""
    store = GcsStore(settings(credentials_file=tmp_path / "missing"))
    assert store.place == "gs://archive/"
    store.close()


def settings(**values: Any) -> GcsSettings:
    return GcsSettings(bucket="archive", **values)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"chunk_size": "1MB"}, "multiple of 256KiB"),
        ({"chunk_size": 0}, "greater than 0"),
        ({"endpoint": "localhost:4443"}, "is not an address"),
        ({"endpoint": "http://me:SECRET@host"}, "no user or password"),
        ({"timeout": "0s"}, "greater than 0"),
        ({"bucket": ""}, "is not the name of a bucket"),
        ({"bucket": "gs://archive/"}, "without gs://"),
    ],
)
def test_mistakes_in_a_field(values: dict[str, Any], problem: str) -> None:
    """Each is reported with what would be right, and without a secret."""
    with pytest.raises(ValidationError, match=problem) as raised:
        GcsSettings(**{"bucket": "archive", **values})
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"anonymous": True}, "only with endpoint"),
        ({"anonymous": True, "endpoint": "http://h", "credentials_file": "key.json"}, "contradicts"),
    ],
)
def test_mistakes_in_how_fields_go_together(values: dict[str, Any], problem: str) -> None:
    """The field to blame is named."""
    found = list(settings(**values).problems())
    assert [field for field, _ in found] == ["anonymous"]
    assert problem in found[0][1]
