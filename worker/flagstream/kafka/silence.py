"""Finds brokers that keep their connections but do not answer, such as a frozen one.

librdkafka reports them when its requests time out, which takes half a minute. Meanwhile the group would be
lost for no visible reason.
"""

from collections.abc import Callable, Mapping
from typing import Any

SILENT_SECONDS = 5.0
"""How long a broker may owe an answer. Of the requests to a broker a fetch takes longest: 0.5 s."""
LATE_SECONDS = 10.0
"""Statistics come every five seconds. If two are further apart than this, it was the process that stood
still.
"""


class BrokerSilence:
    """Looks in each of librdkafka's statistics for brokers that owe an answer. ``clock`` is monotonic.

    ``problem`` names them, for people; it is empty if there are none. The connection to the group's
    coordinator does not count: it owes an answer for as long as the group waits for a member.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.problem = ""
        self._clock = clock
        self._looked_at = clock()
        self._silent: dict[str, float] = {}

    def observe(self, brokers: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the statistics' part about ``brokers`` into account."""
        now = self._clock()
        on_time = now - self._looked_at <= LATE_SECONDS
        self._looked_at = now
        real = {name: broker for name, broker in brokers.items() if broker.get("source") != "logical"}
        owing = {name: broker for name, broker in real.items() if broker.get("waitresp_cnt", 0) > 0}
        found: dict[str, float] = {}
        for name, broker in owing.items():
            # A new connection has received nothing yet: then the time since the request counts.
            idle = broker["rxidle"] if broker["state"] == "UP" else broker.get("txidle", 0)
            known = self._silent.get(name)
            if idle / 1e6 > SILENT_SECONDS and on_time:
                found[name] = now - idle / 1e6 if known is None else known
            elif known is not None and broker["state"] != "UP":
                found[name] = known
        self._silent = found
        if not found:
            self.problem = ""
            return
        longest = now - min(found.values())
        self.problem = (
            f"{', '.join(sorted(found))}: no answer for {longest:.0f} s over a connection that stands: look "
            "whether the broker is frozen or overloaded; it is waited for"
        )
