"""What answers at a store's address, but is not a store, may send without an end: memory stays bounded."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flagstream.errors import SinkUnavailable
from flagstream.sinks.objects.bounded_answers import LARGEST
from flagstream.sinks.objects.gcs.settings import GcsSettings
from flagstream.sinks.objects.gcs.store import GcsStore
from flagstream.sinks.objects.s3.settings import S3Settings
from flagstream.sinks.objects.s3.store import S3Store


class Endless:
    """A server whose answers have a good status and a body that ends only when the client goes. ``sent`` is
    the most that one of them was.
    """

    def __init__(self, status: str) -> None:
        self.sent = 0
        self._status = status.encode()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        sent = 0
        with connection:
            try:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 " + self._status + b"\r\nContent-Type: text/html\r\n\r\n")
                while sent < 8 * LARGEST:
                    connection.sendall(b"." * 65_536)
                    sent += 65_536
                    self.sent = max(self.sent, sent)
            except OSError:
                return


@pytest.fixture(params=["200 OK", "503 Service Unavailable"])
def endless(request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endless]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    server = Endless(request.param)
    yield server
    server.close()


def test_s3(endless: Endless) -> None:
    """It is unavailable, and the text says where to look."""
    store = S3Store(
        S3Settings(type="s3", bucket="events", endpoint=endless.url, region="eu-central-1", path_style=True)
    )

    with pytest.raises(SinkUnavailable, match="larger than 32 MiB"):
        store.open()

    assert endless.sent < 2 * LARGEST


def test_google_cloud_storage(endless: Endless) -> None:
    """The same limit holds for Google Cloud Storage."""
    store = GcsStore(GcsSettings(type="gcs", bucket="events", endpoint=endless.url, anonymous=True))

    with pytest.raises(SinkUnavailable, match="larger than 32 MiB"):
        store.open()

    assert endless.sent < 2 * LARGEST
