"""What a sink of objects asks of its store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flagstream.chunk import Partition
from flagstream.formats.protocol import Format
from flagstream.formats.zstd import footer
from flagstream.sinks.objects import ObjectSink
from flagstream.sinks.objects.file import FileSettings, FileStore
from flagstream.sinks.objects.gcs.settings import GcsSettings
from flagstream.sinks.objects.s3.settings import S3Settings
from flagstream.testing import StoredRecord, event
from flagstream.window import Manifest, OffsetRange, OtherwiseNamed

WIDE = OffsetRange(Partition("evaluations", 3), 0, 5_000_000)


NARROW = OffsetRange(Partition("evaluations", 3), 0, 10)
OF_ITS_OWN = "{{ .Topic }}/{{ .Partition }}/{{ .Start }}-{{ .End }}.of-{{ .Format }}"


class _Store(FileStore):
    """Lists one object, unless it may be left out."""

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        name = f"evaluations/3/{WIDE.start:019}-{WIDE.end:019}.jsonl.gz"
        return iter([name] if name > after else [])


def test_a_window_of_few_events_may_be_wider_than_any_limit() -> None:
    """What a filter leaves out closes no window; one that reaches beyond a position is found all the same."""
    settings = FileSettings(path=Path("unused"), events="tracking")
    sink = ObjectSink(_Store(settings.path), settings)

    assert sink.holdings(WIDE.partition, 3_000_000) == [WIDE]


@pytest.mark.parametrize(
    ("options", "stored"),
    [
        ({"compression": "none"}, f"evaluations/3/{0:019}-{10:019}.jsonl.gz"),
        ({"format": "avro"}, f"evaluations/3/{0:019}-{10:019}.jsonl.gz"),
        ({"format": "csv", "name": OF_ITS_OWN}, f"evaluations/3/{0:019}-{10:019}.of-jsonl"),
    ],
)
def test_a_window_in_another_format_is_told_apart(
    tmp_path: Path, options: dict[str, Any], stored: str
) -> None:
    """It is held, but under a name that a delivery would not find."""
    settings = FileSettings(path=tmp_path, **options)
    sink = ObjectSink(FileStore(tmp_path), settings)
    (tmp_path / stored).parent.mkdir(parents=True)
    (tmp_path / stored).touch()

    assert sink.holdings(NARROW.partition, 0) == [OtherwiseNamed(NARROW.partition, 0, 10, stored)]


def test_of_two_names_the_one_that_is_found_counts(tmp_path: Path) -> None:
    """Where a window was stored in both formats, delivering it again stores nothing."""
    sink = ObjectSink(FileStore(tmp_path), FileSettings(path=tmp_path))
    for extension in ("jsonl", "jsonl.gz", "avro"):
        stored = tmp_path / f"evaluations/3/{0:019}-{10:019}.{extension}"
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.touch()

    assert sink.holdings(NARROW.partition, 0) == [NARROW]


def made(form: Format) -> bytes:
    """Return an object with one event."""
    encoder = form.begin(Partition("t", 0))
    encoder.add([event(0)], [StoredRecord(0, event(0))])
    return b"".join(encoder.finish(MANIFEST))


MANIFEST = Manifest(OffsetRange(Partition("t", 0), 0, 1), 1, "ab" * 32, "c")


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_a_store_that_keeps_the_manifest_has_none_in_its_zstd_objects(tmp_path: Path, format: Any) -> None:
    """A file has it at its end; an object in S3 or Google Cloud Storage has it in its metadata."""
    options: dict[str, Any] = {"format": format, "compression": "zstd"}
    file = made(FileSettings(path=tmp_path, **options).make_format())

    assert file.endswith(footer(MANIFEST))
    for settings in (S3Settings(bucket="b", **options), GcsSettings(bucket="bucket", **options)):
        assert made(settings.make_format()) + footer(MANIFEST) == file
