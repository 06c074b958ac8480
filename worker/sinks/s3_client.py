"""The client of an S3 store, with the credentials and limits of a sink's settings."""

from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import NoCredentialsError
from botocore.loaders import create_loader

from worker.sinks.s3 import S3Settings

ATTEMPTS = 2
"""How often a request is sent before it counts as failed: twice, so that one failed part does not repeat a
whole upload. All further patience is the engine's.
"""

_CONNECTIONS = 16
"""At least as many as requests at the same time: the engine makes eight deliveries at once, and listings."""


def connect(settings: S3Settings) -> Any:  # boto3 makes its clients' classes as it runs
    """A client for all threads. Sends nothing to the store; credentials may be looked for.

    Raises botocore's errors.
    """
    session = _session(settings)
    if settings.role_arn:
        session = _in_role(session, settings)
    return session.client(
        "s3",
        endpoint_url=settings.endpoint or None,
        config=Config(
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            max_pool_connections=_CONNECTIONS,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            s3={"addressing_style": "path" if settings.path_style else "auto"},
            # Each body goes with its Content-MD5, which every store checks; the newer checksums, which the
            # library would add, not every store understands.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _session(settings: S3Settings) -> boto3.Session:
    return boto3.Session(
        botocore_session=_core(settings),
        region_name=settings.region or None,
        aws_access_key_id=settings.access_key or None,
        aws_secret_access_key=settings.secret_key.get_secret_value() or None,
    )


def _in_role(source: boto3.Session, settings: S3Settings) -> boto3.Session:
    """A session whose credentials are those of the role, renewed with the ones of ``source``."""
    core = _core(settings)
    core.register_component("credential_provider", CredentialResolver([_Role(source, settings)]))
    return boto3.Session(botocore_session=core, region_name=settings.region or None)


def _core(settings: S3Settings) -> Any:
    core = botocore.session.Session(profile=settings.profile or None)
    core.register_component("data_loader", _DESCRIPTIONS)
    return core


_DESCRIPTIONS = create_loader()
"""Descriptions of Amazon's services, read once: a client takes 0.06 s with them at hand, else 0.3 s."""


class _Role(CredentialProvider):  # type: ignore[misc]  # botocore has no types
    METHOD = "assume-role"

    def __init__(self, source: boto3.Session, settings: S3Settings) -> None:
        self._source = source
        self._settings = settings

    def load(self) -> DeferredRefreshableCredentials:
        credentials = self._source.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        external = {"ExternalId": self._settings.external_id} if self._settings.external_id else {}
        fetcher = AssumeRoleCredentialFetcher(
            client_creator=self._source.client,
            source_credentials=credentials,
            role_arn=self._settings.role_arn,
            extra_args={"RoleSessionName": "flagstream", **external},
        )
        return DeferredRefreshableCredentials(fetcher.fetch_credentials, self.METHOD)
