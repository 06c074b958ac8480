"""A Google Cloud Storage of one process in memory, as much of its JSON API as the worker speaks, in Python.

It honours `ifGenerationMatch` on simple and resumable uploads, also in races, and refuses content with
another CRC-32C than was announced. `make test-more` runs the same tests on fake-gcs-server, which somebody
else wrote.
"""

import base64
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import google_crc32c

from tests.support.small_server import Reply, Request, SmallServer

PAGE = 1_000
_KEPT = ("contentType", "contentEncoding", "storageClass", "metadata")


@dataclass(slots=True)
class _Object:
    content: bytes
    resource: dict[str, Any]


@dataclass(slots=True)
class _Upload:
    bucket: str
    resource: dict[str, Any]
    query: Mapping[str, str]
    content: bytearray = field(default_factory=bytearray)


class SmallGcs:
    """Runs a server at `url` with no buckets and no credentials. A context manager; leaving it forgets
    all."""

    def __init__(self) -> None:
        self._server = SmallServer(self._answer)
        self.url = self._server.url
        self._buckets: dict[str, dict[str, _Object]] = {}
        self._uploads: dict[str, _Upload] = {}
        self._numbers = count(1)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, trace)

    @property
    def seen(self) -> list[Request]:
        """All requests so far."""
        return self._server.seen

    def create_bucket(self, name: str) -> str:
        """A new bucket; returns its name."""
        self._buckets[name] = {}
        return name

    def put(
        self, bucket: str, name: str, content: bytes = b"", metadata: dict[str, str] | None = None
    ) -> None:
        """Store an object past all conditions, as somebody else would."""
        with self._lock:
            self._store(bucket, {"name": name, "metadata": metadata or {}}, content)

    def delete(self, bucket: str, name: str) -> None:
        """Remove an object."""
        with self._lock:
            del self._buckets[bucket][name]

    def names(self, bucket: str) -> list[str]:
        """Names of all objects, sorted."""
        return sorted(self._buckets[bucket])

    def resource(self, bucket: str, name: str) -> dict[str, Any]:
        """What the server says of an object."""
        return dict(self._buckets[bucket][name].resource)

    def content(self, bucket: str, name: str) -> bytes:
        """Return an object's bytes as stored."""
        return self._buckets[bucket][name].content

    def _answer(self, request: Request) -> Reply:
        path = request.path
        for front in ("/upload", "/download"):
            path = path.removeprefix(front)
        parts = path.removeprefix("/storage/v1/b/").split("/", 2)
        bucket, name = parts[0], unquote(parts[2]) if len(parts) > 2 else None
        with self._lock:
            if bucket not in self._buckets:
                return _error(404, "notFound")
            if request.path.startswith("/upload"):
                return self._upload(bucket, request)
            if name is None:
                return self._listing(bucket, request)
            return self._one(bucket, name, request)

    def _one(self, bucket: str, name: str, request: Request) -> Reply:
        found = self._buckets[bucket].get(name)
        if found is None:
            return _error(404, "notFound")
        if request.method == "DELETE":
            del self._buckets[bucket][name]
            return Reply(204)
        wanted = request.query.get("ifGenerationMatch", found.resource["generation"])
        if wanted != found.resource["generation"]:
            return _error(412, "conditionNotMet")
        if request.query.get("alt") == "media":
            said = found.resource
            headers = {"X-Goog-Hash": f"crc32c={said['crc32c']}", "X-Goog-Generation": said["generation"]}
            return Reply(body=found.content, headers=headers)
        return _json(found.resource)

    def _listing(self, bucket: str, request: Request) -> Reply:
        query = request.query
        start = max(query.get("startOffset", ""), query.get("pageToken", ""))
        names = [
            name
            for name in sorted(self._buckets[bucket])
            if name.startswith(query.get("prefix", "")) and name >= start
        ]
        page = int(query.get("maxResults", PAGE))
        answer: dict[str, Any] = {"items": [{"name": name} for name in names[:page]]}
        if len(names) > page:
            answer["nextPageToken"] = names[page]
        return _json(answer)

    def _upload(self, bucket: str, request: Request) -> Reply:
        query = request.query
        if request.method == "PUT":
            return self._piece(query["upload_id"], request)
        if query["uploadType"] == "multipart":
            boundary = b"--" + request.headers["content-type"].partition("boundary=")[2].strip('"').encode()
            _, head, content, _ = request.body.split(boundary)
            resource = json.loads(head.partition(b"\r\n\r\n")[2])
            head, _, body = content.partition(b"\r\n\r\n")
            resource.setdefault("contentType", _header(head, "content-type"))
            return self._finish(bucket, resource, query, body.removesuffix(b"\r\n"))
        resource = json.loads(request.body)
        resource.setdefault("contentType", request.headers.get("x-upload-content-type", ""))
        number = str(next(self._numbers))
        self._uploads[number] = _Upload(bucket, resource, query)
        where = f"{self.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={number}"
        return Reply(headers={"Location": where})

    def _piece(self, number: str, request: Request) -> Reply:
        upload = self._uploads.get(number)
        if upload is None:
            return _error(404, "notFound")
        span, _, total = request.headers["content-range"].removeprefix("bytes ").partition("/")
        if span != "*":
            first = int(span.partition("-")[0])
            if first != len(upload.content):
                return _error(400, "invalid")
            upload.content += request.body
        if total == "*" or int(total) > len(upload.content):
            taken = {"Range": f"bytes=0-{len(upload.content) - 1}"} if upload.content else {}
            return Reply(308, headers=taken)
        del self._uploads[number]
        return self._finish(upload.bucket, upload.resource, upload.query, bytes(upload.content))

    def _finish(
        self, bucket: str, resource: dict[str, Any], query: Mapping[str, str], content: bytes
    ) -> Reply:
        if query.get("ifGenerationMatch") == "0" and resource["name"] in self._buckets[bucket]:
            return _error(412, "conditionNotMet")
        if resource.get("crc32c", _crc32c(content)) != _crc32c(content):
            return _error(400, "invalid")
        return _json(self._store(bucket, resource, content))

    def _store(self, bucket: str, resource: dict[str, Any], content: bytes) -> dict[str, Any]:
        kept = {key: resource[key] for key in _KEPT if resource.get(key)}
        made = {
            "kind": "storage#object",
            "bucket": bucket,
            "name": resource["name"],
            "generation": str(next(self._numbers)),
            "size": str(len(content)),
            "crc32c": _crc32c(content),
            "storageClass": "STANDARD",
            **kept,
        }
        self._buckets[bucket][resource["name"]] = _Object(content, made)
        return made


def _header(head: bytes, name: str) -> str:
    for line in head.decode().splitlines():
        key, _, value = line.partition(":")
        if key.lower() == name:
            return value.strip()
    return ""


def _crc32c(content: bytes) -> str:
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def _json(answer: dict[str, Any]) -> Reply:
    return Reply(body=json.dumps(answer).encode(), headers={"Content-Type": "application/json"})


def _error(status: int, reason: str) -> Reply:
    error = {"code": status, "message": reason, "errors": [{"reason": reason}]}
    return Reply(status, json.dumps({"error": error}).encode(), {"Content-Type": "application/json"})
