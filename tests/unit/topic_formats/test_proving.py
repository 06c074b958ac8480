"""What `flagstream check` finds of the schema registry and of schema files, without registering anything."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flagstream.config import Settings, load
from flagstream.outcomes import Proof
from flagstream.topic_formats.building import probe
from tests.unit.topic_formats.test_registry import MISSING, RECORD, Answer, Canned

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def canned() -> Iterator[Canned]:
    registry = Canned()
    yield registry
    registry.server.shutdown()
    registry.server.server_close()


def settings(folder: Path, *lines: str, url: str = "http://127.0.0.1:1") -> Settings:
    path = folder / "flagstream.toml"
    text = f'[flags]\npath = "f.yaml"\n[registry]\nurl = "{url}"\ntimeout = "5s"\n[topics]\n'
    path.write_text(text + "\n".join(lines))
    return load(path, {})


def proofs(canned: Canned, folder: Path, *lines: str, enrich: bool = True) -> list[Proof]:
    url = f"http://127.0.0.1:{canned.server.server_port}/api"
    return list(probe(settings(folder, *lines, url=url), enrich=enrich))


def test_json_needs_no_registry(tmp_path: Path) -> None:
    """It is not asked then."""
    assert list(probe(settings(tmp_path), enrich=True)) == []


def test_a_registry_that_does_not_answer_is_named(tmp_path: Path) -> None:
    """The problem names it by its address, so that people know which one is meant."""
    (proof,) = probe(settings(tmp_path, 'ingest_format = "avro"'), enrich=True)
    assert (proof.what, proof.outcome) == ("schema registry http://127.0.0.1:1", "failed")
    assert "does not answer" in proof.detail


def test_a_registry_that_only_the_ingest_topic_needs_is_read(tmp_path: Path, canned: Canned) -> None:
    """Nothing has to be registered there; a missing schema is an answer, too."""
    canned.answers = [MISSING]
    (proof,) = proofs(canned, tmp_path, 'ingest_format = "avro"')
    assert proof.outcome == "proved"
    assert proof.what == f"schema registry http://127.0.0.1:{canned.server.server_port}/api"
    assert [request for request, _ in canned.requests] == ["GET /api/schemas/ids/1"]
    assert proofs(canned, tmp_path, 'ingest_format = "avro"', enrich=False) == []


@pytest.mark.parametrize(
    ("answers", "lines", "outcome", "detail"),
    [
        ([(200, '{"id": 7}')], (), "proved", "is registered with the id 7"),
        ([MISSING, (200, '{"is_compatible": true}')], (), "failed", "register avro/enriched_event.avsc"),
        ([MISSING, (200, '{"is_compatible": false}')], (), "failed", "compatibility forbid it"),
        (
            [MISSING, (200, '{"is_compatible": true}')],
            ("auto_register",),
            "unproved",
            "a worker would register it",
        ),
        ([(503, "{}")], (), "failed", "answered 503"),
    ],
)
def test_the_schema_of_the_output_topic_is_looked_for(
    tmp_path: Path,
    canned: Canned,
    answers: list[Answer],
    lines: tuple[str, ...],
    outcome: str,
    detail: str,
) -> None:
    """Under its subject; nothing is written, also where a worker would register it."""
    canned.answers = [(200, RECORD), *answers]
    url = f"http://127.0.0.1:{canned.server.server_port}/api"
    made = settings(tmp_path, 'output_format = "avro"', url=url)
    if lines:
        made = made.model_copy(update={"registry": made.registry.model_copy(update={"auto_register": True})})
    there, schema = probe(made, enrich=False)
    assert there.outcome == "proved"
    assert (schema.what, schema.outcome) == ('schema under "flag-evaluations-enriched-value"', outcome)
    assert detail in schema.detail
    assert not [request for request, _ in canned.requests if "/versions?" in request]


@pytest.mark.parametrize(("key", "enrich"), [("ingest", True), ("output", False)])
def test_schema_files_are_read(tmp_path: Path, key: str, enrich: bool) -> None:
    """A worker would end at its start with one that is missing or no schema."""
    own = REPOSITORY / "avro" / ("raw_event.avsc" if key == "ingest" else "enriched_event.avsc")
    lines = (f'{key}_format = "avro"', f'{key}_schema = "PATH"')
    outcomes = []
    for path in (own, tmp_path / "none.avsc", tmp_path / "flagstream.toml"):
        made = settings(tmp_path, *(line.replace("PATH", str(path)) for line in lines))
        (proof,) = probe(made, enrich=enrich)
        assert proof.what == f"topics.{key}_schema"
        outcomes.append(proof.outcome)
    assert outcomes == ["proved", "failed", "failed"]
