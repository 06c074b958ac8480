"""Flags from an object in S3 or a store that speaks its protocol, read only when its ETag has changed."""

from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from worker.config.flags import S3FlagSettings
from worker.flag_sources.document import Document, told_format


class S3Place:
    """A `Place` on one object. Needs s3:GetObject, and s3:ListBucket for a missing object to be told from a
    forbidden one."""

    def __init__(self, settings: S3FlagSettings) -> None:
        self._settings = settings
        self._etag: str | None = None

    def fetch(self, *, anew: bool) -> Document | None:
        settings = self._settings
        condition = {"IfNoneMatch": self._etag} if self._etag and not anew else {}
        try:
            # A client for each look: credentials that were replaced in their file are seen, and a profile
            # that is missing is a failure of this source, not of the worker.
            answer = self._client().get_object(Bucket=settings.bucket, Key=settings.key, **condition)
            with answer["Body"] as body:
                content = body.read(settings.max_bytes + 1)
        except ClientError as error:
            if error.response["ResponseMetadata"].get("HTTPStatusCode") == 304:
                return None
            raise OSError(f"{settings.place()}: {error}") from None
        except BotoCoreError as error:
            raise OSError(f"{settings.place()}: {error}") from None
        if len(content) > settings.max_bytes:
            raise OSError(f"{settings.place()}: holds more than {settings.max_bytes} bytes")
        self._etag = answer.get("ETag")
        return Document(content, *told_format(settings.format, answer.get("ContentType"), settings.key))

    def _client(self) -> Any:  # boto3 makes its clients' classes as it runs
        settings = self._settings
        session = boto3.Session(profile_name=settings.profile, region_name=settings.region)
        return session.client(
            "s3",
            endpoint_url=settings.endpoint,
            config=Config(
                connect_timeout=settings.timeout,
                read_timeout=settings.timeout,
                retries={"total_max_attempts": 2},
                s3={"addressing_style": "path" if settings.path_style else "auto"},
            ),
        )
