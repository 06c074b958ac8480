"""Checks that the schemas in avro/ go with all their former versions; `make check` runs it.

Both ways, whatever the version: data of a former version can be read with today's schema (an upgraded reader
in front of old records), and today's data with a former one (a reader not upgraded yet). So a field can only
be added or removed with a default, and no type changes, but by promotion both ways, which there is none of.

Former versions stand in avro/history/<name>.<number>.avsc and never change; the highest is today's. The rules
of schema resolution are applied by Apache's own library.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import Schema, parse

FOLDER = Path(__file__).resolve().parents[2] / "avro"


def problems(folder: Path = FOLDER) -> Iterator[str]:
    """Each thing that is wrong, for people; nothing when all is well."""
    for file in sorted(folder.glob("*.avsc")):
        yield from _problems(file, _versions(folder / "history", file.stem))


def _versions(history: Path, name: str) -> list[Path]:
    return sorted(history.glob(f"{name}.*.avsc"), key=lambda path: int(path.suffixes[0][1:]))


def _problems(file: Path, versions: list[Path]) -> Iterator[str]:
    if not versions or json.loads(versions[-1].read_text()) != json.loads(file.read_text()):
        yield (
            f"{file.name} is not its newest version: copy it to history/{file.stem}.{len(versions) + 1}.avsc"
        )
    today = parse(file.read_text())
    for version in versions:
        former = parse(version.read_text())
        for fault in _faults(today, former):
            yield f"{file.name} cannot read data of {version.name}: {fault}"
        for fault in _faults(former, today):
            yield f"{version.name} cannot read data of {file.name}: {fault}"


def _faults(reader: Schema, writer: Schema) -> list[str]:
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    found = checker.get_compatibility(reader, writer)
    return [] if found.compatibility is SchemaCompatibilityType.compatible else sorted(found.messages)


if __name__ == "__main__":
    found = list(problems())
    print("\n".join(found) or "the schemas go with their former versions", file=sys.stderr)
    sys.exit(bool(found))
