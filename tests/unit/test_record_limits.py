"""How large a record a topic takes, by the settings that the broker reports."""

import pytest

from flagstream.record_limits import LARGEST_LIMIT, SMALLEST_LIMIT, reported_limit, too_small


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"max.message.bytes": "1048588"}, 1_048_588),
        ({"max.message.bytes": str(2**31 - 1)}, LARGEST_LIMIT),
        ({"max.message.bytes": ""}, None),
        ({"max.message.bytes": "unlimited"}, None),
        ({}, None),
    ],
)
def test_the_limit_is_what_the_broker_reports(config: dict[str, str], limit: int | None) -> None:
    """A limit above librdkafka's is cut to that; a broker that reports none leaves it to the caller."""
    assert reported_limit(config) == limit


def test_a_topic_must_take_a_dead_letter_with_its_headers() -> None:
    """A smaller limit is reported with the number to set; a limit that is not reported is not refused."""
    fault = too_small({"max.message.bytes": str(SMALLEST_LIMIT - 1)})
    assert fault is not None
    assert f"set max.message.bytes to {SMALLEST_LIMIT} or more" in fault
    assert too_small({"max.message.bytes": str(SMALLEST_LIMIT)}) is None
    assert too_small({}) is None
