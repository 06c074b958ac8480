"""Makes the client of Google Cloud Storage, for sinks and sources of flags."""

import logging
import os
import socket
from typing import Any

import requests
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import storage
from google.oauth2 import service_account
from requests.adapters import HTTPAdapter

from flagstream.errors import SinkRefused, SinkUnavailable
from flagstream.sinks.objects.bounded_answers import AnswerTooLarge, whole
from flagstream.sinks.objects.gcs.failures import translated
from flagstream.sinks.objects.gcs.settings import GcsAccess
from flagstream.sinks.objects.renewed import Renewed

_CONNECTIONS = 24
"""Connections that are kept: eight deliveries at once, eight objects of wide windows, and listings."""

_PIECE = 64 * 1024
"""Bytes of an answer that are read at a time."""

_KEEPALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
]
"""A connection that was dropped without a word is found out within two minutes."""

# These write addresses, headers and answers of services for credentials into their messages.
for _quoting in ("google", "requests", "urllib3"):
    logging.getLogger(_quoting).setLevel(logging.CRITICAL + 1)


class GcsClient(Renewed[storage.Client]):
    """The client of one store, for sinks and for sources of flags."""

    def __init__(self, access: GcsAccess, place: str) -> None:
        def make() -> storage.Client:
            with translated(f"opening {place}", preparing=True):
                return _made(access)

        super().__init__(make, storage.Client.close, translated, anonymous=access.anonymous)


def _made(access: GcsAccess) -> storage.Client:
    # Otherwise the library asks for the bucket's own properties, in a thread that nobody waits for and with a
    # right that nothing else here needs, to put them into traces.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    try:
        client = storage.Client(
            # without credentials there is no project to be found
            project=access.project or ("none" if access.anonymous else None),
            credentials=_credentials(access),
            client_options={"api_endpoint": access.endpoint} if access.endpoint else None,
        )
    except DefaultCredentialsError:
        if not _on_google():
            raise
        # The library takes any trouble of that service for "not on Google Cloud".
        raise SinkUnavailable("no credentials: the metadata service does not answer as one") from None
    for scheme in ("https://", "http://"):
        client._http.mount(scheme, _Adapter())
    return client


class _Adapter(HTTPAdapter):
    """Keeps more connections than the library's ten (one more is closed after each request), and alive. Takes
    no more of an answer into memory than a store gives; bodies of objects are read as they come.
    """

    def __init__(self) -> None:
        super().__init__(pool_maxsize=_CONNECTIONS)

    def send(self, request: Any, stream: bool = False, *args: Any, **kwargs: Any) -> requests.Response:
        answer = super().send(request, stream, *args, **kwargs)
        if not stream:
            try:
                answer._content = whole(answer.iter_content(_PIECE))  # what the library would do next
            except AnswerTooLarge:
                answer.close()
                raise
        return answer

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, socket_options=_KEEPALIVE)

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, **kwargs, socket_options=_KEEPALIVE)


def _on_google() -> bool:
    """Whether credentials come from a metadata service: no file is named, and either the environment names
    that service, or the machine's firmware is Compute Engine's.
    """
    if "GOOGLE_APPLICATION_CREDENTIALS" in os.environ:
        return False
    if "GCE_METADATA_HOST" in os.environ or "GCE_METADATA_ROOT" in os.environ:
        return True
    try:
        with open("/sys/class/dmi/id/product_name", encoding="utf-8", errors="replace") as file:
            return file.read().startswith("Google")
    except OSError:
        return False


def _credentials(access: GcsAccess) -> Any:
    """None: the library looks for application default credentials."""
    if access.anonymous:
        return AnonymousCredentials()  # type: ignore[no-untyped-call]
    file = access.credentials_file
    if file is None:
        return None
    try:
        return service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
            str(file), scopes=storage.Client.SCOPE
        )
    except OSError as error:
        raise SinkRefused(f"credentials_file {file}: {error.strerror}", denied=True) from None
    except (ValueError, AttributeError):
        # The library's own text may quote the file.
        raise SinkRefused(
            f"credentials_file {file} is not a key file of a service account", denied=True
        ) from None
