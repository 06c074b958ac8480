"""Offset metadata: what is written is read back, and what is not ours is told apart."""

import json

import pytest

from flagstream.kafka.commit_metadata import Committed, Division, GroupStart, MetadataUnreadable, Plan

PLAN = Plan(end=57, records=40, digest="sha256:ab", config="f00")


def test_a_plain_commit_is_as_short_as_it_can_be() -> None:
    """Nothing but the version, which tells our commits from an operator's reset."""
    assert Committed().text() == '{"v":1}'


def test_a_plan_is_written_in_full() -> None:
    """End, count, digest and fingerprint, under the names that other versions rely on."""
    assert json.loads(Committed(PLAN).text()) == {
        "v": 1,
        "end": 57,
        "n": 40,
        "digest": "sha256:ab",
        "cfg": "f00",
    }


@pytest.mark.parametrize(
    "committed",
    [
        Committed(),
        Committed(PLAN),
        Committed(PLAN, range_start=12, topic_id="AAAA", group_start=GroupStart(1_700_000_000_000, 8)),
        Committed(Plan(end=1, records=0, digest="", config="")),
        Committed(range_start=0, group_start=GroupStart(0, 1)),
        Committed(Plan(57, 40, "d", "c", division=Division(0))),
        Committed(
            Plan(57, 40, "d", "c", (3,), Division(9, (12, 20), ((3, 4), (7, 9)), "413")), range_start=2
        ),
    ],
)
def test_what_is_written_is_read_back(committed: Committed) -> None:
    """Every field, zeros and empty texts included."""
    assert Committed.parse(committed.text()) == committed


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", "reset by ops", '{"v":0}', '{"v":"1"}', '{"end":57}', "null"]
)
def test_what_we_did_not_write_is_not_ours(text: str) -> None:
    """An operator's reset, or another tool's metadata, is no plan."""
    assert Committed.parse(text) == Committed(ours=False)


def test_a_newer_version_is_not_guessed_at() -> None:
    """A later worker's plan must not be passed over: the partition waits for one that understands it."""
    with pytest.raises(MetadataUnreadable, match="version 2"):
        Committed.parse('{"v":2,"end":57}')


def test_when_a_group_began_is_read_without_the_count_of_partitions() -> None:
    """Early commits lack it; to drop the time with it would lose what was committed."""
    assert Committed.parse('{"v":1,"since":5}').group_start == GroupStart(5, 0)


@pytest.mark.parametrize(
    "text",
    [
        '{"v":3,"end":57,"at":5}',
        '{"v":2}',
        '{"v":2,"end":57,"at":5,"cuts":"-"}',
        '{"v":2,"end":57,"at":5,"out":"1"}',
    ],
)
def test_what_decides_ids_is_not_guessed_at(text: str) -> None:
    """Neither a later version nor a division that makes no sense."""
    with pytest.raises(MetadataUnreadable):
        Committed.parse(text)


def test_a_divided_plan_is_refused_by_a_worker_that_does_not_know_it() -> None:
    """It looks at the version before anything else; to it the plan would be one of the whole window."""
    text = Committed(Plan(57, 40, "d", "c", division=Division(9, (12, 20), ((3, 4), (4, 6)), "403"))).text()

    assert json.loads(text) == {
        "v": 2,
        "end": 57,
        "n": 40,
        "digest": "d",
        "cfg": "c",
        "at": 9,
        "cuts": "3.8",
        "out": "3.3",
        "why": "403",
    }


def test_fields_of_a_later_worker_are_passed_over() -> None:
    """What is added without a new version may be ignored, by definition."""
    assert Committed.parse('{"v":1,"end":57,"n":40,"digest":"sha256:ab","cfg":"f00","new":[]}') == Committed(
        PLAN
    )


def test_a_plan_fits_into_kafkas_metadata() -> None:
    """4,095 characters at most; ours are a few hundred even with the largest numbers and a SHA-256."""
    largest = Committed(
        Plan(2**63 - 1, 100_000_000, "sha256:" + "f" * 64, "f" * 64),
        2**63 - 1,
        "i" * 22,
        GroupStart(2**63 - 1, 2**31),
    )

    assert len(largest.text()) < 500
