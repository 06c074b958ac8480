"""Makes the client of an S3 store, for sinks and sources of flags."""

import logging
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.awsrequest
import botocore.session
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import NoCredentialsError, ProfileNotFound
from botocore.loaders import create_loader

from flagstream.errors import SinkRefused
from flagstream.sinks.objects.bounded_answers import AnswerTooLarge, whole
from flagstream.sinks.objects.renewed import Renewed
from flagstream.sinks.objects.s3.failures import translated
from flagstream.sinks.objects.s3.settings import S3Access, S3Settings

ATTEMPTS = 2
"""How often a request is sent before it counts as failed: twice, so that one failed part does not repeat a
whole upload. All further patience is the engine's.
"""

_CONNECTIONS = 16
"""At least as many as requests at the same time: the engine makes eight deliveries at once, and listings."""

# These write headers, addresses and what credential commands printed into their messages, and traces of them.
for _quoting in ("boto3", "botocore", "s3transfer", "urllib3"):
    logging.getLogger(_quoting).setLevel(logging.CRITICAL + 1)


class _Answer(botocore.awsrequest.AWSResponse):  # type: ignore[misc]  # botocore has no types
    """Takes no more of an answer into memory than a store sends; bodies of objects are read as they come."""

    _content: bytes | None

    @property
    def content(self) -> bytes:
        if self._content is None:
            try:
                self._content = whole(self.raw.stream())
            except AnswerTooLarge:
                self.raw.close()
                raise
        return self._content


# The library has no place for it in a client; it looks the class up there for each answer.
botocore.awsrequest.AWSResponse = _Answer


@dataclass(frozen=True, slots=True)
class _Connected:
    api: Any  # boto3 makes its clients' classes as it runs
    credentials: Any


class S3Client(Renewed[_Connected]):
    """The client of one store, for sinks and for sources of flags."""

    def __init__(self, access: S3Access, place: str) -> None:
        self._opening = f"opening {place}"

        def make() -> _Connected:
            with translated(self._opening, preparing=True):
                return _connect(access)

        super().__init__(make, lambda connected: connected.api.close(), translated)

    @property
    def api(self) -> Any:
        """Return the client of the library, for use in :meth:`call`. Raises SinkErrors."""
        connected = self.client
        with translated(self._opening, preparing=True):
            # Renews credentials that are about to expire. Here, because a failure is not one of the request.
            connected.credentials.get_frozen_credentials()
        return connected.api


def connect(settings: S3Settings) -> Any:
    """Return a client for all threads. Sends nothing to the store; credentials are looked for.

    Raises SinkRefused for a profile that is missing, and the library's errors.
    """
    return _connect(settings.access()).api


def _connect(access: S3Access) -> _Connected:
    session = _session(access)
    if access.role_arn:
        session = _in_role(session, access)
    try:
        credentials = session.get_credentials()
    except ProfileNotFound:
        # The library's text names the profile also where it comes from a variable.
        named = f'the profile "{access.profile}"' if access.profile else "the profile of AWS_PROFILE"
        raise SinkRefused(f"{named} is not in the AWS configuration", denied=True) from None
    if credentials is None:
        raise NoCredentialsError
    credentials.get_frozen_credentials()
    client = session.client(
        "s3",
        endpoint_url=access.endpoint or None,
        config=Config(
            max_pool_connections=_CONNECTIONS,
            s3={"addressing_style": "path" if access.path_style else "auto"},
            # Each body goes with its Content-MD5, which every store checks; the newer checksums, which the
            # library would add, not every store understands.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    client.meta.events.register("before-call.s3.HeadBucket", _not_asked)
    return _Connected(client, credentials)


def _not_asked(**_: object) -> tuple[object, dict[str, Any]]:
    """Answer in place of HeadBucket. Only the library sends it, to find out where a bucket is if a redirect
    does not say so. The store would redirect it as well (307, a new bucket), and so on: 80 requests were
    seen.
    """
    return SimpleNamespace(status_code=404), {
        "Error": {"Code": "404"},
        "ResponseMetadata": {"HTTPStatusCode": 404, "HTTPHeaders": {}},
    }


def _session(access: S3Access) -> boto3.Session:
    return boto3.Session(
        botocore_session=_core(access),
        region_name=access.region or None,
        aws_access_key_id=access.access_key or None,
        aws_secret_access_key=access.secret_key or None,
    )


def _in_role(source: boto3.Session, access: S3Access) -> boto3.Session:
    """A session whose credentials are those of the role, renewed with the ones of ``source``."""
    core = _core(access)
    core.register_component("credential_provider", CredentialResolver([_Role(source, access)]))
    return boto3.Session(botocore_session=core, region_name=access.region or None)


def _core(access: S3Access) -> Any:
    core = botocore.session.Session(profile=access.profile or None)
    core.register_component("data_loader", _DESCRIPTIONS)
    # Also for the clients that the library makes to get credentials: they would wait for five minutes.
    core.set_default_client_config(
        Config(
            connect_timeout=access.connect_timeout,
            read_timeout=access.read_timeout,
            tcp_keepalive=True,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        )
    )
    return core


_DESCRIPTIONS = create_loader()
"""Descriptions of Amazon's services, read once: a client takes 0.01 s with them at hand, else 0.3 s."""


class _Role(CredentialProvider):  # type: ignore[misc]  # botocore has no types
    METHOD = "assume-role"

    def __init__(self, source: boto3.Session, access: S3Access) -> None:
        self._source = source
        self._access = access

    def load(self) -> DeferredRefreshableCredentials:
        credentials = self._source.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        external = {"ExternalId": self._access.external_id} if self._access.external_id else {}
        fetcher = AssumeRoleCredentialFetcher(
            client_creator=self._source.client,
            source_credentials=credentials,
            role_arn=self._access.role_arn,
            extra_args={"RoleSessionName": "flagstream", **external},
        )
        return DeferredRefreshableCredentials(fetcher.fetch_credentials, self.METHOD)
