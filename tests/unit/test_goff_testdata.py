"""Every file of GO Feature Flag's test data that concerns an exporter, an event or a flag file.

The table names each file once with the check that it has to pass. Files that we differ from on purpose are
in ``DIFFERENT``, and docs/compatibility.md gives the reason.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import indent

import pytest

from flagstream.chunk import Partition
from flagstream.enrich.transform import Transform
from flagstream.events import Event, decode
from flagstream.flag_sources.document import FORMATS
from flagstream.flags import FlagFileError, FlagSet, parse_flags
from flagstream.formats.compression import Compression
from flagstream.formats.csv import DEFAULT_TEMPLATE, CsvFormat
from flagstream.formats.jsonl import JsonLinesFormat
from flagstream.formats.protocol import Format
from flagstream.testing import StoredRecord
from flagstream.window import Manifest, OffsetRange
from tests.unit import test_flags
from tests.unit.enrich import test_transform
from tests.unit.formats import test_csv, test_lines, test_parquet
from tests.unit.sinks import test_webhook_body

GOFF = Path("tests/goff")
PARTITION = Partition("t", 0)


def upstream_event(user: str, date: int, value: str) -> bytes:
    """Return an event of upstream's exporter tests."""
    return (
        f'{{"kind":"feature","contextKind":"anonymousUser","userKey":"{user}","creationDate":{date},'
        f'"key":"random-key","variation":"Default","value":"{value}","default":false,"version":"",'
        '"source":"SERVER"}'
    ).encode()


EVENTS = [upstream_event("ABCD", 1617970547, "YO"), upstream_event("EFGH", 1617970701, "YO2")]


def written(format: Format, values: list[bytes]) -> bytes:
    encoder = format.begin(PARTITION)
    assert not encoder.add(values, [StoredRecord(n, value) for n, value in enumerate(values)])
    manifest = Manifest(OffsetRange(PARTITION, 0, len(values)), len(values), "d", "c")
    return b"".join(encoder.finish(manifest))


def csv_default(path: Path) -> None:
    """The default template writes the file from the events of upstream's test."""
    expected = path.read_bytes()
    format = CsvFormat(DEFAULT_TEMPLATE, Compression("none", 1))
    assert expected == written(format, EVENTS[: expected.count(b"\n")])


def csv_custom(path: Path) -> None:
    """So does the template of upstream's test."""
    expected = path.read_bytes()
    format = CsvFormat("{{ .Kind}};{{ .ContextKind}}\n", Compression("none", 1))
    assert expected == written(format, EVENTS[: expected.count(b"\n")])


def json_lines(path: Path) -> None:
    """The events of the file pass the worker unchanged and are written as the file's bytes."""
    lines = path.read_bytes().splitlines()
    assert [json.loads(line)["userKey"] for line in lines] == ["ABCD", "EFGH"][: len(lines)]
    transform = Transform(FlagSet())
    outputs = [transform(line) for line in lines]
    assert lines == outputs
    assert path.read_bytes() == written(JsonLinesFormat(Compression("none", 1)), lines)


def webhook(path: Path) -> None:
    """Compare body and signature, byte for byte."""
    assert path.resolve() in test_webhook_body.UPSTREAM
    test_webhook_body.TestGoFeatureFlag().test_upstream_golden_files(path.resolve())


def flag_file(path: Path) -> None:
    """Flags, variations, trackEvents and disabled ones as the table in tests/unit/test_flags.py has them."""
    (row,) = (row for row in test_flags.FILES if row[0] == str(path.relative_to(GOFF)))
    test_flags.test_upstream_files_are_read(*row)


def unreadable(path: Path) -> None:
    """A file that does not parse is one error; the caller keeps the old flags."""
    with pytest.raises(FlagFileError):
        parse_flags(path.read_bytes(), "json", test_flags.NOW)


def rollout(path: Path) -> None:
    """A flag with this rollout, in the form of the version that it belongs to, is read."""
    format = FORMATS[path.suffix]
    old = path.stem.endswith("_v0")
    text = path.read_text()
    if not old:
        text = text.replace("scheduled", "scheduledRollout")
    flags = parse_flags((_V0 if old else _V1)[format](text), format, test_flags.NOW)
    assert (list(flags), dict(flags.invalid)) == (["f"], {})


_VALUES = '"true": true, "false": false, "default": false'
_V0: dict[str, Callable[[str], str]] = {
    "json": lambda text: f'{{"f": {{{_VALUES}, "rollout": {text}}}}}',
    "yaml": lambda text: f"f:\n  true: true\n  false: false\n  rollout:\n{indent(text, '    ')}",
    "toml": lambda text: f"[f]\ntrue = true\nfalse = false\n{_below(text, 'f.rollout.')}",
}
_V1: dict[str, Callable[[str], str]] = {
    "json": lambda text: f'{{"f": {{"variations": {{"A": true}}, {text.strip()[1:-1]}}}}}',
    "yaml": lambda text: f"f:\n  variations: {{A: true}}\n{indent(text, '  ')}",
    "toml": lambda text: f"[f]\nvariations = {{A = true}}\n{_below(text, 'f.')}",
}


def _below(toml: str, prefix: str) -> str:
    return re.sub(r"^(\[+)", rf"\1{prefix}", toml, flags=re.MULTILINE)


def flag_schema(path: Path) -> None:
    """What the worker reads of a flag has the name and type that the schema gives it."""
    flag = json.loads(path.read_text())["$defs"]["DTO"]["properties"]
    types = {name: flag[name]["type"] for name in ("variations", "trackEvents", "disable", "version")}
    assert types == {
        "variations": "object",
        "trackEvents": "boolean",
        "disable": "boolean",
        "version": "string",
    }
    assert flag["scheduledRollout"]["type"] == "array"


def relay_flags(path: Path) -> None:
    """A relay's answer gives flags, none of them invalid."""
    document = json.loads(path.read_text())["flags"]
    flags = parse_flags(json.dumps(document), "json", test_flags.NOW)
    assert (set(document), dict(flags.invalid)) == (set(flags), {})


def relay_flags_request(path: Path) -> None:
    """The body that a relay is asked with: no names for all flags, else those wanted."""
    names = json.loads(path.read_text())["flags"]
    assert all(isinstance(name, str) for name in names)


def collected(path: Path) -> None:
    """The request's event becomes what upstream's exporter is expected to write."""
    test_transform.test_the_collector_fixtures_come_out_as_upstream_exports_them(
        Transform, "with_source_field" if "source_field" in path.name else "valid"
    )


def collected_v1_23(path: Path) -> None:
    """The earlier version's event passes; its date in milliseconds becomes seconds, as in later relays."""
    if path.name.startswith(("request", "valid_request")):
        (event,) = json.loads(path.read_text())["events"]
        assert isinstance(decode(json.dumps(event).encode()), Event)
    else:
        line = path.read_bytes().strip()
        output = Transform(FlagSet())(line)
        assert output == re.sub(rb'("creationDate":\d{10})\d*', rb"\1", line)


def relay_records(path: Path) -> None:
    """A real relay's records pass byte for byte, through the worker and into JSON lines."""
    test_transform.test_what_a_real_relay_wrote_passes_byte_for_byte(Transform)
    lines = path.read_bytes().splitlines()
    assert path.read_bytes() == written(JsonLinesFormat(Compression("none", 1)), lines)


def format_vectors(path: Path) -> None:
    """Check each value as a log line, a CSV row and a Parquet value."""
    vectors = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    assert len(vectors) == 27
    for vector in vectors:
        test_lines.test_as_go_feature_flag(vector)
        test_csv.test_as_go_feature_flag(vector)
        test_parquet.test_value_as_go_feature_flag(vector)


def webhook_vectors(path: Path) -> None:
    """Compare each body and signature, byte for byte."""
    for vector in test_webhook_body.VECTORS:
        test_webhook_body.TestGoFeatureFlag().test_body_and_signature(vector)


BOTH = ("v1.23.1", "v1.55.2")
COLLECTOR = "v1.55.2/cmd/relayproxy/testdata/goff/collect_eval_data"
COLLECTOR_V1_23 = "v1.23.1/cmd/relayproxy/testdata/controller/collect_eval_data"
CONFIGURATION = "v1.55.2/cmd/relayproxy/testdata/goff/configuration"

CASES: dict[str, Callable[[Path], None]] = {
    **{
        f"{v}/exporter/{e}/testdata/all_default.csv": csv_default
        for v in BOTH
        for e in ("fileexporter", "s3exporterv2")
    },
    **{
        f"{v}/exporter/{e}/testdata/custom_csv_format.csv": csv_custom
        for v in BOTH
        for e in ("fileexporter", "s3exporterv2")
    },
    **{
        f"{v}/exporter/{e}/testdata/all_default.json": json_lines
        for v in BOTH
        for e in ("fileexporter", "s3exporterv2")
    },
    **{f"{v}/exporter/fileexporter/testdata/custom_file_name.json": json_lines for v in BOTH},
    **{
        f"{v}/exporter/webhookexporter/testdata/valid_{w}_signature.json": webhook
        for v in BOTH
        for w in ("with", "without")
    },
    **{file: flag_file for file, *_ in test_flags.FILES},
    "v1.55.2/testdata/invalid-flag-config.json": unreadable,
    **{f"{v}/testdata/internal/dto/rollout.{x}": rollout for v in BOTH for x in ("yaml", "json", "toml")},
    **{f"{v}/testdata/internal/dto/rollout_v0.{x}": rollout for v in BOTH for x in ("yaml", "json", "toml")},
    "v1.55.2/.schema/flag-schema.json": flag_schema,
    **{
        f"{CONFIGURATION}/responses/{name}.json": relay_flags
        for name in ("empty", "empty2", "empty-flag-array", "filter-flags")
    },
    **{
        f"{CONFIGURATION}/requests/{name}.json": relay_flags_request
        for name in ("empty-flag-array", "filter-flags")
    },
    **{
        f"{COLLECTOR}/{name}.json": collected
        for name in (
            "valid_request",
            "valid_collected_data",
            "request_with_source_field",
            "collected_data_with_source_field",
        )
    },
    **{
        f"{COLLECTOR_V1_23}/{name}.json": collected_v1_23
        for name in (
            "valid_request",
            "valid_collected_data",
            "request_with_source_field",
            "collected_data_with_source_field",
        )
    },
    "relay-kafka/records.jsonl": relay_records,
    "generated/format_vectors.jsonl": format_vectors,
    "generated/webhook_vectors.jsonl": webhook_vectors,
}

NOT_COPIED = {
    f"v1.55.2/cmd/relayproxy/testdata/config/{name}": "a relay's configuration; the worker does not read it"
    for name in (
        "all-default.yaml",
        "valid-env-exporters-kafka.yaml",
        "valid-file.json",
        "valid-file.toml",
        "valid-file.yaml",
        "valid-yaml-exporter-and-exporters.yaml",
        "valid-yaml-multiple-exporters.yaml",
    )
}
DIFFERENT = NOT_COPIED | {
    f"{CONFIGURATION}/requests/empty.json": "an empty request; the worker always sends a body",
    **{
        f"{folder}/{name}.json": "the relay's HTTP collector, which is not part of the worker"
        for folder in (COLLECTOR, COLLECTOR_V1_23)
        for name in ("valid_response", "invalid_request", "invalid_request_data_null")
    },
}
"""Files that no check can concern; docs/compatibility.md has the reasons."""


@pytest.mark.parametrize("file", CASES)
def test_upstream_file(file: str) -> None:
    """The worker agrees with GO Feature Flag about this file."""
    CASES[file](GOFF / file)


def test_every_file_is_in_the_table() -> None:
    """No file of upstream lies here unused, and none that the table names is missing."""
    present = {str(path.relative_to(GOFF)) for path in GOFF.rglob("*") if path.is_file()}
    assert present - {"LICENSE.upstream"} == CASES.keys() | DIFFERENT.keys() - NOT_COPIED.keys()


@pytest.mark.parametrize("file", DIFFERENT)
def test_differences_are_documented(file: str) -> None:
    """What we do not do as upstream does stands in the document, file by file."""
    text = Path("docs/compatibility.md").read_text()
    assert Path(file).name in text
