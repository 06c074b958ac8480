"""How long the names of objects may be, and which of them are not tried."""

import pytest

from flagstream.chunk import Partition
from flagstream.formats.compression import Compression
from flagstream.formats.jsonl import JsonLinesFormat
from flagstream.sinks.objects.gcs.settings import GcsSettings
from flagstream.sinks.objects.layouts import Layout, LayoutEncoder
from flagstream.sinks.objects.names import NameTemplate
from flagstream.sinks.objects.places import NameLimits
from flagstream.sinks.objects.s3.settings import S3Settings
from flagstream.window import OffsetRange
from tests.support.recording import StoredRecord

PARTITION = Partition("evaluations", 3)
_RANGE = OffsetRange(PARTITION, 0, 1)
TAIL = "/{{ .Topic }}-{{ .Partition }}-{{ .Start }}-{{ .End }}"


def layout(text: str, place: NameLimits, zone: str = "UTC") -> Layout:
    form = JsonLinesFormat(Compression("none", 1))
    return Layout(NameTemplate(text + TAIL, form.name, form.extension), form, zone, place)


def rejected(of: Layout, values: list[bytes], cuts: tuple[int, ...] = ()) -> list[int]:
    """Indexes of the values that a window of ``of`` rejects for their names."""
    encoder = LayoutEncoder(of, PARTITION, lambda values, records: values)
    found: list[int] = []
    for low, high in zip((0, *cuts), (*cuts, len(values)), strict=True):
        records = [StoredRecord(at, values[at]) for at in range(low, high)]
        rejects = encoder.add(values[low:high], records)
        assert {reject.reason for reject in rejects} <= {"name_too_long"}
        found += [low + reject.index for reject in rejects]
    return found


def event(flag: str, seconds: int = 1_795_305_600) -> bytes:
    return f'{{"key":"{flag}","creationDate":{seconds}}}'.encode()


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("x" * 20, True),
        ("x" * 21, False),
        ("x" * 10 + "/" + "y" * 20, True),
        ("x" * 20 + "/" + "y" * 20, False),
        ("é" * 10, True),
        ("é" * 11, False),
    ],
)
def test_counts_bytes_of_the_whole_and_of_each_part(name: str, fits: bool) -> None:
    """What stands in front counts too; a letter beyond ASCII has several bytes."""
    fault = NameLimits(before=9, longest=40, longest_part=20).fault(name)

    assert fits == (fault is None)
    assert fits or "is the most" in str(fault)


@pytest.mark.parametrize("settings", [S3Settings, GcsSettings])
def test_a_key_has_1024_bytes(settings: type[S3Settings] | type[GcsSettings]) -> None:
    """Its prefix counts, slashes make no difference."""
    place = settings(bucket="events", prefix="é/").place()

    assert place.fault("x" * 1021) is None
    assert place.fault("x" * 1022)


def test_an_event_is_rejected_wherever_its_window_begins() -> None:
    """It depends neither on the other events nor on how chunks are cut."""
    of = layout("flag={{ .Key }}", NameLimits(longest_part=60))
    values = [event("x" * size) for size in (55, 56, 3, 70, 55, 56)]

    assert rejected(of, values) == [1, 3, 5]
    assert rejected(of, values, (1, 2, 4)) == [1, 3, 5]
    assert rejected(of, values[1:]) == [0, 2, 4]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu"])
def test_the_time_of_the_first_event_is_taken_at_its_longest(zone: str) -> None:
    """Else an event would fit into a window that begins in May, and not into one that begins in September."""
    of = layout('{{ .Time "%A %-d %B %H %Z" }}/flag={{ .Key }}', NameLimits(longest=150), zone)
    days = [event("x", 1_750_000_000 + day * 86_400) for day in range(400)]
    fits = max(size for size in range(100) if not rejected(of, [event("x" * size)]))

    values = [event("x" * fits), event("x" * (fits + 1))]
    assert {tuple(rejected(of, [day, *values])) for day in days} == {(2,)}
    stored = [of.name(_RANGE, ("x" * fits,), of.moment(day)) for day in [*days, event("x", -3_000_000_000)]]
    assert max(map(len, stored)) <= 150


def test_all_that_is_certain_is_told_before_any_event() -> None:
    """It is a mistake if even the shortest value does not fit, or the index of each window does not."""
    assert layout("flag={{ .Key }}", NameLimits(longest_part=5)).always_too_long(PARTITION)
    long_folder = f"{'x' * 30}/flag={{{{ .Key }}}}"
    shortest = len(f"{'x' * 30}/flag=x/evaluations-3-") + 39
    assert layout(long_folder, NameLimits(longest=shortest)).always_too_long(PARTITION)
    index = len(f"{'x' * 30}/_index/evaluations/3/") + 39 + len(".json")
    assert layout(long_folder, NameLimits(longest=index)).always_too_long(PARTITION) is None
