"""A layout by fields of events stores a window as several objects, here with the file sink."""

import errno
import gzip
import json
import os
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import ClassVar
from urllib.parse import unquote

import duckdb
import pytest
from pyarrow.dataset import dataset, partitioning

from flagstream.chunk import Partition
from flagstream.errors import ObjectConflict, SinkRefused, SinkUnavailable
from flagstream.sinks.objects.file import FileSettings, FileSink
from flagstream.sinks.objects.layouts import path_safe
from flagstream.testing import PARTITION, StoredRecord, Window, event, events, fill
from flagstream.window import Manifest, OffsetRange
from tests.contract.test_file import FileContract, files

HIVE = (
    'date={{ .EventTime "%Y-%m-%d" }}/hour={{ .EventTime "%H" }}/flag={{ .Key }}/'
    "{{ .Topic }}-{{ .Partition }}-{{ .Start }}-{{ .End }}.{{ .Extension }}"
)
PLAIN = "{{ .Topic }}/{{ .Partition }}/{{ .Start }}-{{ .End }}.{{ .Extension }}"
BY_USER = "user={{ .UserKey }}/{{ .Topic }}/{{ .Partition }}/{{ .Start }}-{{ .End }}.{{ .Extension }}"


def data(folder: Path) -> list[Path]:
    """The objects with events; those of the index are left out."""
    return [path for path in files(folder) if "_index" not in path.parts]


def exported(folder: Path) -> list[bytes]:
    """Return the lines of all objects."""
    return [line for path in data(folder) for line in gzip.decompress(path.read_bytes()).splitlines()]


class TestHive(FileContract):
    """Objects are cut by date, hour and flag: whatever is promised of one object a window holds for many."""

    options: ClassVar = {"name": HIVE}

    def read_back(self) -> list[bytes]:
        return [
            line for path in data(self.folder) for line in gzip.decompress(path.read_bytes()).splitlines()
        ]


class TestFirstEventsTime(TestHive):
    """A window is one object, in a folder for the day of its first event."""

    options: ClassVar = {
        "name": 'day/{{ .Time "%Y/%m/%d" }}/{{ .Topic }}-{{ .Partition }}-{{ .Start }}-{{ .End }}'
    }


def at(seconds: int, flag: str = '"a"', user: int = 0) -> bytes:
    return (
        f'{{"kind":"feature","contextKind":"user","userKey":"u{user}","creationDate":{seconds},"key":{flag},'
        '"variation":"on","value":true,"default":false,"version":"","source":"SERVER"}'
    ).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "exports"


def opened(folder: Path, name: str = HIVE, **options: object) -> FileSink:
    sink = FileSink(FileSettings(path=folder, name=name, **options))  # type: ignore[arg-type]
    sink.open()
    return sink


def names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in files(folder)]


def test_each_event_is_where_its_fields_say(folder: Path) -> None:
    """Every object carries the window's range; the index lists the objects with their counts."""
    sink = opened(folder)
    midnight = 1_795_305_600  # 2026-11-22 00:00 UTC
    window = fill(sink, [at(midnight), at(midnight - 1), at(midnight), at(midnight, '"b"')], start=7)

    delivery = sink.deliver(window.manifest, window.payload)

    span = "evaluations-3-0000000000000000007-0000000000000000011.jsonl.gz"
    index = "_index/evaluations/3/0000000000000000007-0000000000000000011.json"
    assert names(folder) == [
        index,
        f"date=2026-11-21/hour=23/flag=a/{span}",
        f"date=2026-11-22/hour=00/flag=a/{span}",
        f"date=2026-11-22/hour=00/flag=b/{span}",
    ]
    listed = json.loads((folder / index).read_text())
    assert [(each["name"], each["records"]) for each in listed["objects"]] == [
        (name, count) for name, count in zip(names(folder)[1:], (1, 2, 1), strict=True)
    ]
    assert (listed["start"], listed["end"], listed["records"]) == (7, 11, 4)
    assert delivery.created == 4


def test_time_zone(folder: Path) -> None:
    """Times in names are those of the zone that is configured."""
    sink = opened(folder, time_zone="Asia/Tokyo")
    window = fill(sink, [at(1_795_305_600)])
    sink.deliver(window.manifest, window.payload)
    assert "date=2026-11-22/hour=09" in names(folder)[1]


@pytest.mark.parametrize(
    ("flag", "shown"),
    [
        ('"a/b"', "a%2Fb"),
        ('".."', "%2E."),
        ('""', "__HIVE_DEFAULT_PARTITION__"),
        ('"x=y z"', "x%3Dy z"),
        ('"é"', "é"),
        ('"日本"', "日本"),
        ('"\\u0000"', "%00"),
        ('"100%"', "100%25"),
        ('"{a}[b]^c"', "%7Ba}%5Bb%5D%5Ec"),
    ],
)
def test_values_are_path_safe(folder: Path, flag: str, shown: str) -> None:
    """No value leaves its folder or makes one of its own."""
    sink = opened(folder)
    window = fill(sink, [at(1_795_305_600, flag)])
    sink.deliver(window.manifest, window.payload)
    assert f"flag={shown}" in data(folder)[0].parts


# Each ends in another place of a character when 103 bytes are kept.
LONG = [
    *("日本語の長い旗の名前" * 5, "a" + "日" * 60, "aa" + "日" * 60, "é" * 100, "a" + "😀" * 40),
    *("/" * 60, "a" + "/" * 60, "aa" + "/" * 60),
]
TEXTS = [
    *(
        "a b",
        "a+b",
        "100%",
        "%41",
        "é",
        "日本語の長い旗の名前です",
        "😀",
        "a/b=c?d#e",
        "..",
        "\x01\x7f",
        "~-_.",
    ),
    "'\"*:\\{[]}^",
]


@pytest.mark.parametrize("value", LONG)
def test_a_long_value_is_cut_between_characters(value: str) -> None:
    """No half of a character and no half of an escape is left, and the folder's name has its bound."""
    safe = path_safe(value)

    assert unquote(safe, errors="strict").startswith(value[:20])
    assert re.fullmatch(r"(?:[^%]|%[0-9A-F]{2})+~[0-9a-f]{16}", safe)
    assert 116 < len(safe.encode()) <= 120
    assert safe != path_safe(value + "x")


def test_short_values_are_whole() -> None:
    """Fourteen Japanese letters are 42 bytes, however many their escapes would be."""
    assert path_safe("日" * 40) == "日" * 40
    assert path_safe("x" * 120) == "x" * 120


@pytest.mark.parametrize("reader", ["duckdb", "pyarrow"])
def test_readers_of_hive_layouts_get_the_values_back(folder: Path, reader: str) -> None:
    """DuckDB and pyarrow read an archive with values in any script; one that was cut hinders none of them."""
    sink = opened(folder, f"flag={{{{ .Key }}}}/{PLAIN.replace('/', '-')}", format="parquet")
    window = fill(sink, [at(0, json.dumps(text)) for text in (*TEXTS, *LONG)])
    sink.deliver(window.manifest, window.payload)

    if reader == "duckdb":
        query = "select flag, key from read_parquet(?, hive_partitioning=true)"
        found = dict(duckdb.execute(query, [f"{folder}/**/*.parquet"]).fetchall())
    else:
        table = dataset(folder, format="parquet", partitioning=partitioning(flavor="hive")).to_table()
        found = dict(zip(table["flag"].to_pylist(), table["key"].to_pylist(), strict=True))

    assert {value: key for value, key in found.items() if key in TEXTS} == {text: text for text in TEXTS}
    assert set(found.values()) == {*TEXTS, *LONG}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        (PLAIN, False),
        (f'date={{{{ .EventTime "%Y" }}}}/{PLAIN}', False),
        (f'{{{{ .Time "%Y" }}}}/{PLAIN}', False),
        (f"flag={{{{ .Key }}}}/{PLAIN}", True),
        (f"team={{{{ .Metadata.team }}}}/{PLAIN}", True),
    ],
)
def test_only_layouts_with_a_value_in_their_names_have_another_fingerprint(
    folder: Path, name: str, changed: bool
) -> None:
    """Former versions named their objects differently; all others go on without draining."""
    sink = FileSink(FileSettings(path=folder, name=name))
    several = "UTC" if "Time" in name or changed else ""
    former = (f"file\0{folder}", name, "jsonl", "gzip", "both", "False", several)

    assert changed == (sink.fingerprint != sha256("\0".join(former).encode()).hexdigest()[:16])


def test_long_values_are_told_apart(folder: Path) -> None:
    """A value that is too long for a folder is cut, and a hash keeps it apart from others."""
    sink = opened(folder)
    window = fill(sink, [at(0, f'"{"x" * 400}a"'), at(0, f'"{"x" * 400}b"')])
    sink.deliver(window.manifest, window.payload)
    assert len(data(folder)) == 2
    assert all(len(part) < 255 for path in data(folder) for part in path.parts)


def test_event_without_a_place_is_rejected(folder: Path) -> None:
    """An event without a usable creationDate becomes a dead letter; the rest of the window goes on."""
    sink = opened(folder)
    bad = [b'{"key":"a"}', b'{"key":"a","creationDate":"now"}', b'{"key":"a","creationDate":1e300}']
    window = fill(sink, [at(0), *bad, at(1)])
    assert window.exported == [at(0), at(1)]


def test_a_finished_window_takes_its_objects(folder: Path) -> None:
    """Its encoders are gone: while it waits to be delivered, other windows have the memory."""
    encoder = opened(folder, BY_USER, format="parquet").begin(PARTITION, 0)
    values = [at(0, user=user) for user in range(50)]
    encoder.add(values, [StoredRecord(offset, value) for offset, value in enumerate(values)])
    filled = encoder.memory

    payload = encoder.finish(Manifest(OffsetRange(PARTITION, 0, 50), 50, "", ""))

    assert sum(each.content.size for each in payload[1:]) < encoder.memory < filled / 5


LONG_FOLDER = "x" * 150 + "={{ .Key }}/{{ .Topic }}/{{ .Partition }}/{{ .Start }}-{{ .End }}.{{ .Extension }}"


def test_an_event_whose_folder_would_be_too_long_is_rejected(folder: Path) -> None:
    """The longest folder that there can be, 255 bytes, is stored; the rest of the window goes on."""
    sink = opened(folder, LONG_FOLDER)
    values = [at(0, f'"{"k" * size}"') for size in (104, 105, 1, 120)]
    window = fill(sink, values)

    sink.deliver(window.manifest, window.payload)

    assert window.exported == [values[0], values[2]]
    assert sorted(exported(folder)) == sorted(window.exported)
    assert max(len(path.parts[-4]) for path in data(folder)) == 255


def test_an_event_whose_path_would_be_too_long_is_rejected(tmp_path: Path) -> None:
    """4,095 bytes with everything are stored, which is what Linux takes; temporary names are shorter."""
    name = f"{{{{ .Key }}}}/{LONG_FOLDER.partition('/')[2]}"
    behind = len("/evaluations/3/") + 39 + len(".jsonl.gz")
    folder = tmp_path
    while (longest := 4095 - len(f"{folder}/") - behind) > 100:
        folder /= "d" * 90
    sink = opened(folder, name)
    values = [at(0, f'"{"k" * size}"') for size in (longest, longest + 1)]
    window = fill(sink, values)

    sink.deliver(window.manifest, window.payload)

    assert window.exported == values[:1]
    assert len(bytes(data(folder)[0])) == 4095
    assert sink.deliver(window.manifest, window.payload).created == 0


def test_a_file_system_may_take_less(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system says its limit when the sink opens; then shorter names are rejected too."""
    monkeypatch.setattr(os, "pathconf", lambda path, what: 143 if what == "PC_NAME_MAX" else 4096)
    sink = opened(folder)

    assert fill(sink, [at(0, f'"{"k" * 120}"')]).exported
    monkeypatch.setattr(os, "pathconf", lambda path, what: 120 if what == "PC_NAME_MAX" else 4096)
    sink.open()
    values = [at(0, f'"{"k" * size}"') for size in (120, 115)]
    assert fill(sink, values).exported == values[1:]


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Make the file system fail after ``count`` more files."""
    link, left = os.link, iter(range(count))
    one_at_a_time = Lock()

    def limited(source: Path, target: Path) -> None:
        with one_at_a_time:
            if next(left, None) is None:
                raise OSError(errno.EIO, "I/O error", str(target))
            link(source, target)

    monkeypatch.setattr(os, "link", limited)


@pytest.mark.parametrize("stored", [1, 3, 9])
def test_partial_delivery_is_taken_up(folder: Path, monkeypatch: pytest.MonkeyPatch, stored: int) -> None:
    """Of a window that was stored in part, another worker learns by one listing; it adds what is missing."""
    values = [at(0, f'"flag-{number % 9}"', number) for number in range(90)]
    sink = opened(folder)
    window = fill(sink, values)
    with monkeypatch.context() as patch:
        stop_after(patch, stored)
        with pytest.raises(SinkUnavailable):
            sink.deliver(window.manifest, window.payload)
    assert names(folder)[0].startswith("_index/")

    survivor = opened(folder)
    assert list(survivor.holdings(PARTITION, 0)) == [window.manifest.range]
    again = fill(survivor, values, cuts=[1, 44])
    delivery = survivor.deliver(again.manifest, again.payload)

    assert (delivery.created, delivery.existing) == (10 - stored, stored)
    assert sorted(exported(folder)) == sorted(values)


def test_other_content_in_one_path_is_a_conflict(folder: Path) -> None:
    """Every object is compared, not the index alone."""
    sink = opened(folder)
    window = fill(sink, [at(0, '"a"'), at(0, '"b"')])
    sink.deliver(window.manifest, window.payload)
    (path, other) = data(folder)
    path.write_bytes(other.read_bytes())
    with pytest.raises(ObjectConflict, match="it holds the events of"):
        sink.deliver(window.manifest, window.payload)


def test_ids_are_exported_and_not_digested(folder: Path) -> None:
    """The id is topic, partition and offset; an event's own id stays; the digest is that of the topic's
    records.
    """
    own = b'{"id":"mine","creationDate":0,"key":"a"}'
    plain, with_ids = opened(folder / "plain"), opened(folder / "ids", event_ids=True)
    values: Sequence[bytes] = [at(0), own, b'{"key":"a","creationDate":0,"metadata":{"id":"inner"}}']
    one, other = fill(plain, values, start=5), fill(with_ids, values, start=5)
    assert one.manifest.digest == other.manifest.digest
    with_ids.deliver(other.manifest, other.payload)
    lines = gzip.decompress(data(folder / "ids")[0].read_bytes()).splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["evaluations-3-5", "mine", "evaluations-3-7"]


def test_listing_starts_near_the_position(folder: Path) -> None:
    """Of a long archive only what may reach beyond the position is listed."""
    sink = opened(folder)
    far = 10_000_000
    windows = [fill(sink, events(1, start), start=start) for start in (0, far)]
    for window in windows:
        sink.deliver(window.manifest, window.payload)
    assert list(sink.holdings(PARTITION, far)) == [OffsetRange(PARTITION, far, far + 1)]


def test_neighbours_in_the_index(folder: Path) -> None:
    """Partition 1 does not see what partition 11 stored."""
    sink = opened(folder)
    window: Window = fill(sink, [event(1)], partition=Partition("t", 11))
    sink.deliver(window.manifest, window.payload)
    assert list(sink.holdings(Partition("t", 1), 0)) == []


def test_memory_grows_by_what_waits_not_by_paths(folder: Path) -> None:
    """A thousand small paths take their events and what closing them takes, not a compressor each."""
    encoder = opened(folder, BY_USER).begin(PARTITION, 0)
    values = [at(0, user=number) for number in range(1_000)]
    encoder.add(values, fill_records(values))
    assert sum(map(len, values)) <= encoder.memory < 1_000 * 128 * 1024


def fill_records(values: Sequence[bytes]) -> Sequence[StoredRecord]:
    from flagstream.testing import StoredRecord

    return [StoredRecord(index, value) for index, value in enumerate(values)]


def test_other_names_for_the_same_window_are_a_conflict(folder: Path) -> None:
    """Another template, zone or build would store the same events again, beside those that are there."""
    by_flag = opened(folder, HIVE)
    window = fill(by_flag, [at(1_795_305_600)])
    by_flag.deliver(window.manifest, window.payload)
    before = names(folder)
    by_user = opened(folder, BY_USER)
    window = fill(by_user, [at(1_795_305_600)])

    with pytest.raises(ObjectConflict, match="_index"):
        by_user.deliver(window.manifest, window.payload)

    assert names(folder) == before


def test_a_window_that_is_stored_in_part_is_not_refused(folder: Path) -> None:
    """Dead letters of the window would hold events that are in the archive already."""
    sink = opened(folder, BY_USER, on_refused="dead_letter")
    (folder / "user=u1").write_text("a file in the way")
    window = fill(sink, [at(1, user=user) for user in range(3)])

    with pytest.raises(SinkUnavailable, match="cannot become dead letters"):
        sink.deliver(window.manifest, window.payload)

    (folder / "user=u1").unlink()
    sink.deliver(window.manifest, window.payload)
    assert len(exported(folder)) == 3


def test_a_window_that_is_refused_whole_is_refused(folder: Path) -> None:
    sink = opened(folder, BY_USER, on_refused="dead_letter")
    (folder / "user=u0").write_text("a file in the way")
    window = fill(sink, [at(1)])

    with pytest.raises(SinkRefused):
        sink.deliver(window.manifest, window.payload)
