"""Flags from an object in Google Cloud Storage, read only when its generation has changed."""

from typing import Any

from flagstream.config.flags import GcsFlagSettings
from flagstream.errors import SinkError, SinkUnavailable
from flagstream.flag_sources import unread
from flagstream.flag_sources.document import Document, format_of
from flagstream.sinks.objects.gcs.client import GcsClient


class GcsLocation:
    """Implements `FlagLocation` for one object. Needs storage.objects.get."""

    def __init__(self, settings: GcsFlagSettings) -> None:
        self._settings = settings
        self._connection = GcsClient(settings.access(), settings.place())
        self._generation: int | None = None

    def fetch(self, *, unconditional: bool) -> Document | None:
        settings = self._settings

        def read() -> tuple[Any, bytes] | None:
            bucket = self._connection.client.bucket(settings.bucket)
            blob = bucket.get_blob(settings.object, timeout=settings.timeout, retry=None)
            if blob is None:
                raise SinkUnavailable(f"{settings.place()}: is not there")
            if blob.generation == self._generation and not unconditional:
                return None
            if blob.size > settings.max_bytes:
                raise SinkUnavailable(f"{settings.place()}: holds more than {settings.max_bytes} bytes")
            # replaced in between: 412, and the next poll reads the newer one
            content = blob.download_as_bytes(
                if_generation_match=blob.generation, timeout=settings.timeout, retry=None, checksum="crc32c"
            )
            return blob, content

        try:
            found = self._connection.call(settings.place(), read)
        except SinkError as error:
            raise unread(error) from None
        if found is None:
            return None
        blob, content = found
        self._generation = blob.generation
        return Document(content, *format_of(settings.format, blob.content_type, settings.object))
