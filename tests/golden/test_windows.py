"""A window becomes the same objects, requests, lines and records as the old version made of it."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden import observe
from tests.golden.decoded import decoded, same_libraries
from tests.golden.observe import bytes_of
from tests.golden.today import TODAY

DATA = Path(__file__).with_name("data")
RECORDS = json.loads((DATA / "records.json").read_text())
CASES = [case for kind in sorted(observe.SINKS) for case in json.loads((DATA / f"{kind}.json").read_text())]
FILES = [case for case in CASES if case["settings"]["type"] == "file"]


def understood(made: Any) -> Any:
    """What was made, with the content of every object in place of its bytes, and without their checksums."""
    if "requests" in made:
        return {**made, "requests": [_understood_request(one) for one in made["requests"]]}
    if "objects" in made:
        return {**made, "objects": {name: _understood(name, one) for name, one in made["objects"].items()}}
    return made


def _understood(name: str, stored: Any) -> Any:
    if isinstance(stored, str):
        return decoded(name, bytes_of(stored) or b"")
    beside = {key: value for key, value in stored.items() if key not in ("content", "crc32c", "metadata")}
    manifest = stored["metadata"]["flagstream"]
    return {**beside, "manifest": manifest, "content": decoded(name, bytes_of(stored["content"]) or b"")}


def _understood_request(request: Any) -> Any:
    body = bytes_of(request["body"]) or b""
    headers = {name: value for name, value in request["headers"].items() if name != "content-md5"}
    if "webhook-id" in headers:
        content: Any = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
    else:
        content = decoded(request["path"], body)
    return {**request, "headers": headers, "body": content}


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_a_window_is_made_as_before(case: Any) -> None:
    """Names, contents, manifests, ids, signatures, index objects and rejects are the same; compressed bytes
    too, where the libraries are those of the fixtures.
    """
    made = observe.SINKS[case["settings"]["type"]](TODAY, case, RECORDS[case["records"]])
    made = json.loads(json.dumps(made))

    assert understood(made) == understood(case["made"])
    if same_libraries():
        assert made == case["made"]


@pytest.mark.parametrize("case", FILES, ids=[case["case"] for case in FILES])
def test_what_was_stored_before_is_found(case: Any) -> None:
    """A window that the old version stored is listed under its range, and delivered again it is found there
    whole: nothing is stored twice, and nothing conflicts.
    """
    stored = case["made"]["objects"]
    records = RECORDS[case["records"]]
    end = records[-1]["offset"] + 1

    found = observe.found_again(TODAY, case, records, stored)

    assert {"held": [[True, case["start"], end]], "created": 0, "existing": len(stored)} == found
