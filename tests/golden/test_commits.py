"""What stands in Kafka and in objects of itself is byte for byte what the old version wrote: a fleet may have
workers of both.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden import observe
from tests.golden.today import TODAY

DATA = Path(__file__).with_name("data")


def fixture(name: str) -> list[Any]:
    """Return the cases in a fixture."""
    return list(json.loads((DATA / f"{name}.json").read_text()))


METADATA = fixture("metadata")
METADATA_READ = fixture("metadata_read")
MANIFESTS = fixture("manifests")
DEAD_LETTERS = fixture("dead_letters")
DIGESTS = fixture("digests")
FINGERPRINTS = fixture("fingerprints")


@pytest.mark.parametrize("case", METADATA, ids=range(len(METADATA)))
def test_metadata_is_written_as_before(case: Any) -> None:
    """The metadata beside an offset, of every kind of plan, is the same text."""
    assert observe.metadata_text(TODAY, case["fields"]) == case["text"]


@pytest.mark.parametrize("case", METADATA_READ, ids=range(len(METADATA_READ)))
def test_metadata_is_understood_as_before(case: Any) -> None:
    """What an older, a newer or another program left beside an offset means the same as it did."""
    assert observe.metadata_meaning(TODAY, case["text"]) == case["meaning"]


@pytest.mark.parametrize("case", MANIFESTS, ids=range(len(MANIFESTS)))
def test_manifests_are_written_and_read_as_before(case: Any) -> None:
    """The manifest in an object is the same text, and a stored one is read back whole."""
    assert observe.manifest_text(TODAY, case["fields"]) == case["text"]
    assert TODAY.parse_manifest(case["text"].encode()) == observe.manifest(TODAY, case["fields"])


@pytest.mark.parametrize("case", DIGESTS, ids=range(len(DIGESTS)))
def test_digests_are_computed_as_before(case: Any) -> None:
    """The same records have the same content digest."""
    assert observe.digest(TODAY, case["values"]) == case["digest"]


@pytest.mark.parametrize("case", DEAD_LETTERS, ids=range(len(DEAD_LETTERS)))
def test_dead_letters_are_made_as_before(case: Any) -> None:
    """Key, value and headers of a dead letter are the same, cut at the same places."""
    assert observe.dead_letter(TODAY, case) == case["letter"]


@pytest.mark.parametrize(
    "case", FINGERPRINTS, ids=[f"{case['settings']['type']}-{at}" for at, case in enumerate(FINGERPRINTS)]
)
def test_fingerprints_are_the_same(case: Any) -> None:
    """A sink's fingerprint is the same: another one would stop every partition with a plan at an upgrade."""
    assert observe.fingerprint(TODAY, case["settings"]) == case["fingerprint"]


def test_every_sink_has_a_dozen_fingerprints() -> None:
    """The fixture has at least twelve settings for each type of sink that the old version had, other Kafka
    clusters by themselves. A new type of sink is not in it.
    """
    kinds = [
        f"{case['settings']['type']}{' elsewhere' if 'bootstrap_servers' in case['settings'] else ''}"
        for case in FINGERPRINTS
    ]
    often = {kind for kind in kinds if kinds.count(kind) >= 12}
    assert often == set(kinds)
    assert often - {"kafka elsewhere"} <= set(TODAY.SINKS)
