"""Stores windows as objects in S3, created and never replaced. Exactly once.

Every object is written with ``If-None-Match: *``, also when it is put together from parts: the write succeeds
only when no object of that name exists, so of several writers one wins. All others get 412, or 409 while the
winner is still writing, and then the object's metadata decides. A write whose answer was lost also gets that
412 when it is sent again, and finds its own object.

Parts that were uploaded and never put together are invisible, but paid for. They are dropped when an upload
fails; and when an object is there, whoever wrote it, all other uploads under its name are dropped too, for
they can never be completed. So what a killed worker leaves is gone once its window has been delivered again.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit

from botocore.exceptions import ClientError

from flagstream.errors import FlagstreamError, ObjectConflict, SinkRefused, SinkUnavailable
from flagstream.formats.manifest import difference, manifest_json, parse_manifest
from flagstream.formats.protocol import EncodedObject, Format
from flagstream.outcomes import Proof
from flagstream.sinks.objects.probing import LIST, probe_name, proofs
from flagstream.sinks.objects.probing import MANIFEST as PROBE_MANIFEST
from flagstream.sinks.objects.s3.client import S3Client
from flagstream.sinks.objects.s3.failures import code, status
from flagstream.sinks.objects.s3.settings import S3Settings
from flagstream.window import Manifest

MANIFEST = "flagstream"
"""Key of an object's metadata (``x-amz-meta-flagstream``) that holds its manifest."""

LARGEST_PUT = 5 * 1024**3
"""Most bytes that S3 takes in one request (Amazon S3 quotas)."""

_PROBE = b"probe\n"
_TAKEN_CODES = {"ConditionalRequestConflict", "PreconditionFailed"}
_NOT_UNDERSTOOD = {400, 501}
"""Statuses of stores that have no conditions on writes and say so."""


class S3Store:
    """Implements :class:`~flagstream.sinks.objects.ObjectStore`. One client serves all threads."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        host = urlsplit(settings.endpoint).netloc
        # The same bucket's name at another store is another place.
        self.place = f"s3://{host}{'/' if host else ''}{settings.bucket}/{settings.prefix}"
        self._connection = S3Client(settings.access(), self.place)
        # open() finds out what the store honours.
        self._create_only = True
        self._largest_put = settings.part_size

    def open(self) -> None:
        """Try the create-only condition, on single writes and on writes in parts, a listing, and whether the
        store keeps an object's metadata. All this is done with an object of its own name.

        That object is deleted at the end if that is allowed. Without the right to delete it stays: six bytes
        for each start.
        """
        name = probe_name()
        try:
            self._prove_write(name)
            self._learn_conditions(name)
            self._prove_list(name)
            self._prove_looking(name)
        finally:
            with suppress(FlagstreamError):
                self._delete(name)

    def create(self, name: str, content: EncodedObject, kind: Format) -> bool:
        return self._connection.call(
            f"storing {self.place}{name}", partial(self._create, name=name, content=content, kind=kind)
        )

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        below = self._settings.prefix
        request = {"Bucket": self._settings.bucket, "Prefix": below + prefix}
        if after:
            request["StartAfter"] = below + after
        while True:
            page = self._connection.call(
                f"listing {self.place}{prefix}", lambda: self._client.list_objects_v2(**request)
            )
            for found in page.get("Contents", ()):
                yield found["Key"].removeprefix(below)
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def probe(self) -> Iterator[Proof]:
        return proofs(
            ("write", self._prove_write),
            ("conditional write", self._prove_condition),
            ("write in parts", self._prove_parts),
            ("read", self._prove_read),
            (LIST, self._prove_list),
            ("delete", self._delete),
            names=self.names,
        )

    def close(self) -> None:
        self._connection.close()

    @property
    def _client(self) -> Any:
        return self._connection.api

    # writing

    def _attributes(self, content_type: str, manifest: Manifest) -> dict[str, Any]:
        """Return the attributes that every object gets besides its content."""
        settings = self._settings
        attributes = {
            "ContentType": settings.content_type or content_type,
            "ContentEncoding": settings.content_encoding,
            "ServerSideEncryption": settings.encryption,
            "SSEKMSKeyId": settings.kms_key_id,
            "StorageClass": settings.storage_class,
            "ACL": settings.acl,
            "Tagging": urlencode(settings.tags),
            "Metadata": {MANIFEST: manifest_json(manifest).decode()},
        }
        return {key: value for key, value in attributes.items() if value}

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._settings.bucket, "Key": self._settings.prefix + name}

    def _create(self, name: str, content: EncodedObject, kind: Format) -> bool:
        extra = self._attributes(kind.content_type, content.manifest)
        if not self._create_only and self._holds(name, content.manifest):
            return False
        if content.size <= self._largest_put:
            stored = self._put(name, b"".join(content.parts), extra)
        else:
            stored = self._put_in_parts(name, content.parts, extra)
            self._drop_uploads(name)
        if stored or self._holds(name, content.manifest):
            return stored
        raise SinkUnavailable(f"{self.place}{name}: another writer holds it and has not finished")

    def _condition(self) -> dict[str, str]:
        return {"IfNoneMatch": "*"} if self._create_only else {}

    def _put(self, name: str, body: bytes, extra: dict[str, Any]) -> bool:
        """Store the object; return False if another one is there, or is just being written."""
        try:
            self._client.put_object(
                **self._at(name), **extra, **self._condition(), Body=body, ContentMD5=_md5(body)
            )
        except ClientError as error:
            if _taken(error):
                return False
            raise
        return True

    def _put_in_parts(self, name: str, parts: Sequence[bytes], extra: dict[str, Any]) -> bool:
        """Store the object in parts, with the same result as :meth:`_put`. An upload that fails is
        dropped.
        """
        at = self._at(name)
        upload = {**at, "UploadId": self._client.create_multipart_upload(**at, **extra)["UploadId"]}
        try:
            done = []
            for number, body in enumerate(cut(parts, self._settings.part_size), 1):
                part = {**upload, "PartNumber": number}
                answer = self._client.upload_part(**part, Body=body, ContentMD5=_md5(body))
                done.append({"PartNumber": number, "ETag": answer["ETag"]})
            self._client.complete_multipart_upload(
                **upload, **self._condition(), MultipartUpload={"Parts": done}
            )
        except BaseException as error:
            self._drop(upload)
            # Somebody who found the object complete has dropped this upload.
            if isinstance(error, ClientError) and (_taken(error) or code(error) == "NoSuchUpload"):
                return False
            raise
        return True

    def _drop(self, upload: dict[str, str]) -> None:
        # If it cannot be dropped now, it is dropped when the object is there, or by the bucket's own rule.
        with suppress(Exception):
            self._client.abort_multipart_upload(**upload)

    def _drop_uploads(self, name: str) -> None:
        """Drop all unfinished uploads of an object that is there."""
        at = self._at(name)
        with suppress(Exception):
            listing = self._client.list_multipart_uploads(Bucket=at["Bucket"], Prefix=at["Key"])
            for found in listing.get("Uploads", ()):
                if found["Key"] == at["Key"]:
                    self._drop({**at, "UploadId": found["UploadId"]})

    def _holds(self, name: str, manifest: Manifest) -> bool:
        """Return whether the object is there. Raises ObjectConflict if it is another one."""
        try:
            answer = self._client.head_object(**self._at(name))
        except ClientError as error:
            if status(error) == 404:
                return False
            raise
        metadata = {key.lower(): value for key, value in answer.get("Metadata", {}).items()}
        found = parse_manifest(metadata.get(MANIFEST, "").encode())
        if found is None:
            raise ObjectConflict(f"{self.place}{name} is not of ours: it does not say what it holds")
        if different := difference(manifest, found):
            raise ObjectConflict(f"{self.place}{name}: {different}")
        return True

    # proving

    def _learn_conditions(self, name: str) -> None:
        """Find out, on the existing ``name``, which writes are create-only. Raises SinkRefused if none is,
        unless that is accepted.
        """
        try:
            self._prove_condition(name)
        except SinkRefused:
            if not self._settings.at_least_once:
                raise
            self._create_only = False
            return
        try:
            self._prove_parts(name)
        except SinkRefused:
            # Single requests are create-only here, and large enough for any window.
            self._largest_put = LARGEST_PUT

    def _prove_write(self, name: str) -> str:
        def write() -> bool:
            attributes = self._attributes("text/plain", PROBE_MANIFEST)
            try:
                return self._put(name, _PROBE, attributes)
            except ClientError as error:
                if status(error) not in _NOT_UNDERSTOOD or not self._settings.at_least_once:
                    raise
                self._create_only = False
                return self._put(name, _PROBE, attributes)

        if not self._connection.call(f"writing {self.place}{name}", write):
            raise SinkUnavailable(f"{self.place}{name} is said to be taken, and nobody else uses that name")
        return f"wrote {self.place}{name}"

    def _prove_condition(self, name: str) -> str:
        attributes = self._attributes("text/plain", PROBE_MANIFEST)
        replaced = self._connection.call(
            f"writing {self.place}{name} a second time",
            lambda: self._put(name, _PROBE, attributes),
        )
        if replaced:
            raise SinkRefused(
                f"{self.place} does not honour If-None-Match on writes, so nothing keeps two workers from "
                "storing the same events twice; set at_least_once = true to accept that"
            )
        return "an object that is there is not replaced"

    def _prove_parts(self, name: str) -> str:
        attributes = self._attributes("text/plain", PROBE_MANIFEST)
        replaced = self._connection.call(
            f"writing {self.place}{name} in parts",
            lambda: self._put_in_parts(name, [_PROBE], attributes),
        )
        if replaced:
            raise SinkRefused(f"{self.place} does not honour If-None-Match on writes in parts")
        return "an object that is there is not replaced by one in parts; the parts were dropped"

    def _prove_looking(self, name: str) -> None:
        """Check that a stored object is recognised by its metadata, and that a missing one counts as
        missing.
        """
        missing = f"{name}-missing"

        def look() -> tuple[bool, bool]:
            return self._holds(name, PROBE_MANIFEST), self._holds(missing, PROBE_MANIFEST)

        try:
            there, also = self._connection.call(f"looking for {self.place}{name}", look)
        except ObjectConflict:
            raise SinkRefused(
                f"{self.place}{name} does not keep the metadata that it was stored with, so a window that is "
                "delivered again would not be recognised; use a store that keeps x-amz-meta-flagstream"
            ) from None
        if not there or also:
            found = "is not found although it was written" if not there else "is said to exist"
            raise SinkRefused(f"{self.place}{name if not there else missing} {found}: looking proves nothing")

    def _prove_read(self, name: str) -> str:
        self._prove_looking(name)

        def read() -> bytes:
            with self._client.get_object(**self._at(name))["Body"] as body:
                return bytes(body.read(len(_PROBE) + 1))

        content = self._connection.call(f"reading {self.place}{name}", read)
        if content != _PROBE:
            raise SinkRefused(f"{self.place}{name} does not hold what was written")
        return "an object is read back as it was written, with its metadata"

    def _prove_list(self, name: str) -> str:
        # A store that changes names, such as one that drops a leading slash, would not find its own ranges.
        if name not in self.names(name):
            raise SinkRefused(f"{self.place}{name} was written, but a listing does not show that name")
        return "a listing shows what was written"

    def _delete(self, name: str) -> str:
        self._connection.call(
            f"deleting {self.place}{name}", lambda: self._client.delete_object(**self._at(name))
        )
        return f"deleted {self.place}{name}"


def cut(parts: Sequence[bytes], size: int) -> Iterator[bytes]:
    """Yield the bytes of ``parts`` in pieces of exactly ``size``, except the last one."""
    piece = bytearray()
    for part in parts:
        rest = memoryview(part)
        while rest:
            taken = rest[: size - len(piece)]
            piece += taken
            rest = rest[len(taken) :]
            if len(piece) == size:
                yield bytes(piece)
                piece.clear()
    if piece:
        yield bytes(piece)


def _taken(error: ClientError) -> bool:
    """Return whether the answer to a conditional write says that an object is there (412) or being written
    (409).

    The code counts too: a store can answer 200 to the completion of parts, with an error in the body.
    """
    return status(error) in (409, 412) or code(error) in _TAKEN_CODES


def _md5(body: bytes) -> str:
    # The store checks it on arrival, against damage on the way; it has nothing to do with security.
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
