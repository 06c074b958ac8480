"""Windows as objects in Google Cloud Storage, created and never replaced. Exactly once.

Every upload carries ``ifGenerationMatch=0``: it succeeds only when no object of that name exists, so of
several writers one wins. The answer to all others is 412 (for a resumable upload with its last piece), and
then what the object says of itself decides. An upload whose answer was lost gets that 412 too when it is sent
again, and finds its own object.

The CRC-32C of the content goes along, and Cloud Storage takes no object with another one. It is also kept in
the object's metadata beside the manifest, so that an object whose content was changed since is noticed.
"""

import base64
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import google_crc32c
from google.api_core.exceptions import PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.oauth2 import service_account
from requests.adapters import HTTPAdapter

from worker.errors import ObjectConflict, SinkError, SinkRefused, SinkUnavailable
from worker.formats.manifest import difference, manifest_json, parse_manifest
from worker.formats.protocol import EncodedObject, Format
from worker.sinks.gcs import GcsSettings
from worker.sinks.gcs_failures import translated
from worker.sinks.probing import LIST, probe_name, proofs
from worker.sinks.protocol import Proof

MANIFEST, CHECKSUM = "flagstream", "flagstream-crc32c"
"""Keys of an object's metadata: its manifest, and the CRC-32C of its content when it was made."""

_PROBE = (b"probe\n",)

_CONNECTIONS = 24
"""Connections that are kept: eight deliveries at once, eight objects of wide windows, and listings."""


class GcsStore:
    """An :class:`~worker.sinks.objects.ObjectStore`. One client serves all threads."""

    def __init__(self, settings: GcsSettings) -> None:
        self._settings = settings
        self.place = f"gs://{settings.bucket}/{settings.prefix}"

    def open(self) -> None:
        """Proves the create-only condition, reading and listing on an object of its own name.

        That object is deleted again where that is allowed. Without the right to delete, or under a retention
        policy, it stays: six bytes for each start.
        """
        name = probe_name()
        try:
            self._put(name, _PROBE, "text/plain", {})
            self._prove_condition(name)
            self._prove_read(name)
            self._prove_list(name)
        finally:
            with suppress(SinkError):
                self._delete(name)

    def create(self, name: str, content: EncodedObject, kind: Format) -> bool:
        checksum = _crc32c(content.parts)
        metadata = {MANIFEST: manifest_json(content.manifest).decode(), CHECKSUM: checksum}
        stored = self._put(name, content.parts, kind.content_type, metadata)
        if stored is None:
            self._compare(name, content)
        elif stored.crc32c != checksum:
            raise ObjectConflict(f"{self.place}{name} was stored with other content than was sent")
        return stored is not None

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        below = self._settings.prefix
        with translated(f"listing {self.place}{prefix}"):
            listing = self._bucket.client.list_blobs(
                self._bucket,
                prefix=below + prefix,
                start_offset=below + after if after else None,
                fields="items(name),nextPageToken",
                timeout=self._settings.timeout,
                retry=None,
            )
            for blob in listing:
                # start_offset includes the name itself
                if (name := blob.name.removeprefix(below)) != after:
                    yield name

    def prove(self) -> Iterator[Proof]:
        return proofs(
            ("write", self._prove_write),
            ("conditional write", self._prove_condition),
            ("read", self._prove_read),
            (LIST, self._prove_list),
            ("delete", self._prove_delete),
            names=self.names,
        )

    def close(self) -> None:
        """Closes the connections; nothing when there was no use for any."""
        if "_bucket" in self.__dict__:
            self._bucket.client.close()

    @cached_property
    def _bucket(self) -> Any:
        """The bucket, with credentials found but nothing sent yet. Raises SinkRefused without credentials."""
        settings = self._settings
        # Otherwise the library asks for the bucket's own properties, in a thread that nobody waits for and
        # with a right that nothing else here needs, to put them into traces.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        with translated(f"opening {self.place}"):
            client = storage.Client(
                project=settings.project or None,
                credentials=self._credentials(),
                client_options={"api_endpoint": settings.endpoint} if settings.endpoint else None,
            )
            # The library's own pool keeps ten connections; one more is closed after each request.
            client._http.mount("https://", HTTPAdapter(pool_maxsize=_CONNECTIONS))
            return client.bucket(settings.bucket, user_project=settings.project or None)

    def _credentials(self) -> Any:
        """None: the library looks for application default credentials."""
        settings = self._settings
        if settings.anonymous:
            return AnonymousCredentials()  # type: ignore[no-untyped-call]
        if settings.credentials_file is None:
            return None
        try:
            return service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
                str(settings.credentials_file), scopes=storage.Client.SCOPE
            )
        except OSError as error:
            raise SinkRefused(f"credentials_file {settings.credentials_file}: {error.strerror}") from None
        except (ValueError, AttributeError):
            # The library's own text may quote the file.
            raise SinkRefused(
                f"credentials_file {settings.credentials_file} is no key file of a service account"
            ) from None

    def _put(self, name: str, parts: Sequence[bytes], content_type: str, metadata: Mapping[str, str]) -> Any:
        """The stored blob, or None when there is one of that name already."""
        settings = self._settings
        blob = self._blob(name)
        blob.metadata = dict(metadata)
        blob.crc32c = _crc32c(parts)
        if settings.storage_class:
            blob.storage_class = settings.storage_class
        if settings.content_encoding:
            blob.content_encoding = settings.content_encoding
        size = sum(map(len, parts))
        resumable = size > settings.chunk_size
        with translated(f"storing {self.place}{name}"):
            try:
                blob.upload_from_file(
                    Pieces(parts),
                    # The library sends whatever has a known size up to 8 MiB in one request.
                    size=None if resumable else size,
                    content_type=settings.content_type or content_type,
                    if_generation_match=0,
                    # The server checks the one above. The library's own check comes after the object was
                    # stored, and deletes it, whoever has replaced it by then.
                    checksum=None,
                    timeout=settings.timeout,
                    # No retry, as everywhere here: the engine's back-off rules. The library would send a
                    # piece again without asking how much of it the store has taken.
                    retry=None,
                )
            except PreconditionFailed:
                return None
        return blob

    def _compare(self, name: str, content: EncodedObject) -> None:
        """Raises ObjectConflict unless the object that is there is ours, whole."""
        target = f"{self.place}{name}"
        found = self._find(name)
        metadata = found.metadata or {}
        manifest = parse_manifest(metadata.get(MANIFEST, "").encode())
        if manifest is None:
            raise ObjectConflict(f"{target} is not an object of ours: it does not say what it holds")
        if different := difference(content.manifest, manifest):
            raise ObjectConflict(f"{target}: {different}")
        if found.crc32c != metadata.get(CHECKSUM):
            raise ObjectConflict(f"{target} was changed: its content has another checksum than it says")

    def _find(self, name: str) -> Any:
        with translated(f"reading {self.place}{name}"):
            found = self._bucket.get_blob(
                self._settings.prefix + name, timeout=self._settings.timeout, retry=None
            )
        if found is None:
            raise SinkUnavailable(
                f"{self.place}{name}: was there a moment ago and is not there now; somebody deletes objects, "
                "or a policy forbids new ones"
            )
        return found

    def _delete(self, name: str) -> None:
        with translated(f"deleting {self.place}{name}"):
            self._blob(name).delete(timeout=self._settings.timeout, retry=None)

    def _blob(self, name: str) -> Any:
        settings = self._settings
        return self._bucket.blob(
            settings.prefix + name,
            chunk_size=settings.chunk_size,
            kms_key_name=settings.kms_key_name or None,
        )

    def _prove_write(self, name: str) -> str:
        self._put(name, _PROBE, "text/plain", {})
        return f"stored {self.place}{name}"

    def _prove_condition(self, name: str) -> str:
        """Raises SinkRefused when the store lets an object be replaced, unless that was accepted."""
        if self._put(name, _PROBE, "text/plain", {}) is None:
            return "an object that is there is not replaced"
        if self._settings.at_least_once:
            return "an object that is there is replaced, which at_least_once accepts"
        raise SinkRefused(
            f"{self.place}: the store ignores ifGenerationMatch, so a window that is delivered again would "
            "be stored again; use another store, or accept that with at_least_once = true"
        )

    def _prove_read(self, name: str) -> str:
        self._find(name)
        return "its metadata can be read"

    def _prove_list(self, name: str) -> str:
        if name not in self.names(name):
            raise SinkRefused(f"{self.place}: a listing does not show {name}, which was stored before")
        return "a listing shows it"

    def _prove_delete(self, name: str) -> str:
        self._delete(name)
        return "it is deleted; only these tries need that right"


class Pieces:
    """The parts of an object as a file that is read once, from front to back: never all of it twice in
    memory.
    """

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = deque([memoryview(part) for part in parts])
        self._at = 0

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        taken: list[memoryview] = []
        left = size
        while left and self._parts:
            part = self._parts.popleft()
            taken.append(part[:left])
            if len(part) > left:
                self._parts.appendleft(part[left:])
            left -= len(taken[-1])
        self._at += size - left
        return b"".join(taken)


def _crc32c(parts: Sequence[bytes]) -> str:
    """CRC-32C as Cloud Storage writes it: four bytes, big-endian, in base64."""
    checksum = 0
    for part in parts:
        checksum = google_crc32c.extend(checksum, part)
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()
