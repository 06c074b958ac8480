"""Finds out when an error that librdkafka reported is over: it never says so, its statistics prove it.

What they showed when brokers were stopped, frozen and thawed, and topics deleted and created again (*seen*,
librdkafka 2.16):

* ``join_state`` stays ``steady`` until the session has ended, and while topics are gone: it proves nothing by
  itself. While a member waits for the session of a dead one it is ``wait-join``, although nothing is wrong.
* ``cgrp.state`` leaves ``up`` when the connection to the coordinator ends. A frozen broker takes connections,
  but stays in ``APIVERSION_QUERY``; only a broker that has answered is ``UP``.
* A partition's ``broker`` becomes -1 when the connection to its leader ends or its topic is gone (``leader``
  does not change). A partition that is gone is ``unknown`` until the topic exists again.
"""

from collections.abc import Collection, Mapping
from typing import Any

from confluent_kafka import KafkaError

_NO_TOPIC = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}


def recovered(
    code: int, since: float, statistics: Mapping[str, Any], topic: str, held: Collection[int], *, moved: bool
) -> bool:
    """Whether ``statistics`` prove that the error ``code`` is over. They were collected ``since`` seconds
    after it was last reported.

    ``held`` are the partitions of ``topic`` that the consumer holds; ``moved``: records of them have come
    since.
    """
    brokers = statistics.get("brokers", {}).values()
    up = [broker for broker in brokers if broker["state"] == "UP"]
    if not any(0 <= broker["rxidle"] < since * 1e6 for broker in up):
        return False  # nobody has answered since
    group = statistics.get("cgrp", {})
    if group.get("state") != "up":
        return False
    leaders = {broker["nodeid"] for broker in up} - {-1}
    partitions = statistics.get("topics", {}).get(topic, {}).get("partitions", {})
    for found in (partitions.get(str(index)) for index in held):
        if found is None or found["unknown"] or found["broker"] not in leaders:
            return False
    if code in _NO_TOPIC:
        return bool(held)
    if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:  # reported once, then tried again silently
        return bool(held) and (moved or group["rebalance_age"] < since * 1e3)
    return code < 0 or group["join_state"] == "steady"  # a code below 0 is not the broker's
