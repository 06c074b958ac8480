"""Flags from an object in S3 or a store that speaks its protocol, read only when its ETag has changed."""

from typing import Any

from botocore.exceptions import ClientError

from flagstream.config.flags import S3FlagSettings
from flagstream.errors import SinkError
from flagstream.flag_sources import unread
from flagstream.flag_sources.document import Document, format_of
from flagstream.sinks.objects.s3.client import S3Client
from flagstream.sinks.objects.s3.failures import status


class S3Location:
    """Implements `FlagLocation` for one object. It needs s3:GetObject, and s3:ListBucket so that the store
    says of a missing object that it is missing, not that access is forbidden."""

    def __init__(self, settings: S3FlagSettings) -> None:
        self._settings = settings
        self._connection = S3Client(settings.access(), settings.place())
        self._etag: str | None = None

    def fetch(self, *, unconditional: bool) -> Document | None:
        settings = self._settings
        condition = {"IfNoneMatch": self._etag} if self._etag and not unconditional else {}

        def read() -> tuple[Any, bytes] | None:
            client = self._connection.api
            try:
                answer = client.get_object(Bucket=settings.bucket, Key=settings.key, **condition)
            except ClientError as error:
                if status(error) == 304:
                    return None
                raise
            with answer["Body"] as body:
                return answer, body.read(settings.max_bytes + 1)

        try:
            found = self._connection.call(settings.place(), read)
        except SinkError as error:
            raise unread(error) from None
        if found is None:
            return None
        answer, content = found
        if len(content) > settings.max_bytes:
            raise OSError(f"{settings.place()}: holds more than {settings.max_bytes} bytes")
        self._etag = answer.get("ETag")
        return Document(content, *format_of(settings.format, answer.get("ContentType"), settings.key))
