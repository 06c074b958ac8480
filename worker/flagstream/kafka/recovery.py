"""When an error that librdkafka told is over. It never says so; its statistics have to prove it.

What they said when brokers were stopped, frozen and thawed, and topics deleted and created again (*seen*,
librdkafka 2.16):

* ``join_state`` stays ``steady`` until the session has ended, and while topics are gone: it proves nothing by
  itself. While a member waits for the session of a dead one it is ``wait-join``, although nothing is wrong.
* ``cgrp.state`` leaves ``up`` when the coordinator's connection ends. A frozen broker takes connections, but
  stays in ``APIVERSION_QUERY``; ``UP`` is only what has answered.
* A partition's ``broker`` becomes -1 when its leader's connection ends or its topic is gone (``leader`` stays
  as it was); one that is gone is ``unknown``, until the topic is there again.
"""

from collections.abc import Collection, Mapping
from typing import Any

from confluent_kafka import KafkaError

_NO_TOPIC = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}


def recovered(
    code: int, since: float, statistics: Mapping[str, Any], topic: str, held: Collection[int], *, moved: bool
) -> bool:
    """Whether ``statistics``, collected ``since`` seconds after the error ``code`` was told last, prove that
    it is over. ``held`` are the partitions of ``topic`` that the consumer holds; ``moved``: records of them
    have come since then.
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
    if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:  # told once, and then tried again without a word
        return bool(held) and (moved or group["rebalance_age"] < since * 1e3)
    return code < 0 or group["join_state"] == "steady"  # below 0 it was not the broker that said so
