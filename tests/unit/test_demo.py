"""What the demo sends, and how it compares that with what it finds."""

import gzip
import random
import re
from dataclasses import replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import pytest
import yaml

from flagstream.demo.ledger import Ledger
from flagstream.demo.samples import BROKEN_EVERY, Fate, Sample, Samples
from flagstream.enrich.transform import Transform
from flagstream.flags import parse_flags
from flagstream.outcomes import Dead, Drop

FLAGS = resources.files("flagstream.demo").joinpath("flags.yaml").read_bytes()


def test_each_sample_is_what_it_is_taken_for() -> None:
    """The worker's rules agree with its fate and find its variation, under the flags as it reads them."""
    transform = Transform(parse_flags(FLAGS, "yaml", datetime.now(UTC)))
    samples = Samples(yaml.safe_load(FLAGS), random.Random(1))
    fates = {bytes: Fate.EXPORT, Drop: Fate.DROP, Dead: Fate.DEAD}
    for sequence in range(BROKEN_EVERY * 5):
        sample = samples.make(sequence, 1_700_000_000.0)
        assert sample.fate == fates[type(transform(sample.value))], sample
    assert transform.unresolved == 0


# ── the audit ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def samples() -> list[Sample]:
    """Samples that are to be exported, the first of a demo."""
    maker = Samples(yaml.safe_load(FLAGS), random.Random(1))
    made = (maker.make(sequence, 1_700_000_000.0) for sequence in range(8))
    return [replace(sample, fate=Fate.EXPORT) for sample in made]


def audited(tmp_path: Path, samples: list[Sample], lines: list[bytes]) -> tuple[object, ...]:
    """What the audit finds in a file of ``lines`` when ``samples`` were sent."""
    ledger = Ledger()
    for sequence, sample in enumerate(samples):
        ledger.enter(sample)
        ledger.settle(sequence, sample.fate)
    path = tmp_path / "file.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines)))
    audit = ledger.audit([path])
    assert audit.clean is not bool(audit.missing or audit.twice or audit.foreign)
    return audit.events, audit.missing, audit.twice, audit.foreign


def test_an_audit_of_what_was_sent_is_clean(tmp_path: Path, samples: list[Sample]) -> None:
    """The audit accepts the events in any order."""
    assert audited(tmp_path, samples, [sample.value for sample in reversed(samples)]) == (8, [], [], [])


def test_an_audit_finds_what_is_missing_and_what_is_there_twice(
    tmp_path: Path, samples: list[Sample]
) -> None:
    """The audit names events by their sequence."""
    values = [sample.value for sample in samples]
    assert audited(tmp_path, samples, [values[0], values[2], values[2], *values[3:]]) == (8, [1], [2], [])


def test_an_audit_finds_events_that_were_not_sent_so(tmp_path: Path, samples: list[Sample]) -> None:
    """Another user under a known sequence, an unknown one, none; and an event that should be dropped."""
    values = [sample.value for sample in samples]
    values[3] = re.sub(rb'"userKey":"[^"]+"', b'"userKey":"somebody"', values[3])
    values += [b'{"sequence":8}', b"{}"]
    samples[5] = replace(samples[5], fate=Fate.DROP)
    assert audited(tmp_path, samples, values) == (10, [3], [], [3, 5, 8, None])
