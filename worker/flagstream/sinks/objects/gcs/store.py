"""Stores windows as objects in Google Cloud Storage, created and never replaced. Exactly once.

Every upload carries ``ifGenerationMatch=0``: it succeeds only when no object of that name exists, so of
several writers one wins. The answer to all others is 412 (for a resumable upload with its last piece), and
then what the object says of itself decides. An upload whose answer was lost gets that 412 too when it is sent
again, and finds its own object.

The CRC-32C of the content goes along, and Cloud Storage takes no object with another one. It is also kept in
the object's metadata beside the manifest, so that an object whose content was changed since is noticed.
"""

import base64
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import google_crc32c
from google.api_core.exceptions import PreconditionFailed

from flagstream.errors import ObjectConflict, SinkError, SinkRefused, SinkUnavailable
from flagstream.formats.manifest import difference, manifest_json, parse_manifest
from flagstream.formats.protocol import EncodedObject, Format
from flagstream.outcomes import Proof
from flagstream.sinks.objects.gcs.client import GcsClient
from flagstream.sinks.objects.gcs.settings import GcsSettings
from flagstream.sinks.objects.probing import LIST, probe_name, proofs
from flagstream.sinks.objects.probing import MANIFEST as PROBE_MANIFEST
from flagstream.window import Manifest

MANIFEST, CHECKSUM = "flagstream", "flagstream-crc32c"
"""Keys of an object's metadata: its manifest, and the CRC-32C of its content when it was made."""

_PROBE = (b"probe\n",)


class GcsStore:
    """Implements :class:`~flagstream.sinks.objects.ObjectStore`. One client serves all threads."""

    def __init__(self, settings: GcsSettings) -> None:
        self._settings = settings
        self.place = f"gs://{settings.bucket}/{settings.prefix}"
        self._connection = GcsClient(settings.access(), self.place)

    def open(self) -> None:
        """Proves the create-only condition, listing, and that the store keeps what an object says of itself,
        on an object of its own name.

        That object is deleted again where that is allowed. Without the right to delete, or under a retention
        policy, it stays: six bytes for each start.
        """
        name = probe_name()
        try:
            self._prove_write(name)
            self._prove_condition(name)
            self._prove_read(name)
            self._prove_list(name)
        finally:
            with suppress(SinkError):
                self._delete(name)

    def create(self, name: str, content: EncodedObject, kind: Format) -> bool:
        def create() -> bool:
            stored = self._put(name, content.parts, kind.content_type, content.manifest)
            if stored is None:
                self._compare(name, content.manifest)
            elif stored.crc32c != _crc32c(content.parts):
                raise ObjectConflict(f"{self.place}{name} was stored with other content than was sent")
            return stored is not None

        return self._connection.call(f"storing {self.place}{name}", create)

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        below = self._settings.prefix
        token: str | None = None

        def page() -> tuple[list[str], str | None]:
            listing = self._connection.client.list_blobs(
                self._bucket,
                prefix=below + prefix,
                start_offset=below + after if after else None,
                page_token=token,
                fields="items(name),nextPageToken",
                timeout=self._settings.timeout,
                retry=None,
            )
            found = [blob.name.removeprefix(below) for blob in next(listing.pages, ())]
            return found, listing.next_page_token

        while True:
            found, token = self._connection.call(f"listing {self.place}{prefix}", page)
            # start_offset includes the name itself
            yield from (name for name in found if name != after)
            if not token:
                return

    def probe(self) -> Iterator[Proof]:
        return proofs(
            ("write", self._prove_write),
            ("conditional write", self._prove_condition),
            ("read", self._prove_read),
            (LIST, self._prove_list),
            ("delete", self._prove_delete),
            names=self.names,
        )

    def close(self) -> None:
        """Close the connections, if there are any."""
        self._connection.close()

    @property
    def _bucket(self) -> Any:
        """Return the bucket, of the client in use. Nothing is sent."""
        settings = self._settings
        return self._connection.client.bucket(settings.bucket, user_project=settings.project or None)

    def _put(self, name: str, parts: Sequence[bytes], content_type: str, manifest: Manifest) -> Any:
        """Store the object; return its blob, or None if there is one of that name already."""
        settings = self._settings
        blob = self._blob(name)
        blob.crc32c = _crc32c(parts)
        blob.metadata = {MANIFEST: manifest_json(manifest).decode(), CHECKSUM: blob.crc32c}
        if settings.storage_class:
            blob.storage_class = settings.storage_class
        if settings.content_encoding:
            blob.content_encoding = settings.content_encoding
        size = sum(map(len, parts))
        resumable = size > settings.chunk_size
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

    def _compare(self, name: str, manifest: Manifest) -> None:
        """Raise ObjectConflict unless the object that is there is ours, complete."""
        target = f"{self.place}{name}"
        found = self._find(name)
        if found is None:
            raise SinkUnavailable(
                f"{target}: was there a moment ago and is not there now; somebody deletes objects, "
                "or a policy forbids new ones"
            )
        metadata = found.metadata or {}
        theirs = parse_manifest(metadata.get(MANIFEST, "").encode())
        if theirs is None:
            raise ObjectConflict(f"{target} is not an object of ours: it does not say what it holds")
        if different := difference(manifest, theirs):
            raise ObjectConflict(f"{target}: {different}")
        if found.crc32c != metadata.get(CHECKSUM):
            raise ObjectConflict(f"{target} was changed: its content has another checksum than it says")

    def _find(self, name: str) -> Any:
        """Return the object with its metadata; None if it is not there."""
        return self._bucket.get_blob(self._settings.prefix + name, timeout=self._settings.timeout, retry=None)

    def _delete(self, name: str) -> None:
        self._connection.call(
            f"deleting {self.place}{name}",
            lambda: self._blob(name).delete(timeout=self._settings.timeout, retry=None),
        )

    def _blob(self, name: str) -> Any:
        settings = self._settings
        return self._bucket.blob(
            settings.prefix + name,
            chunk_size=settings.chunk_size,
            kms_key_name=settings.kms_key_name or None,
        )

    def _probe(self, name: str) -> bool:
        """Store a probe; return False if there is one already."""
        return self._connection.call(
            f"storing {self.place}{name}",
            lambda: self._put(name, _PROBE, "text/plain", PROBE_MANIFEST) is not None,
        )

    def _prove_write(self, name: str) -> str:
        self._probe(name)
        return f"stored {self.place}{name}"

    def _prove_condition(self, name: str) -> str:
        """Try to replace an object. Raises SinkRefused if the store allows it, unless that is accepted."""
        if not self._probe(name):
            return "an object that is there is not replaced"
        if self._settings.at_least_once:
            return "an object that is there is replaced, which at_least_once accepts"
        raise SinkRefused(
            f"{self.place}: the store ignores ifGenerationMatch, so a window that is delivered again would "
            "be stored again; use another store, or accept that with at_least_once = true"
        )

    def _prove_read(self, name: str) -> str:
        """Check that a stored object is recognised by its metadata, and that a missing one counts as
        missing.
        """
        missing = f"{name}-missing"

        def look() -> bool:
            self._compare(name, PROBE_MANIFEST)
            return self._find(missing) is None

        try:
            absent = self._connection.call(f"reading {self.place}{name}", look)
        except ObjectConflict:
            raise SinkRefused(
                f"{self.place}{name} does not keep the metadata or the checksum that it was stored with, so "
                "a window that is delivered again would not be recognised; use another store"
            ) from None
        if not absent:
            raise SinkRefused(f"{self.place}{missing} is said to exist: looking for a name proves nothing")
        return "its metadata is read back as it was written"

    def _prove_list(self, name: str) -> str:
        if name not in self.names(name):
            raise SinkRefused(f"{self.place}: a listing does not show {name}, which was stored before")
        return "a listing shows it"

    def _prove_delete(self, name: str) -> str:
        self._delete(name)
        return "it is deleted; only these tries need that right"


class Pieces:
    """The parts of an object as a file that is read once, from front to back, so that it is never in memory
    twice.
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
    """Return the CRC-32C as Cloud Storage writes it: four bytes, big-endian, in base64."""
    checksum = 0
    for part in parts:
        checksum = google_crc32c.extend(checksum, part)
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()
