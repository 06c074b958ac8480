"""Flags from an object in Google Cloud Storage, read only when its generation has changed."""

from google.api_core.exceptions import GoogleAPIError
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from requests import RequestException

from worker.config.flags import GcsFlagSettings
from worker.flag_sources.document import Document, told_format


class GcsPlace:
    """A `Place` on one object. Needs storage.objects.get."""

    def __init__(self, settings: GcsFlagSettings) -> None:
        self._settings = settings
        self._client: storage.Client | None = None
        self._generation: int | None = None

    def fetch(self, *, anew: bool) -> Document | None:
        settings, timeout = self._settings, self._settings.timeout
        try:
            self._client = self._client or _client(settings)
            bucket = self._client.bucket(settings.bucket)
            blob = bucket.get_blob(settings.object, timeout=timeout, retry=None)
            if blob is None:
                raise OSError(f"{settings.place()}: is not there")
            if blob.generation == self._generation and not anew:
                return None
            if blob.size > settings.max_bytes:
                raise OSError(f"{settings.place()}: holds more than {settings.max_bytes} bytes")
            # replaced in between: 412, and the next poll reads the newer one
            content = blob.download_as_bytes(
                if_generation_match=blob.generation, timeout=timeout, retry=None, checksum="crc32c"
            )
        except (GoogleAPIError, GoogleAuthError, RequestException, DataCorruption, ValueError) as error:
            raise OSError(f"{settings.place()}: {error}") from None
        self._generation = blob.generation
        return Document(content, *told_format(settings.format, blob.content_type, settings.object))


def _client(settings: GcsFlagSettings) -> storage.Client:
    options = {"api_endpoint": settings.endpoint} if settings.endpoint else None
    if settings.anonymous:
        anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]
        return storage.Client(project="none", credentials=anonymous, client_options=options)
    if settings.credentials is not None:
        return storage.Client.from_service_account_json(str(settings.credentials), client_options=options)
    return storage.Client(client_options=options)
