"""What `flagstream render` shows of a sink."""

from pathlib import Path

import pytest

from flagstream.sinks.objects.file import FileSettings
from flagstream.sinks.objects.gcs.settings import GcsSettings
from flagstream.sinks.objects.s3.settings import S3Settings
from flagstream.sinks.rehearsal import render
from flagstream.sinks.settings import SinkSettings

FIRST = "t/0/0000000000000120000-0000000000000120001.jsonl.gz"
SECOND = "t/0/0000000000000120001-0000000000000120002.jsonl.gz"


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        (FileSettings(path=Path("archive")), "archive/"),
        (S3Settings(bucket="my-events"), "s3://my-events/"),
        (S3Settings(bucket="my-events", prefix="flags"), "s3://my-events/flags"),
        (GcsSettings(bucket="my-events", prefix="flags/"), "gs://my-events/flags/"),
    ],
)
def test_names_are_shown_with_their_place(settings: SinkSettings, place: str) -> None:
    """A prefix without its slash can be seen in this way. The samples are two windows, one after the
    other."""
    assert [list(preview.names) for preview in render("t", settings)] == [[place + FIRST], [place + SECOND]]
