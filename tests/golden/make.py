"""Make the golden fixtures with the old version: `.venv/bin/python -m tests.golden.make`.

The inputs are here; what the old version makes of them is written beside them into `data/*.json`. The old
version is installed from this clone's history, with its own constraints, into an environment of its own, and
this module is run again by that environment's interpreter.
"""

import importlib
import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from tests.golden import observe
from tests.golden.observe import text_of
from tests.golden.product import Product

DATA = Path(__file__).with_name("data")
REPOSITORY = Path(__file__).resolve().parents[2]
_OLD_NAMES = {
    "version": "worker:__version__",
    "Partition": "worker.chunk:Partition",
    "OffsetRange": "worker.window:Range",
    "Manifest": "worker.window:Manifest",
    "ContentDigest": "worker.window:ContentDigest",
    "manifest_json": "worker.formats.manifest:manifest_json",
    "parse_manifest": "worker.formats.manifest:parse_manifest",
    "Committed": "worker.kafka.offsets:Committed",
    "Plan": "worker.kafka.offsets:Plan",
    "Division": "worker.kafka.offsets:Division",
    "GroupStart": "worker.kafka.offsets:Since",
    "MetadataUnreadable": "worker.kafka.offsets:MetadataUnreadable",
    "dead_letter": "worker.dead_letters:dead_letter",
    "fit": "worker.dead_letters:fit",
    "SINKS": "worker.sinks.registry:SINKS",
    "build": "worker.sinks.registry:build",
    "LogSink": "worker.sinks.log:LogSink",
    "WebhookSink": "worker.sinks.webhook:WebhookSink",
}

TOPIC_ID = "bC8oYzKfQ2mS0w3v1xJtLg"
DIGEST = "5f1d" * 16
CONFIG = "0123456789abcdef"
LARGEST = 2**63 - 1


# ── metadata ──────────────────────────────────────────────────────────────────────────────────────────────


def metadata() -> list[dict[str, Any]]:
    """What can stand beside a committed offset."""
    plan = {"end": 1_250, "records": 1_000, "digest": DIGEST, "config": CONFIG}
    largest = {"end": LARGEST, "records": 100_000_000, "digest": "f" * 64, "config": "f" * 16}
    divisions: list[dict[str, Any]] = [
        {"at": 100},
        {"at": 0, "cuts": [1]},
        {"at": 100, "cuts": [101, 136, 137, 1_200], "why": "413"},
        {"at": 600, "cuts": [700], "refused": [[100, 101]], "why": "400"},
        {"at": 600, "refused": [[100, 101], [101, 105], [300, 336], [599, 600]], "why": "422"},
        {"at": 1_250, "refused": [[0, 1_250]], "why": "403"},
        {"at": LARGEST - 3, "cuts": [LARGEST - 2, LARGEST - 1], "refused": [[0, LARGEST - 3]], "why": "400"},
        {"at": 40, "cuts": [80], "why": 'a "quoted" wörd'},
    ]
    return [
        {},
        {"topic_id": TOPIC_ID},
        {"from": 0},
        {"from": 90, "topic_id": TOPIC_ID},
        {"since": [1_700_000_000_123, 6]},
        {"since": [1_700_000_000_123, 0]},
        {"from": 12, "since": [1_700_000_000_123, 6], "topic_id": TOPIC_ID},
        {"plan": plan},
        {"plan": plan, "topic_id": TOPIC_ID},
        {"plan": plan, "from": 7},
        {"plan": plan, "from": 0, "topic_id": TOPIC_ID},
        {"plan": plan, "since": [1_700_000_000_123, 6], "topic_id": TOPIC_ID},
        {"plan": plan, "from": 7, "since": [1_700_000_000_123, 12], "topic_id": TOPIC_ID},
        {"plan": {**plan, "unknown": [7]}},
        {"plan": {**plan, "unknown": [1, 7, 2**31 - 1]}, "topic_id": TOPIC_ID},
        {"plan": {**plan, "unknown": list(range(2**31 - 100, 2**31))}, "from": 3, "topic_id": TOPIC_ID},
        {"plan": {"end": 1, "records": 1, "digest": "", "config": ""}},
        {"plan": largest, "from": LARGEST - 1, "since": [LARGEST, 2**31 - 1], "topic_id": TOPIC_ID},
        *({"plan": {**plan, "division": division}} for division in divisions),
        *(
            {
                "plan": {**plan, "unknown": [3, 9], "division": division},
                "from": 5,
                "since": [1_700_000_000_123, 6],
                "topic_id": TOPIC_ID,
            }
            for division in divisions
        ),
        {"plan": {**plan, "division": {"at": 2_000, "refused": [[n, n + 1] for n in range(0, 2_000, 2)]}}},
        {"plan": {**plan, "division": {"at": 0, "cuts": list(range(1, 91))}}},
    ]


TEXTS = (
    "",
    "{}",
    "null",
    "[]",
    "free text of an operator",
    '{"v":0}',
    '{"v":1}',
    ' {"v":1} ',
    '{"v":"1"}',
    '{"end":10}',
    '{"v":0,"end":10,"n":10}',
    '{"v":1,"end":10}',
    '{"v":1,"end":"10"}',
    '{"v":1,"end":10,"n":9,"digest":"aa","cfg":"bb"}',
    '{"v":1,"from":null,"end":10,"n":9,"digest":"aa","cfg":"bb","later":{"x":[1]}}',
    '{"v":1,"since":5}',
    '{"v":1,"since":5,"of":2}',
    '{"v":1,"of":2}',
    '{"v":1,"unknown":[1,2]}',
    '{"v":1,"end":10,"n":9,"digest":"aa","cfg":"bb","unknown":[1,2],"tid":"t"}',
    '{"v":2}',
    '{"v":2,"end":10,"n":9,"digest":"aa","cfg":"bb"}',
    '{"v":2,"end":10,"n":9,"digest":"aa","cfg":"bb","at":4}',
    '{"v":2,"end":10,"n":9,"digest":"aa","cfg":"bb","at":4,"cuts":"1.1","out":"1.1.1.1","why":"413"}',
    '{"v":2,"end":10,"n":9,"digest":"aa","cfg":"bb","at":4,"cuts":"1.","out":""}',
    '{"v":2,"end":10,"n":9,"digest":"aa","cfg":"bb","at":4,"cuts":"_"}',
    '{"v":2,"end":10,"n":9,"digest":"aa","cfg":"bb","at":4,"out":"1"}',
    '{"v":2,"end":10,"n":9,"digest":"aa","cfg":"bb","cuts":"1"}',
    '{"v":2,"at":4}',
    '{"v":3}',
    '{"v":3,"end":10}',
    '{"v":99,"anything":true}',
)
"""What a reader may find beside an offset: from an operator, from others, from older or newer versions."""


# ── records ───────────────────────────────────────────────────────────────────────────────────────────────


def events() -> list[dict[str, Any]]:
    """Enriched events whose values try names, formats and templates; offsets have gaps."""
    base = {
        "kind": "feature",
        "contextKind": "user",
        "userKey": "user-1",
        "creationDate": 1_700_000_000,
        "key": "new-checkout",
        "variation": "on",
        "value": True,
        "default": False,
        "version": "1.4",
        "source": "SERVER",
    }
    variants: list[dict[str, Any]] = [
        {},
        {"userKey": "user-2", "value": "text", "metadata": {"region": "eu", "n": 3}},
        {"contextKind": "anonymousUser", "variation": "", "version": "", "creationDate": 1_700_003_600},
        {"userKey": "ünï/cödé=#%", "key": "a/b=c", "value": {"nested": [1, 2.5, None, "x"]}},
        {"userKey": "..", "key": ".hidden", "value": 12345678901234567890, "default": True},
        {"userKey": "emoji 🎈", "key": "k" * 130, "value": 0.1, "metadata": {"region": "a:b?c"}},
        {"value": None, "variation": "SdkDefault", "default": True, "creationDate": 1_699_999_999},
        {"key": "long", "value": "line\nbreak, \"quotes\" and 'commas'", "metadata": {}},
        {"userKey": "user-2", "value": [], "creationDate": 1_731_000_000, "source": "PROVIDER_CACHE"},
        {"key": "<html>&\u2028", "value": "<b>&amp;</b>", "metadata": {"deep": {"er": [1, {"x": 2}]}}},
    ]
    tracking = {
        "kind": "tracking",
        "contextKind": "user",
        "userKey": "user-3",
        "creationDate": 1_700_000_200,
        "key": "purchase",
        "evaluationContext": {"targetingKey": "user-3", "plan": "pro"},
        "trackingEventDetails": {"value": 9.5, "currency": "EUR"},
    }
    own_id = {**base, "id": "its-own"}
    offsets = iter([100, 101, 103, 104, 105, 109, 110, 111, 112, 120, 121, 125])
    return [
        {"offset": offset, "value": text_of(_compact(one)), "key": text_of(b"key")}
        for offset, one in zip(
            offsets, [*({**base, **variant} for variant in variants), tracking, own_id], strict=True
        )
    ]


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def odd_records() -> list[dict[str, Any]]:
    """Values among which formats and sinks reject some."""
    good = events()
    values = (
        b'{"kind":"feature"}',
        b'{"kind":"feature","userKey":7}',
        b'{"kind":"feature","userKey":"u","creationDate":"x"}',
        b'{"userKey":"u","key":"' + b"x" * 3_000 + b'","creationDate":1700000000}',
    )
    odd = [{"offset": 200 + at, "value": text_of(value)} for at, value in enumerate(values)]
    return [good[0], *odd, {**good[1], "offset": 210}]


# ── digests, manifests, dead letters ──────────────────────────────────────────────────────────────────────


def digests() -> list[list[str | None]]:
    """Lists of values."""
    return [
        [],
        [text_of(b"")],
        [text_of(b""), text_of(b"")],
        [text_of(b"a"), text_of(b"bc")],
        [text_of(b"ab"), text_of(b"c")],
        [text_of(bytes(range(256)) * 20)],
        [one["value"] for one in events()],
    ]


def manifests() -> list[dict[str, Any]]:
    """Fields of manifests."""
    base = {
        "topic": "evaluations",
        "partition": 3,
        "start": 97,
        "end": 126,
        "records": 12,
        "digest": DIGEST,
        "config": CONFIG,
    }
    return [
        base,
        {**base, "topic_id": TOPIC_ID},
        {**base, "path": "2023-11-14/key=a%2Fb"},
        {**base, "path": "ключ=значение/🎈", "topic_id": TOPIC_ID},
        {**base, "path": "_index/0123456789abcdef"},
        {**base, "topic": "a.b_c-d" * 35, "partition": 2**31 - 1, "start": LARGEST - 1, "end": LARGEST},
        {**base, "start": 0, "end": 1, "records": 1, "config": ""},
    ]


def dead_letters() -> list[dict[str, Any]]:
    """Records that become dead letters."""
    base = {
        "topic": "ingest",
        "partition": 2,
        "stage": "enrich",
        "reason": "invalid_json",
        "limit": 1_000_000,
    }
    plain = {
        "offset": 41,
        "value": text_of(b"not json"),
        "key": text_of(b"k"),
        "headers": [["trace", text_of(b"1")], ["trace", text_of(b"2")], ["empty", None]],
        "timestamp": 1_700_000_000_123,
    }
    huge = {**plain, "value": text_of(b"x" * 5_000)}
    heads = {**huge, "headers": [["big", text_of(b"h" * 3_000)]], "key": text_of(b"k" * 2_000)}
    return [
        {**base, "record": plain, "error": "it is not JSON"},
        {**base, "record": {**plain, "key": None, "headers": []}, "error": ""},
        {
            **base,
            "record": {**plain, "value": None},
            "reason": "tombstone",
            "error": "the record has no value",
        },
        {**base, "record": plain, "error": "ü" * 1_500, "stage": "sink.archive", "reason": "refused"},
        {**base, "record": plain, "error": "half a pair \ud800", "stage": "sink.hook"},
        {**base, "record": huge, "error": "cut", "limit": 3_000},
        {**base, "record": heads, "error": "cut", "limit": 3_000},
        {**base, "record": heads, "error": "cut", "limit": 1_600},
        {**base, "record": huge, "error": "cut twice", "fit": 2_000},
        {**base, "record": {**plain, "timestamp": -1}, "error": "no time"},
    ]


# ── sinks ─────────────────────────────────────────────────────────────────────────────────────────────────

LAYOUTS = (
    "{{ .Topic }}/{{ .Partition }}/{{ .Start }}-{{ .End }}.{{ .Extension }}",
    "{{ .Format }}/{{ .Topic }}-{{ .Partition }}-{{ .Start }}{{ .End }}.{{ .Extension }}",
    'date={{ .Time "%Y-%m-%d" }}/{{ .Topic }}-{{ .Partition }}-{{ .Start }}-{{ .End }}.{{ .Extension }}',
    'archive/date={{ .EventTime "%Y-%m-%d" }}/hour={{ .EventTime "%H" }}/flag={{ .Key }}/'
    "{{ .Topic }}-{{ .Partition }}-{{ .Start }}-{{ .End }}.{{ .Extension }}",
    "kind={{ .Kind }}/{{ .ContextKind }}/{{ .Source }}/{{ .Variation }}/{{ .Version }}/{{ .Default }}/"
    "{{ .Topic }}-{{ .Partition }}-{{ .Start }}-{{ .End }}.{{ .Extension }}",
    "user={{ .UserKey }}/value={{ .Value }}/region={{ .Metadata.region }}/"
    "{{ .Topic }}-{{ .Partition }}-{{ .Start }}-{{ .End }}.{{ .Extension }}",
)
FORMATS = {
    "jsonl": ("gzip", "none", "zstd"),
    "csv": ("gzip", "none", "zstd"),
    "avro": ("gzip", "none", "zstd", "snappy"),
    "parquet": ("snappy", "none", "gzip", "zstd", "lz4"),
}


def object_settings() -> Iterator[dict[str, Any]]:
    """Settings of objects: every format with every compression, and every layout with each format."""
    for form, compressions in FORMATS.items():
        for compression in ("auto", *compressions):
            yield {"format": form, "compression": compression}
    for layout in LAYOUTS[1:]:
        for form in ("jsonl", "parquet") if layout is LAYOUTS[3] else ("jsonl",):
            yield {"name": layout, "format": form}
    yield {"name": LAYOUTS[3], "format": "csv", "time_zone": "Asia/Kathmandu", "compression": "none"}
    yield {"name": LAYOUTS[3], "format": "avro", "compression": "none"}
    yield {"format": "jsonl", "compression": "zstd", "compression_level": 9}
    yield {"format": "jsonl", "compression": "gzip", "compression_level": 9}
    for form in FORMATS:
        yield (
            {"format": form, "event_ids": True, "compression": "none"}
            if form != "csv"
            else {
                "format": form,
                "csv_template": "{{ .Key }},{{ .UserKey }},{{ .Value }}\n",
                "compression": "none",
            }
        )
    yield {"format": "parquet", "events": "feature", "compression": "none"}
    yield {"format": "parquet", "events": "tracking", "compression": "none"}


def windows() -> Iterator[dict[str, Any]]:
    """A window each, with the records by name."""
    place = {"topic": "evaluations", "partition": 3, "start": 97, "topic_id": TOPIC_ID}
    for one in object_settings():
        yield {**place, "records": "events", "settings": {"type": "file", "path": "archive", **one}}
    yield {**place, "records": "odd", "settings": {"type": "file", "path": "archive", "name": LAYOUTS[3]}}
    yield {**place, "records": "odd", "settings": {"type": "file", "path": "archive", "format": "avro"}}
    yield {**place, "records": "odd", "settings": {"type": "file", "path": "archive", "format": "csv"}}
    s3 = {
        "type": "s3",
        "bucket": "archive",
        "endpoint": "http://127.0.0.1:1",
        "path_style": True,
        "region": "eu-central-1",
        "access_key": "AKIAEXAMPLE",
        "secret_key": "secret",
    }
    decorated = {
        "prefix": "events/v1/",
        "encryption": "aws:kms",
        "kms_key_id": "alias/archive",
        "storage_class": "STANDARD_IA",
        "acl": "bucket-owner-full-control",
        "tags": {"team": "flags", "cost": "a b"},
        "content_type": "application/x-ndjson",
        "content_encoding": "gzip",
    }
    gcs = {"type": "gcs", "bucket": "archive", "endpoint": "http://127.0.0.1:1", "anonymous": True}
    dressed = {
        "prefix": "events/v1/",
        "storage_class": "NEARLINE",
        "content_type": "application/x-ndjson",
        "content_encoding": "gzip",
    }
    shapes: list[dict[str, Any]] = [
        {},
        {"format": "jsonl", "compression": "none"},
        {"format": "jsonl", "compression": "zstd"},
        {"format": "csv"},
        {"format": "avro", "compression": "snappy"},
        {"format": "parquet"},
        {"name": LAYOUTS[2]},
        {"name": LAYOUTS[3], "format": "parquet"},
        {"name": LAYOUTS[5], "event_ids": True},
    ]
    for shape in shapes:
        yield {**place, "records": "events", "settings": {**s3, **shape}}
        yield {**place, "records": "events", "settings": {**gcs, **shape}}
    yield {**place, "records": "events", "settings": {**s3, **decorated}}
    yield {**place, "records": "events", "settings": {**gcs, **dressed}}
    for hook in webhooks():
        yield {
            **place,
            "records": "events",
            "settings": {**hook, "meta": {"hostname": "golden", "env": "<é>"}},
        }
    yield {
        **place,
        "records": "odd",
        "settings": {**HOOK, "meta": {"hostname": "g"}, "max_part_bytes": 1_000},
    }
    for template in LOG_TEMPLATES:
        yield {**place, "records": "events", "settings": {"type": "log", **template}}
    yield {**place, "records": "odd", "settings": {"type": "log"}}
    for shape in ({}, {"event_ids": True}):
        yield {**place, "records": "events", "settings": {"type": "kafka", "topic": "copies", **shape}}
    yield {**place, "records": "odd", "limit": 2_000, "settings": {"type": "kafka", "topic": "copies"}}


HOOK = {"type": "webhook", "endpoint_url": "https://hooks.example.com/flags"}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def webhooks() -> Iterator[dict[str, Any]]:
    """Settings of webhooks."""
    yield HOOK
    yield {**HOOK, "secret": "plain secret"}
    yield {**HOOK, "secret": SECRET}
    yield {**HOOK, "secret": SECRET, "previous_secrets": ["older", "oldest"]}
    yield {**HOOK, "max_part_events": 1}
    yield {**HOOK, "max_part_events": 5, "secret": SECRET}
    yield {**HOOK, "max_part_bytes": 700}
    yield {**HOOK, "event_ids": True}
    yield {**HOOK, "compression": "gzip", "secret": SECRET}
    yield {**HOOK, "headers": {"X-Api-Key": "k", "User-Agent": "flagstream-own"}}


LOG_TEMPLATES: tuple[dict[str, Any], ...] = (
    {},
    {"template": "{{ .Kind }} {{ .Key }}={{ .Value }} {{ .Metadata }}"},
    {"template": "[{{ .FormattedDate }}] {{ .UserKey }} {{ .Version }} {{ .Default }}"},
)


def fingerprints() -> list[dict[str, Any]]:
    """Settings of every sink, a dozen and more each: what shapes its windows, and what must not."""
    shapes: list[dict[str, Any]] = [
        *object_settings(),
        {"events": "feature"},
        {"events": "tracking"},
        {"time_zone": "Europe/Berlin"},
        {"name": LAYOUTS[3], "time_zone": "Europe/Berlin"},
        {"name": LAYOUTS[2], "time_zone": "Europe/Berlin"},
        {"max_events": 5, "max_bytes": 1_000, "flush_interval": 1, "on_refused": "dead_letter"},
    ]
    files = {"type": "file", "path": "archive"}
    s3 = {"type": "s3", "bucket": "archive"}
    gcs = {"type": "gcs", "bucket": "archive"}
    kafka = {"type": "kafka", "topic": "copies"}
    other = {**kafka, "bootstrap_servers": "b1:9092,b2:9092"}
    log: dict[str, Any] = {"type": "log"}
    return [
        *({**files, **shape} for shape in shapes),
        {**files, "path": "/srv/archive"},
        {**files, "path": "/srv/archive/"},
        *({**s3, **shape} for shape in shapes),
        {**s3, "prefix": "p/"},
        {**s3, "endpoint": "https://minio.example:9000", "path_style": True},
        {**s3, "endpoint": "https://minio.example:9000/", "prefix": "p", "region": "eu-west-1"},
        {**s3, "access_key": "a", "secret_key": "s", "part_size": "16MiB", "read_timeout": 5},
        {**s3, "encryption": "AES256", "acl": "private", "tags": {"a": "b"}, "content_type": "text/plain"},
        {**s3, "storage_class": "GLACIER_IR", "at_least_once": True},
        *({**gcs, **shape} for shape in shapes),
        {**gcs, "prefix": "p/"},
        {**gcs, "endpoint": "http://gcs.example:4443", "anonymous": True},
        {**gcs, "endpoint": "http://gcs.example:4443/", "prefix": "p", "project": "payer"},
        {**gcs, "storage_class": "NEARLINE", "chunk_size": "16MiB", "timeout": 5, "at_least_once": True},
        {**gcs, "content_type": "text/plain", "content_encoding": "gzip"},
        *webhooks(),
        {**HOOK, "endpoint_url": "https://other.example.com/"},
        {**HOOK, "events": "feature"},
        {**HOOK, "events": "tracking"},
        {**HOOK, "max_part_bytes": "1MiB", "max_part_events": 100, "event_ids": True},
        {**HOOK, "timeout": 3, "connect_timeout": 1, "breaker_failures": 9, "on_refused": "dead_letter"},
        *({**log, **template} for template in LOG_TEMPLATES),
        *({**log, **template, "events": "feature"} for template in LOG_TEMPLATES),
        *({**log, **template, "events": "tracking"} for template in LOG_TEMPLATES),
        {**log, "flush_interval": 9},
        {**log, "max_events": 9},
        {**log, "template": "{{ .Key }} ü"},
        *(
            {**sink, **shape}
            for sink in (kafka, other)
            for shape in (
                {},
                {"topic": "copies.2"},
                {"event_ids": True},
                {"events": "feature"},
                {"events": "tracking"},
                {"event_ids": True, "events": "feature"},
                {"partitioner": "fnv1a_random"},
                {"partitioner": "random", "topic": "x"},
                {"max_events": 5},
                {"flush_interval": 5},
                {"timeout": 10},
                {"on_missing_records": "continue"},
            )
        ),
        {**other, "bootstrap_servers": "b2:9092"},
        {**other, "properties": {"compression.type": "lz4"}},
    ]


# ── making them ───────────────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    """Run this module with the old version, or, started by that, write the fixtures."""
    if "--with-this-interpreter" in sys.argv:
        _write(_old())
        return
    from tests.support.old_version import old_version

    python = old_version().python
    subprocess.run([python, "-m", "tests.golden.make", "--with-this-interpreter"], cwd=REPOSITORY, check=True)


def _old() -> Product:
    found = {}
    for name, place in _OLD_NAMES.items():
        module, _, attribute = place.partition(":")
        found[name] = getattr(importlib.import_module(module), attribute)
    return Product(**found)


def _write(old: Product) -> None:
    DATA.mkdir(exist_ok=True)
    records = {"events": events(), "odd": odd_records()}
    observe.write(
        DATA / "metadata.json",
        [{"fields": one, "text": observe.metadata_text(old, one)} for one in metadata()],
    )
    written = [observe.metadata_text(old, one) for one in metadata()]
    observe.write(
        DATA / "metadata_read.json",
        [{"text": text, "meaning": observe.metadata_meaning(old, text)} for text in (*TEXTS, *written)],
    )
    observe.write(
        DATA / "manifests.json",
        [{"fields": one, "text": observe.manifest_text(old, one)} for one in manifests()],
    )
    observe.write(
        DATA / "digests.json", [{"values": one, "digest": observe.digest(old, one)} for one in digests()]
    )
    observe.write(
        DATA / "dead_letters.json",
        [{**one, "letter": observe.dead_letter(old, one)} for one in dead_letters()],
    )
    observe.write(
        DATA / "fingerprints.json",
        [{"settings": one, "fingerprint": observe.fingerprint(old, one)} for one in fingerprints()],
    )
    observe.write(DATA / "records.json", records)
    numbers: dict[str, Iterator[int]] = {}
    made: dict[str, list[dict[str, Any]]] = {}
    for case in windows():
        kind = case["settings"]["type"]
        number = next(numbers.setdefault(kind, count(1)))
        seen = observe.SINKS[kind](old, case, records[case["records"]])
        made.setdefault(kind, []).append({**case, "case": f"{kind}-{number:02}", "made": seen})
    for kind, cases in made.items():
        observe.write(DATA / f"{kind}.json", cases)
    observe.write(DATA / "made_with.json", {"zlib": zlib.ZLIB_RUNTIME_VERSION})


if __name__ == "__main__":
    main()
