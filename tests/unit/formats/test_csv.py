"""The format writes CSV from GO Feature Flag's templates."""

import csv
import io
import json
from pathlib import Path

import pytest

from flagstream.chunk import Partition
from flagstream.formats.compression import Compression, TextCompression
from flagstream.formats.csv import DEFAULT_TEMPLATE, CsvFormat
from flagstream.formats.protocol import EncodedObject
from flagstream.testing import StoredRecord
from flagstream.window import Manifest, OffsetRange

MANIFEST = Manifest(OffsetRange(Partition("t", 0), 0, 10), 10, "d", "c")
EVENT = (
    b'{"kind":"feature","contextKind":"user","userKey":"ABCD","creationDate":1617970547,"key":"random-key",'
    b'"variation":"Default","value":%s,"default":false,"version":"1.4","source":"SERVER"}'
)
TRACKING = (
    b'{"kind":"tracking","contextKind":"user","userKey":"ABCD","creationDate":1617970547,"key":"clicked",'
    b'"evaluationContext":{"targetingKey":"ABCD","n":1000000},"trackingEventDetails":{"event":"123"}}'
)
VECTORS = [
    json.loads(line)
    for line in Path("tests/goff/generated/format_vectors.jsonl").read_text("utf-8").split("\n")
    if line
]
OURS = {
    "1e+06": "1000000",
    "1.234567e+06": "1234567",
    "9.007199254740992e+15": "9007199254740992",
    "1e+20": "100000000000000000000",
    "1e-05": "0.00001",
    "1e-06": "0.000001",
    "a;b": '"a;b"',
    "line1\nline2": '"line1\nline2"',
    "[1 a true <nil>]": '"[1,""a"",true,null]"',
    "[x y z]": '"[""x y"",""z""]"',
    "map[]": "{}",
    "map[n:1e+06]": '"{""n"":1000000}"',
}
"""What we write on purpose where GO Feature Flag writes the left; docs/compatibility.md has the table too."""


def rows(template: str, *values: bytes, compression: TextCompression = "none") -> str:
    """The object's text; nothing may be rejected."""
    format = CsvFormat(template, Compression(compression, 3))
    encoder = format.begin(Partition("t", 0))
    records = [StoredRecord(index, value) for index, value in enumerate(values)]
    assert encoder.add(values, records) == []
    return format.compression.text(encoder.finish(MANIFEST)).decode()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: json.dumps(vector["value"]))
def test_as_go_feature_flag(vector: dict[str, str]) -> None:
    """The row is GO Feature Flag's, but for values that would break it or lose digits."""
    head, tail = vector["csv_line"].split(";Default;", 1)
    shown = tail.removesuffix(";false;SERVER\n")
    expected = f"{head};Default;{OURS.get(shown, shown)};false;SERVER\n"
    assert expected == rows(DEFAULT_TEMPLATE, vector["json_line"].encode())


def test_vectors_cover_the_differences() -> None:
    """Every deliberate difference is one that GO Feature Flag's own output shows."""
    shown = {v["csv_line"].split(";Default;", 1)[1].removesuffix(";false;SERVER\n") for v in VECTORS}
    assert set(OURS) <= shown


@pytest.mark.parametrize("text", ['a;"b', "a\nb", "a\r\nb", '"', ";", "", " ", "é\u2028", "null", "\0x"])
@pytest.mark.parametrize("delimiter", [";", ",", "\t", "|", "^"])
def test_read_back_by_the_csv_module(text: str, delimiter: str) -> None:
    """Whatever a value holds, the csv module gives it back, one row an event."""
    value = EVENT % json.dumps(text).encode()
    written = rows(f"{{{{.Key}}}}{delimiter}{{{{.Value}}}}{delimiter}{{{{.Source}}}}\n", value, value)
    found = list(csv.reader(io.StringIO(written, newline=""), delimiter=delimiter))
    assert [["random-key", text, "SERVER"]] * 2 == found


@pytest.mark.parametrize(
    ("template", "row"),
    [
        ("{{.Key}},{{.Value}}", "random-key,YO\n"),
        ("{{.Key}},{{.Value}}\r\n", "random-key,YO\r\n"),
        ("{{- .Key}},{{.Value -}}\n", "random-key,YO\n"),
        ('"{{.Key}}";"{{.Value}}"\n', '"random-key";"YO"\n'),
        ('"{{.Key}}";"";{{.Value}}\n', '"random-key";"";YO\n'),
        ("{{.Key}}-{{.Value}};{{.Version}}\n", "random-key-YO;1.4\n"),
        ("v1;{{.Key}};\n", "v1;random-key;\n"),
        ("{{.Metadata}};{{.Metadata.a}}\n", ";\n"),
        ("{{.Metadata}}\n", '""\n'),
        ("{{.Value}}\n", "YO\n"),
        ("{{.FormattedDate}},{{.CreationDate}}\n", "2021-04-09T12:15:47Z,1617970547\n"),
        ('{{printf "%s;%s" .Key .Value}};{{.Id}}\n', '"random-key;YO";\n'),
    ],
)
def test_templates(template: str, row: str) -> None:
    """A template may hold quotes, several fields in a column, and a line break at its end or not."""
    assert row == rows(template, EVENT % b'"YO"')


@pytest.mark.parametrize(
    ("date", "row"),
    [
        (b"1617970547.0", "2021-04-09T12:15:47Z,1617970547\n"),
        (b"1.617970547e9", "2021-04-09T12:15:47Z,1617970547\n"),
    ],
)
def test_a_whole_number_in_another_form_is_an_integer(date: bytes, row: str) -> None:
    """The row has creationDate as Go writes it, whoever wrote the event."""
    value = (EVENT % b'"YO"').replace(b"1617970547", date)
    assert row == rows("{{.FormattedDate}},{{.CreationDate}}\n", value)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("", "empty"),
        ("{{.Key}};{{.Foo}}\n", "Foo is not known"),
        ("{{.Key}}\n{{.Value}}\n", "a line break before its end"),
        (r"{{.Key}};{{.Value}}\n", "a backslash and an n"),
        ("{{.Key}}{{.Value}}\n", "nothing says what separates the columns"),
        ("{{.Key}} and {{.Value}}\n", "nothing says what separates the columns"),
        ("{{.Key}};{{.Value}},{{.Source}}\n", "which separates the columns"),
        ('{{.Key}};"{{.Value}}\n', "a quote in the template has to begin or end a column"),
        ('{{.Key}};say "{{.Value}}"\n', "a quote in the template has to begin or end a column"),
    ],
)
def test_bad_template(template: str, problem: str) -> None:
    """A template that cannot be a row is refused with the reason."""
    with pytest.raises(ValueError, match=problem):
        CsvFormat(template, Compression("none", 1))


def test_tracking_events_need_a_place() -> None:
    """A template without their fields rejects tracking events, so that nothing is dropped unseen."""
    encoder = CsvFormat(DEFAULT_TEMPLATE, Compression("none", 1)).begin(Partition("t", 0))
    values = [EVENT % b"1", TRACKING]
    (reject,) = encoder.add(values, [StoredRecord(0, b""), StoredRecord(1, b"")])
    assert (reject.index, reject.reason) == (1, "no_place_in_template")
    expected = 'tracking;ABCD;"{""targetingKey"":""ABCD"",""n"":1000000}";123\n'
    template = "{{.Kind}};{{.UserKey}};{{.EvaluationContext}};{{.TrackingDetails.event}}\n"
    assert expected == rows(template, TRACKING)


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", b"{", b'{"userKey":"\\ud800"}', b'{"value":' + b"[" * 99_999 + b"]" * 99_999 + b"}"],
)
def test_no_event(value: bytes) -> None:
    """What is not an event is rejected alone, and leaves nothing in the output."""
    encoder = CsvFormat(DEFAULT_TEMPLATE, Compression("none", 1)).begin(Partition("t", 0))
    (reject,) = encoder.add([value], [StoredRecord(0, value)])
    assert (reject.index, reject.reason) == (0, "not_an_event")
    assert encoder.size == 0


def test_shape_and_names() -> None:
    """The template shapes the object, the level does not; the extension names the compression."""
    formats = [CsvFormat(DEFAULT_TEMPLATE, Compression(kind, 3)) for kind in ("none", "gzip", "zstd")]
    assert [format.extension for format in formats] == ["csv", "csv.gz", "csv.zst"]
    assert formats[1].shape == CsvFormat(DEFAULT_TEMPLATE, Compression("gzip", 9)).shape
    assert formats[1].shape != CsvFormat("{{.Key}}\n", Compression("gzip", 3)).shape


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_same_object(compression: TextCompression) -> None:
    """A stored object is known again; one that was cut short or holds other events is not."""
    format = CsvFormat(DEFAULT_TEMPLATE, Compression(compression, 3))
    encoder = format.begin(Partition("t", 0))
    encoder.add([EVENT % b'"a\\nb"'], [StoredRecord(0, b"")])
    ours = EncodedObject(encoder.finish(MANIFEST), MANIFEST)
    stored = b"".join(ours.parts)
    assert format.compare(io.BytesIO(stored), ours) is None
    assert format.compare(io.BytesIO(stored[:-1]), ours) is not None
    assert format.compare(io.BytesIO(b"other"), ours) is not None
    assert format.show(ours.parts) == 'feature;user;ABCD;1617970547;random-key;Default;"a\nb";false;SERVER'
