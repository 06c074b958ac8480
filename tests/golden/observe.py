"""What a version of the worker makes of given input, as values that JSON can hold.

Each function takes the version's names first and one case's input second; a test calls it with today's names
and compares what it returns with the fixture. Bytes are base64.
"""

import base64
import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.golden.product import Product
from tests.support.small_gcs import SmallGcs
from tests.support.small_server import Reply, Request, SmallServer

Case = Mapping[str, Any]
VERSION_HEADER = "flagstream-version"
NOW = 1_700_000_123.9
"""The time of day when the webhook requests of the fixtures were signed."""
_KEPT = ("contentType", "contentEncoding", "storageClass", "kmsKeyName", "metadata", "crc32c")
_SHOWN_HEADERS = (
    "content-type",
    "content-encoding",
    "content-md5",
    "if-none-match",
    "user-agent",
    "x-api-key",
    "x-hub-signature-256",
)


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as Kafka would give it."""

    at: int
    content: bytes | None
    name: bytes | None
    attached: list[tuple[str, bytes | None]]
    time: int

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return self.name

    def value(self) -> bytes | None:
        return self.content

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self.attached or None

    def timestamp(self) -> tuple[int, int]:
        return (1, self.time)


def text_of(content: bytes | None) -> str | None:
    """Bytes in base64, as fixtures hold them."""
    return None if content is None else base64.b64encode(content).decode()


def bytes_of(text: str | None) -> bytes | None:
    """Return the reverse of `text_of`."""
    return None if text is None else base64.b64decode(text)


def record(fields: Case) -> StoredRecord:
    """Return a record of a fixture."""
    return StoredRecord(
        fields["offset"],
        bytes_of(fields["value"]),
        bytes_of(fields.get("key")),
        [(name, bytes_of(value)) for name, value in fields.get("headers", ())],
        fields.get("timestamp", 1_700_000_000_000),
    )


# ── metadata beside committed offsets ─────────────────────────────────────────────────────────────────────


def metadata_text(product: Product, fields: Case) -> str:
    """The metadata that is committed for these fields."""
    plan = None
    if (planned := fields.get("plan")) is not None:
        plan = product.Plan(
            planned["end"],
            planned["records"],
            planned["digest"],
            planned["config"],
            tuple(planned.get("unknown", ())),
            _division(product, planned.get("division")),
        )
    since = fields.get("since")
    committed = product.Committed(
        plan,
        fields.get("from"),
        fields.get("topic_id", ""),
        None if since is None else product.GroupStart(*since),
    )
    return str(committed.text())


def _division(product: Product, fields: Case | None) -> Any:
    if fields is None:
        return None
    refused = tuple((start, end) for start, end in fields.get("refused", ()))
    return product.Division(fields["at"], tuple(fields.get("cuts", ())), refused, fields.get("why", ""))


def metadata_meaning(product: Product, text: str) -> dict[str, Any]:
    """What is read from metadata, whoever wrote it."""
    try:
        found = product.Committed.parse(text)
    except product.MetadataUnreadable:
        return {"unreadable": True}
    old = hasattr(found, "named_from")  # the version that made the fixtures has other names
    start = found.named_from if old else found.range_start
    began = found.since if old else found.group_start
    meaning: dict[str, Any] = {"ours": found.ours, "topic_id": found.topic_id, "from": start}
    if began is not None:
        meaning["since"] = [began.at, began.partitions]
    if found.plan is not None:
        plan = found.plan
        meaning["plan"] = {
            "end": plan.end,
            "records": plan.records,
            "digest": plan.digest,
            "config": plan.config,
            "unknown": list(plan.unknown),
        }
        if plan.division is not None:
            meaning["plan"]["division"] = {
                "at": plan.division.at,
                "cuts": list(plan.division.cuts),
                "refused": [list(range_) for range_ in plan.division.refused],
                "why": plan.division.why,
            }
    return meaning


# ── manifests and digests ─────────────────────────────────────────────────────────────────────────────────


def manifest(product: Product, fields: Case) -> Any:
    """Return a manifest of these fields."""
    partition = product.Partition(fields["topic"], fields["partition"])
    return product.Manifest(
        product.OffsetRange(partition, fields["start"], fields["end"]),
        fields["records"],
        fields["digest"],
        fields["config"],
        fields.get("topic_id", ""),
        fields.get("path", ""),
    )


def manifest_text(product: Product, fields: Case) -> str:
    """The manifest as it stands in an object."""
    return str(product.manifest_json(manifest(product, fields)).decode("ascii"))


def digest(product: Product, values: Sequence[str | None]) -> str:
    """The content digest of records with these values."""
    made = product.ContentDigest()
    made.update([bytes_of(value) or b"" for value in values])
    return str(made.hexdigest())


# ── dead letters ──────────────────────────────────────────────────────────────────────────────────────────


def dead_letter(product: Product, case: Case) -> dict[str, Any]:
    """The dead letter of a record; the worker's own version in it is replaced by `VERSION`."""
    letter = product.dead_letter(
        product.Partition(case["topic"], case["partition"]),
        record(case["record"]),
        stage=case["stage"],
        reason=case["reason"],
        error=case["error"],
        limit=case["limit"],
    )
    if (smaller := case.get("fit")) is not None:
        letter = product.fit(letter, smaller)
    headers = [
        (name, b"VERSION" if name == VERSION_HEADER and value == product.version.encode() else value)
        for name, value in letter.headers
    ]
    return {
        "key": text_of(letter.key),
        "value": text_of(letter.value),
        "headers": [[name, text_of(value)] for name, value in headers],
        "reason": letter.reason,
        "place": letter.place,
    }


# ── sinks ─────────────────────────────────────────────────────────────────────────────────────────────────


def settings(product: Product, fields: Case) -> Any:
    """Return the settings of a sink."""
    return product.SINKS[fields["type"]].model_validate(dict(fields))


def fingerprint(product: Product, fields: Case) -> str:
    """Return the fingerprint of the sink that these settings describe."""
    return str(product.build(settings(product, fields)).fingerprint)


@dataclass(frozen=True, slots=True)
class _Window:
    manifest: Any
    payload: Any
    rejects: list[list[Any]]


def _fill(product: Product, sink: Any, case: Case, records: Sequence[Case]) -> _Window:
    """What the engine does with a window, in two chunks."""
    partition = product.Partition(case["topic"], case["partition"])
    made = [record(one) for one in records]
    encoder = sink.begin(partition, case["start"])
    content = product.ContentDigest()
    exported, rejected = 0, []
    middle = len(made) // 2
    for first, chunk in ((0, made[:middle]), (middle, made[middle:])):
        values = [one.content or b"" for one in chunk]
        rejects = {reject.index: reject for reject in encoder.add(values, chunk)}
        kept = [value for index, value in enumerate(values) if index not in rejects]
        content.update(kept)
        exported += len(kept)
        rejected += [[first + index, reject.reason] for index, reject in sorted(rejects.items())]
    range_ = product.OffsetRange(partition, case["start"], made[-1].at + 1)
    said = product.Manifest(range_, exported, content.hexdigest(), sink.fingerprint, case.get("topic_id", ""))
    return _Window(said, encoder.finish(said), rejected)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A new working folder: the path of a file sink is part of its fingerprint, so it has to be relative."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def files(product: Product, case: Case, records: Sequence[Case]) -> dict[str, Any]:
    """The files of a window, by their names below the sink's folder."""
    with _folder() as folder:
        sink = product.build(settings(product, case["settings"]))
        sink.open()
        window = _fill(product, sink, case, records)
        sink.deliver(window.manifest, window.payload)
        sink.close()
        root = folder / case["settings"]["path"]
        found = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
        return {
            "fingerprint": sink.fingerprint,
            "rejects": window.rejects,
            "objects": {name: text_of(found[name].read_bytes()) for name in sorted(found)},
        }


def found_again(
    product: Product, case: Case, records: Sequence[Case], stored: Mapping[str, str]
) -> dict[str, Any]:
    """What a version finds of the files that another one has stored, and what it does when it delivers the
    same window again.
    """
    with _folder() as folder:
        sink = product.build(settings(product, case["settings"]))
        sink.open()
        for name, content in stored.items():
            path = folder / case["settings"]["path"] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes_of(content) or b"")
        window = _fill(product, sink, case, records)
        held = sink.holdings(window.manifest.range.partition, case["start"])
        delivery = sink.deliver(window.manifest, window.payload)
        sink.close()
        return {
            "held": [[type(range_) is product.OffsetRange, range_.start, range_.end] for range_ in held],
            "created": delivery.created,
            "existing": delivery.existing,
        }


def _delivered(
    product: Product, case: Case, records: Sequence[Case], named: Any, reached: Case
) -> dict[str, Any]:
    """Deliver a window to the sink with the settings ``reached``, with the fingerprint of ``named``.
    Return what both say of it.
    """
    sink = product.build(settings(product, reached))
    sink.fingerprint = named.fingerprint
    window = _fill(product, sink, case, records)
    sink.deliver(window.manifest, window.payload)
    names = list(named.preview(window.manifest, window.payload).names)
    sink.close()
    named.close()
    return {"fingerprint": named.fingerprint, "rejects": window.rejects, "names": names}


def s3_requests(product: Product, case: Case, records: Sequence[Case]) -> dict[str, Any]:
    """The requests that store a window in S3, and the names that `render` shows of it."""
    with SmallServer(lambda request: Reply(headers={"ETag": '"1"'})) as server:
        # The fingerprint has the store's address in it, so the settings name a store that never answers.
        named = product.build(settings(product, case["settings"]))
        reached = {**case["settings"], "endpoint": server.url}
        return {
            **_delivered(product, case, records, named, reached),
            "requests": sorted((_request(seen) for seen in server.seen), key=lambda one: str(one["path"])),
        }


def gcs_objects(product: Product, case: Case, records: Sequence[Case]) -> dict[str, Any]:
    """What a server of Cloud Storage keeps of a window, and the names that `render` shows of it."""
    bucket = case["settings"]["bucket"]
    with SmallGcs() as server:
        server.create_bucket(bucket)
        named = product.build(settings(product, case["settings"]))
        reached = {**case["settings"], "endpoint": server.url, "anonymous": True}
        return {
            **_delivered(product, case, records, named, reached),
            "objects": {
                name: {
                    **{key: value for key, value in server.resource(bucket, name).items() if key in _KEPT},
                    "content": text_of(server.content(bucket, name)),
                }
                for name in server.names(bucket)
            },
            "conditions": sorted({seen.query.get("ifGenerationMatch", "none") for seen in server.seen}),
        }


def webhook_requests(product: Product, case: Case, records: Sequence[Case]) -> dict[str, Any]:
    """The requests of a window: ids, signatures, bodies; and how its parts are divided down to the event."""
    with SmallServer(lambda request: Reply(status=204)) as server:
        url = urlsplit(case["settings"]["endpoint_url"])
        reached = {
            **case["settings"],
            "endpoint_url": f"{server.url}{url.path}",
            "allow_private_addresses": True,
        }
        sink = product.WebhookSink(settings(product, reached), now=lambda: NOW)
        window = _fill(product, sink, case, records)
        for part in sink.parts(window.payload):
            sink.send(window.manifest, part)
        halves = [
            [str(half.range), half.count]
            for part in sink.parts(window.payload)
            if part.count > 1
            for half in part.split(part.middle)
        ]
        sink.close()
        return {
            "fingerprint": sink.fingerprint,
            "rejects": window.rejects,
            "requests": [_request(seen) for seen in server.seen],
            "halves": halves,
        }


def log_lines(product: Product, case: Case, records: Sequence[Case]) -> dict[str, Any]:
    """Return the lines of a window."""
    with tempfile.TemporaryFile() as output:
        sink = product.LogSink(settings(product, case["settings"]), output.fileno())
        window = _fill(product, sink, case, records)
        sink.deliver(window.manifest, window.payload)
        output.seek(0)
        return {
            "fingerprint": sink.fingerprint,
            "rejects": window.rejects,
            "lines": output.read().decode().splitlines(keepends=True),
        }


class _Transaction:
    def __init__(self) -> None:
        self.produced: list[dict[str, Any]] = []

    def produce(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Any) -> None:
        self.produced.append(
            {"topic": topic, "key": text_of(key), "value": text_of(value), "headers": list(headers)}
        )


def topic_records(product: Product, case: Case, records: Sequence[Case]) -> dict[str, Any]:
    """The records of a window in another topic of the worker's own cluster."""
    sink = product.build(settings(product, case["settings"]))
    sink.limit = case.get("limit", sink.limit)
    window = _fill(product, sink, case, records)
    transaction = _Transaction()
    sink.deliver_in(transaction, window.manifest, window.payload)
    return {"fingerprint": sink.fingerprint, "rejects": window.rejects, "records": transaction.produced}


SINKS = {
    "file": files,
    "s3": s3_requests,
    "gcs": gcs_objects,
    "webhook": webhook_requests,
    "log": log_lines,
    "kafka": topic_records,
}
"""How a window of each sink is observed."""


def _request(seen: Request) -> dict[str, Any]:
    headers = {
        name: value
        for name, value in seen.headers.items()
        if name in _SHOWN_HEADERS or name.startswith(("x-amz-meta-", "webhook-")) or name in _AMAZON
    }
    if not headers.get("user-agent", "").startswith("flagstream"):
        headers.pop("user-agent", None)  # a library's, with its versions
    target = urlsplit(seen.target)
    return {
        "method": seen.method,
        "path": target.path,
        "query": dict(parse_qsl(target.query, keep_blank_values=True)),
        "headers": dict(sorted(headers.items())),
        "body": text_of(seen.body),
    }


_AMAZON = (
    "x-amz-acl",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-storage-class",
    "x-amz-tagging",
)


def write(path: Path, content: Any) -> None:
    """Write a fixture, the same text for the same content."""
    path.write_text(json.dumps(content, indent=1) + "\n")
