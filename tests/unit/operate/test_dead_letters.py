"""The log shows dead letters at once, but not with a line for each."""

from structlog.testing import capture_logs

from flagstream.dead_letters import DeadLetter
from flagstream.operate.dead_letters import SUMMARY_SECONDS, DeadLetterLog, summary
from tests.support.virtual_time import in_virtual_time, passed


def letters(reason: str, *offsets: int) -> list[DeadLetter]:
    return [DeadLetter(None, None, [], reason, f"ingest-0@{offset}") for offset in offsets]


def test_a_summary_has_the_count_and_the_first_place_of_each_reason() -> None:
    """The reasons are in the order of the records."""
    found = [*letters("invalid_json", 3), *letters("too_large", 4), *letters("invalid_json", 5, 6)]

    assert summary(found) == {"invalid_json": (3, "ingest-0@3"), "too_large": (1, "ingest-0@4")}
    assert summary([]) == {}


@in_virtual_time
async def test_the_first_is_logged_at_once_and_the_rest_once_a_minute() -> None:
    """Nothing is left out: what comes in between is counted, also if nothing comes after it."""
    reported = DeadLetterLog(sink="archive")
    with capture_logs() as lines:
        reported.tell(summary(letters("invalid_json", 3, 4)))
        for offset in range(10, 20):
            reported.tell(summary(letters("invalid_json", offset)))
        assert len(lines) == 1
        await passed(SUMMARY_SECONDS + 1)
        assert len(lines) == 2
        await passed(10 * SUMMARY_SECONDS)
        assert len(lines) == 2
        reported.tell(summary(letters("invalid_json", 30)))

    assert [(line["count"], line["first"]) for line in lines] == [
        (2, "ingest-0@3"),
        (10, "ingest-0@10"),
        (1, "ingest-0@30"),
    ]
    assert {(line["event"], line["log_level"], line["sink"]) for line in lines} == {
        ("dead_letters", "warning", "archive")
    }


@in_virtual_time
async def test_a_burst_is_a_problem_until_it_is_over() -> None:
    """The problem has the count and the first place of the whole burst, and what to do."""
    reported = DeadLetterLog(sink="archive")
    reported.tell(summary(letters("invalid_json", 3, 4)))
    await passed(SUMMARY_SECONDS - 1)
    reported.tell(summary(letters("invalid_json", 9)))
    await passed(2)

    [problem] = reported.problems()
    assert problem.text.startswith(
        "invalid_json: 3 records became dead letters, the first ingest-0@3; look at"
    )
    await passed(2 * SUMMARY_SECONDS)
    assert list(reported.problems()) == []


@in_virtual_time
async def test_a_reason_does_not_wait_for_another() -> None:
    """Each has a minute of its own."""
    reported = DeadLetterLog()
    with capture_logs() as lines:
        reported.tell(summary(letters("invalid_json", 1)))
        reported.tell(summary(letters("too_large", 2)))

    assert [line["reason"] for line in lines] == ["invalid_json", "too_large"]


@in_virtual_time
async def test_what_has_not_been_told_is_told_at_the_end() -> None:
    """Nothing is logged after that line."""
    reported = DeadLetterLog()
    with capture_logs() as lines:
        reported.tell(summary(letters("invalid_json", 1)))
        reported.tell(summary(letters("invalid_json", 2)))
        reported.close()
        await passed(10 * SUMMARY_SECONDS)

    assert [line["first"] for line in lines] == ["ingest-0@1", "ingest-0@2"]
