"""Settings of the S3 sink, and what its errors mean."""

from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    SSLError,
)
from pydantic import SecretStr, ValidationError

from flagstream.errors import SinkRefused, SinkUnavailable
from flagstream.sinks.objects.s3.client import connect
from flagstream.sinks.objects.s3.failures import translated
from flagstream.sinks.objects.s3.settings import S3Settings
from flagstream.sinks.objects.s3.store import S3Store, cut
from flagstream.sinks.retry_after import LONGEST_WAIT
from tests.support.faulty_proxy import Answer, FaultyProxy


def settings(**changes: Any) -> S3Settings:
    return S3Settings(**{"bucket": "flags", "region": "eu-central-1", **changes})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"access_key": "A"}, "access_key"),
        ({"secret_key": "s"}, "access_key"),
        ({"access_key": "A", "secret_key": "s", "profile": "p"}, "profile"),
        ({"external_id": "x"}, "external_id"),
        ({"kms_key_id": "k"}, "kms_key_id"),
        ({"kms_key_id": "k", "encryption": "AES256"}, "kms_key_id"),
    ],
)
def test_settings_that_contradict(changes: dict[str, str], field: str) -> None:
    """Settings that do not go together are named."""
    assert [field] == [found for found, _ in settings(**changes).problems()]


def test_settings_that_agree() -> None:
    """A role with an external id, own keys and a KMS key go together."""
    given = settings(
        access_key="A",
        secret_key="s",
        role_arn="arn:aws:iam::1:role/r",
        external_id="x",
        encryption="aws:kms",
        kms_key_id="k",
    )
    assert list(given.problems()) == []


@pytest.mark.parametrize("endpoint", ["localhost:8333", "ftp://host", "http://", "https://host?x=1"])
def test_endpoint_is_an_address(endpoint: str) -> None:
    """A text that is not an address of a server is refused when the configuration is read."""
    with pytest.raises(ValidationError, match="is not an address"):
        settings(endpoint=endpoint)


def test_endpoint_with_a_password() -> None:
    """A password in an address is refused, and not repeated."""
    with pytest.raises(ValidationError, match="access_key and secret_key") as problem:
        settings(endpoint="https://user:hunter2@host")
    assert "hunter2" not in str(problem.value)


def test_part_size_limits() -> None:
    """S3 takes parts of 5 MiB to 5 GiB."""
    for size in ("1MiB", "6GiB"):
        with pytest.raises(ValidationError):
            settings(part_size=size)


def test_place_tells_stores_apart() -> None:
    """The same bucket's name at another store, or another prefix, is another place."""
    places = [
        S3Store(settings(**changes)).place
        for changes in ({}, {"prefix": "a/"}, {"endpoint": "https://r2.example"}, {"bucket": "other"})
    ]
    assert places == ["s3://flags/", "s3://flags/a/", "s3://r2.example/flags/", "s3://other/"]


def test_client_limits() -> None:
    """Time-outs, path style and the number of connections are the client's."""
    client = connect(
        settings(access_key="A", secret_key="s", path_style=True, connect_timeout="1s", read_timeout="2s")
    )
    config = client.meta.config
    assert (config.connect_timeout, config.read_timeout) == (1.0, 2.0)
    assert config.s3["addressing_style"] == "path"
    assert config.max_pool_connections >= 16
    assert config.retries["total_max_attempts"] == 2


def test_missing_profile_is_refused() -> None:
    """A profile that is not there is for a person to mend."""
    with pytest.raises(SinkRefused, match="nobody"):
        S3Store(settings(profile="nobody")).open()


ROLE_GRANTED = b"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<Credentials><AccessKeyId>GRANTED</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
<SessionToken>token</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>
</AssumeRoleResult></AssumeRoleResponse>"""


def test_role_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a role, requests carry the credentials that were granted for it, under the external id."""
    with FaultyProxy("http://127.0.0.1:1") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
        server.fail(Answer(200, {"Content-Type": "text/xml"}, ROLE_GRANTED), "POST", times=1)
        server.fail(Answer(200), "DELETE", times=2)
        role = {"role_arn": "arn:aws:iam::123456789012:role/archive", "external_id": "flagstream-1"}
        client = connect(
            settings(access_key="OWN", secret_key="s", endpoint=server.url, path_style=True, **role)
        )
        for _ in range(2):
            client.delete_object(Bucket="flags", Key="a")
        assume, *deletes = server.seen
    assert b"ExternalId=flagstream-1" in assume.body
    assert "Credential=OWN/" in assume.headers["Authorization"]
    assert len(deletes) == 2
    for delete in deletes:
        assert "Credential=GRANTED/" in delete.headers["Authorization"]
        assert delete.headers["X-Amz-Security-Token"] == "token"


def client_error(status: int, code: str, headers: dict[str, str] | None = None) -> ClientError:
    answer = {
        "Error": {"Code": code, "Message": "text"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}},
    }
    return ClientError(answer, "PutObject")


@pytest.mark.parametrize(
    "error",
    [
        client_error(429, "TooManyRequests"),
        client_error(500, "InternalError"),
        client_error(503, "SlowDown"),
        client_error(400, "RequestTimeout"),
        client_error(404, "NoSuchUpload"),
        client_error(409, "OperationAborted"),
        EndpointConnectionError(endpoint_url="http://host"),
        ConnectTimeoutError(endpoint_url="http://host"),
        ReadTimeoutError(endpoint_url="http://host"),
        CredentialRetrievalError(provider="metadata", error_msg="time-out"),
    ],
    ids=str,
)
def test_errors_that_pass(error: Exception) -> None:
    """Overload, outages and what was damaged on the way pass by themselves."""
    with pytest.raises(SinkUnavailable, match=r"^storing x: "), translated("storing x"):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        client_error(403, "AccessDenied"),
        client_error(403, "SignatureDoesNotMatch"),
        client_error(404, "NoSuchBucket"),
        client_error(400, "InvalidStorageClass"),
        client_error(301, "PermanentRedirect"),
        client_error(501, "NotImplemented"),
        NoCredentialsError(),
        ProfileNotFound(profile="p"),
        SSLError(endpoint_url="https://host", error="self-signed certificate"),
    ],
    ids=str,
)
def test_errors_for_a_person(error: Exception) -> None:
    """Permissions, credentials, certificates and buckets are for a person to mend."""
    with pytest.raises(SinkRefused, match=r"^storing x: "), translated("storing x"):
        raise error


def reported(retry_after: str) -> float | None:
    """How long a store that answers so asks to wait."""
    with pytest.raises(SinkUnavailable) as unavailable, translated("storing x"):
        raise client_error(503, "SlowDown", {"Retry-After": retry_after})
    return unavailable.value.retry_after


def test_retry_after() -> None:
    """What the store asks for reaches the engine, cut to what anybody may ask for."""
    assert reported("7") == 7
    assert reported("9" * 400) == LONGEST_WAIT


@pytest.mark.parametrize("text", ["", "soon", "-1"])
def test_retry_after_that_says_nothing(text: str) -> None:
    """Anything else is passed over."""
    with pytest.raises(SinkUnavailable) as unavailable, translated("storing x"):
        raise client_error(503, "SlowDown", {"Retry-After": text})
    assert unavailable.value.retry_after is None


@pytest.mark.parametrize("sizes", [[], [1], [4], [5], [4, 4], [1, 2, 3, 4, 5], [13], [0, 3, 0, 9]])
def test_cut(sizes: list[int]) -> None:
    """Parts have one size, the last one excepted, with the same bytes in the same order."""
    parts = [bytes(range(size)) for size in sizes]
    pieces = list(cut(parts, 4))
    assert b"".join(pieces) == b"".join(parts)
    assert [len(piece) for piece in pieces[:-1]] == [4] * (len(pieces) - 1)
    assert all(1 <= len(piece) <= 4 for piece in pieces)


def test_secret_is_not_shown() -> None:
    """Neither the settings nor the store show the secret."""
    given = settings(access_key="A", secret_key=SecretStr("hunter2"))
    assert "hunter2" not in repr(given)
    assert "hunter2" not in S3Store(given).place
