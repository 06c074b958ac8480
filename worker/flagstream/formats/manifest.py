"""A manifest as JSON, the form in which it travels inside an object (gzip extra field, Avro and Parquet
metadata).
"""

import json

from flagstream.chunk import Partition
from flagstream.window import Manifest, OffsetRange

VERSION = 1


def manifest_json(manifest: Manifest) -> bytes:
    """Return ``manifest`` as compact ASCII JSON. The same manifest always gives the same bytes: they hold no
    host, time or version of the worker.
    """
    partition = manifest.range.partition
    fields = {
        "v": VERSION,
        "topic": partition.topic,
        "partition": partition.index,
        "start": manifest.range.start,
        "end": manifest.range.end,
        "records": manifest.records,
        "digest": manifest.digest,
        "config": manifest.config,
        "topic_id": manifest.topic_id,
    }
    if manifest.path:
        fields["path"] = manifest.path
    return json.dumps(fields, separators=(",", ":")).encode("ascii")


def parse_manifest(text: bytes) -> Manifest | None:
    """Return the manifest that :func:`manifest_json` wrote; None if ``text`` is anything else, a later
    version's manifest included.
    """
    try:
        fields = json.loads(text)
        if fields["v"] != VERSION:
            return None
        partition = Partition(str(fields["topic"]), int(fields["partition"]))
        return Manifest(
            range=OffsetRange(partition, int(fields["start"]), int(fields["end"])),
            records=int(fields["records"]),
            digest=str(fields["digest"]),
            config=str(fields["config"]),
            topic_id=str(fields["topic_id"]),
            path=str(fields.get("path", "")),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def difference(ours: Manifest, theirs: Manifest) -> str | None:
    """Return how the window ``theirs`` differs from ``ours``, for people; None if they are the same window.

    Range, path, record count and digest decide. A topic that was deleted and created again starts at
    offset 0 under another id, but if count and digest agree, the content is the same. ``config`` may differ
    by settings that do not change the content.
    """
    if theirs.range != ours.range:
        return f"it holds {theirs.range}, not {ours.range}"
    if theirs.path != ours.path:
        return f"it holds the events of {theirs.path!r}, not of {ours.path!r}"
    if theirs.records != ours.records:
        return f"it holds {theirs.records} records, the window has {ours.records}"
    if theirs.digest != ours.digest:
        recreated = ours.topic_id and theirs.topic_id and ours.topic_id != theirs.topic_id
        hint = "; it was written from an earlier topic of the same name" if recreated else ""
        return f"its content digest is {theirs.digest[:12]}…, the window's is {ours.digest[:12]}…{hint}"
    return None
