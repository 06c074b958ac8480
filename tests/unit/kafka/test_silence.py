"""A broker that keeps its connections and does not answer. The figures are like those seen with a frozen
one.
"""

from typing import Any

import pytest

from flagstream.kafka.silence import BrokerSilence


def broker(state: str, owed: int, received: float, asked: float, source: str = "learned") -> dict[str, Any]:
    """Return what librdkafka reports about a broker, in seconds ago; of a new connection it knows no
    times.
    """
    return {
        "source": source,
        "state": state,
        "waitresp_cnt": owed,
        "rxidle": round(received * 1e6),
        "txidle": round(asked * 1e6),
    }


class Watch:
    """Statistics that come every five seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.silence = BrokerSilence(lambda: self.now)

    def told(self, seconds: float = 5.0, **brokers: dict[str, Any]) -> str:
        self.now += seconds
        self.silence.observe(brokers)
        return self.silence.problem


def test_a_broker_that_owes_an_answer_is_named_until_it_answers() -> None:
    """A silent broker stays named while librdkafka connects to it again, which a frozen process's system
    accepts.
    """
    watch = Watch()

    assert watch.told(a=broker("UP", 1, 0.3, 0.3)) == ""
    assert watch.told(a=broker("UP", 1, 1.8, 1.8), b=broker("UP", 1, 0.1, 0.1)) == ""
    told = watch.told(a=broker("UP", 1, 6.8, 6.8), b=broker("UP", 1, 0.1, 0.1))
    assert told.startswith("a: no answer for 7 s")
    assert "look whether the broker is frozen" in told
    assert watch.told(a=broker("APIVERSION_QUERY", 1, 0, 0.9)).startswith("a: no answer for 12 s")
    assert watch.told(a=broker("UP", 1, 0.2, 0.2)) == ""


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(broker("UP", 0, 300.0, 300.0), id="asked nothing"),
        pytest.param(broker("UP", 1, 30.0, 30.0, "logical"), id="a coordinator that waits for a member"),
        pytest.param(broker("APIVERSION_QUERY", 1, 0, 0.9), id="just connected to"),
        pytest.param(broker("DOWN", 0, 0, 0), id="away, which librdkafka tells itself"),
    ],
)
def test_others_are_not_silent(other: dict[str, Any]) -> None:
    """Only a broker that was asked owes an answer."""
    assert Watch().told(a=other) == ""


def test_a_process_that_stood_still_blames_no_broker() -> None:
    """A process that was frozen has not read the answers that came meanwhile, so it blames no broker."""
    watch = Watch()
    watch.told(a=broker("UP", 1, 0.3, 0.3))

    assert watch.told(25.0, a=broker("UP", 1, 20.0, 20.0)) == ""
