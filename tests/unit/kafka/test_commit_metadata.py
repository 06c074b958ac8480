"""The metadata of offsets: what a worker writes it reads back, and it recognises what no worker wrote."""

import json

import pytest

from flagstream.kafka.commit_metadata import Committed, Division, GroupStart, MetadataUnreadable, Plan

PLAN = Plan(end=57, records=40, digest="sha256:ab", config="f00")


def test_a_plain_commit_is_as_short_as_it_can_be() -> None:
    """A plain commit holds only the version, which distinguishes it from an operator's reset."""
    assert Committed().text() == '{"v":1}'


def test_a_plan_is_written_in_full() -> None:
    """A plan is written with its end, count, digest and fingerprint, under the names that other versions rely
    on.
    """
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
    """Every field is read back as it was written, including zeros and empty texts."""
    assert Committed.parse(committed.text()) == committed


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", "reset by ops", '{"v":0}', '{"v":"1"}', '{"end":57}', "null"]
)
def test_what_we_did_not_write_is_not_ours(text: str) -> None:
    """An operator's reset, or another tool's metadata, is not taken for a plan."""
    assert Committed.parse(text) == Committed(ours=False)


def test_a_newer_version_is_not_guessed_at() -> None:
    """A plan of a later version must not be ignored: the partition waits for a worker that understands it."""
    with pytest.raises(MetadataUnreadable, match="version 2"):
        Committed.parse('{"v":2,"end":57}')


def test_when_a_group_began_is_read_without_the_count_of_partitions() -> None:
    """Early commits lack the count of partitions. The time of the group's start is kept all the same."""
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
    """A later version, and a division that makes no sense, are unreadable: ids depend on them."""
    with pytest.raises(MetadataUnreadable):
        Committed.parse(text)


def test_a_divided_plan_is_refused_by_a_worker_that_does_not_know_it() -> None:
    """A worker that knows only version 1 looks at the version first, or it would take the plan for one of the
    whole window.
    """
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
    """Unknown fields within a known version are ignored."""
    assert Committed.parse('{"v":1,"end":57,"n":40,"digest":"sha256:ab","cfg":"f00","new":[]}') == Committed(
        PLAN
    )


def test_a_plan_fits_into_kafkas_metadata() -> None:
    """The text has at most 4,095 characters; with the largest numbers and a SHA-256 it has a few hundred."""
    largest = Committed(
        Plan(2**63 - 1, 100_000_000, "sha256:" + "f" * 64, "f" * 64),
        2**63 - 1,
        "i" * 22,
        GroupStart(2**63 - 1, 2**31),
    )

    assert len(largest.text()) < 500
