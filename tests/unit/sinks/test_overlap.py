"""Which templates can give the same name."""

import pytest

from flagstream.sinks.objects import ObjectSettings
from flagstream.sinks.objects.file import FileSettings
from flagstream.sinks.objects.gcs.settings import GcsSettings
from flagstream.sinks.objects.names import DEFAULT_NAME
from flagstream.sinks.objects.s3.settings import S3Settings

TOPIC = "evaluations"
RANGE = "{{ .Topic }}-{{ .Partition }}-{{ .Start }}-{{ .End }}"


def clash(one: ObjectSettings, other: ObjectSettings) -> bool:
    found = one.shares_names(other, TOPIC)
    assert found == other.shares_names(one, TOPIC)
    return found


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (DEFAULT_NAME, DEFAULT_NAME, True),
        (DEFAULT_NAME, DEFAULT_NAME.replace("{{ .Extension }}", "parquet"), True),
        (DEFAULT_NAME, DEFAULT_NAME.replace("{{ .Extension }}", "old.parquet"), False),
        (DEFAULT_NAME, f"all/{DEFAULT_NAME}", False),
        (DEFAULT_NAME, DEFAULT_NAME.replace("{{ .Topic }}", "evaluations/{{ .Topic }}"), False),
        (RANGE, RANGE.replace("{{ .Topic }}", "evaluations{{ .Topic }}"), False),
        (f"evaluations/{RANGE}", f"{{{{ .Topic }}}}/{RANGE}", True),
        (f"{RANGE}.{{{{ .Format }}}}", f"{RANGE}.csv", True),
        (f"{RANGE}.{{{{ .Format }}}}", f"{RANGE}.xml", False),
        # Layouts: the names of their objects, or of the index of each window.
        (f"flag={{{{ .Key }}}}/{RANGE}", f"source={{{{ .Source }}}}/{RANGE}", True),
        (f"a/flag={{{{ .Key }}}}/{RANGE}", f"b/flag={{{{ .Key }}}}/{RANGE}", False),
        (f"a/{{{{ .Key }}}}/{RANGE}", f"a/b/{RANGE}", True),
        (f"a/{{{{ .Key }}}}/{RANGE}", f"a/b/c/{RANGE}", False),
        (f"a/{{{{ .Key }}}}/{RANGE}", f"a/b=c/{RANGE}", False),
        (f"a/{{{{ .Key }}}}/{RANGE}", f"a/b/{{{{ .Source }}}}/{RANGE}", False),
        (f'day/{{{{ .Time "%Y/%m" }}}}/{RANGE}', f"day/2026/05/{RANGE}", True),
        (f'day/{{{{ .Time "%Y/%m" }}}}/{RANGE}', f"day/2026-05/{RANGE}", False),
        (f'day{{{{ .Time "/%Y" }}}}/{RANGE}', f"day/2026/{RANGE}", True),
        ("flag={{ .Key }}/" + RANGE, f"_index/{DEFAULT_NAME.replace('{{ .Extension }}', 'json')}", True),
    ],
)
def test_templates_in_one_place(one: str, other: str, same: bool) -> None:
    """Whatever the events, partitions and offsets; a topic is given."""
    sinks = [S3Settings(bucket="b", name=name) for name in (one, other)]

    assert same == clash(*sinks)


def test_formats_make_no_difference() -> None:
    """Each would take what the other one stored for its own, in an older format."""
    assert clash(S3Settings(bucket="b"), S3Settings(bucket="b", format="csv", events="feature"))


def test_a_prefix_is_part_of_the_name() -> None:
    """The same names come about in several ways."""
    by_name = S3Settings(bucket="b", name=f"x/y/{DEFAULT_NAME}")

    assert clash(by_name, S3Settings(bucket="b", prefix="x/", name=f"y/{DEFAULT_NAME}"))
    assert not clash(by_name, S3Settings(bucket="b", prefix="x", name=f"y/{DEFAULT_NAME}"))


def test_other_places() -> None:
    """Sinks in another bucket, another store or another kind of it cannot collide."""
    here = S3Settings(bucket="b")

    assert not clash(here, S3Settings(bucket="c"))
    assert not clash(here, S3Settings(bucket="b", endpoint="http://minio:9000"))
    assert not clash(here, GcsSettings(bucket="bb"))
    assert not clash(GcsSettings(bucket="bb"), GcsSettings(bucket="cc"))
    assert clash(GcsSettings(bucket="bb"), GcsSettings(bucket="bb", event_ids=True))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("/data", "/data/", True),
        ("/data", "/data/../data/.", True),
        ("/data", "/data2", False),
        ("/", "/tmp/..", True),
        ("archive", "elsewhere", False),
    ],
)
def test_folders(one: str, other: str, same: bool) -> None:
    """However they are written."""
    sinks = [FileSettings.model_validate({"path": path}) for path in (one, other)]

    assert same == clash(*sinks)
