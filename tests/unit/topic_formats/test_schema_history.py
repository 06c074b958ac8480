"""What the check of the Avro schemas finds."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.schema_history import FOLDER, problems


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    """Return a copy of avro/."""
    return Path(shutil.copytree(FOLDER, tmp_path / "avro"))


def change(schemas: Path, *, versioned: bool, **field: object) -> None:
    """Add a field to the enriched event."""
    file = schemas / "enriched_event.avsc"
    schema = json.loads(file.read_text())
    schema["fields"].append(field)
    file.write_text(json.dumps(schema))
    if versioned:
        (schemas / "history" / "enriched_event.99.avsc").write_text(file.read_text())


def test_the_schemas_go_with_their_former_versions() -> None:
    """The repository's own history is accepted."""
    assert list(problems()) == []


def test_a_field_with_a_default_can_be_added(schemas: Path) -> None:
    """Old data gets the default, old readers pass over the field."""
    change(schemas, versioned=True, name="region", type=["null", "string"], default=None)

    assert list(problems(schemas)) == []


def test_a_field_without_a_default_is_found(schemas: Path) -> None:
    """Data of the former versions has nothing for it."""
    change(schemas, versioned=True, name="region", type="string")

    found = list(problems(schemas))

    assert len(found) == 2
    assert found[0].startswith("enriched_event.avsc cannot read data of enriched_event.1.avsc")


def test_a_change_has_to_become_a_version(schemas: Path) -> None:
    """Otherwise the next change would not be compared with it."""
    change(schemas, versioned=False, name="region", type=["null", "string"], default=None)

    assert list(problems(schemas)) == [
        "enriched_event.avsc is not its newest version: copy it to history/enriched_event.3.avsc"
    ]
