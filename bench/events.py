"""The events of the benchmark: evaluations as a relay writes them, with key, of tracked and untracked
flags.
"""

import json

FLAGS = """
new-checkout:
  variations: {on: true, off: false}
  defaultRule: {variation: on}
  version: "1.4"
banner:
  variations: {a: {n: 1, text: hi}, b: {n: 2.5, text: yo}}
  defaultRule: {variation: a}
quiet:
  variations: {on: true, off: false}
  defaultRule: {variation: on}
  trackEvents: false
"""
UNTRACKED = "quiet"

PARTITIONS = 8
"""Of the topics that hold them."""

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
Headers = list[tuple[str, str | bytes | None]] | None


def event(number: int) -> tuple[bytes, bytes]:
    """Key and value of event ``number``: of 20, 16 need nothing, 2 lack source and version, 2 are not
    tracked.
    """
    user = f"user-{number % 50_000}"
    fields: dict[str, object] = {
        "kind": "feature",
        "contextKind": "user",
        "userKey": user,
        "creationDate": 1_795_396_345 + number // 1_000,
        "key": "new-checkout",
        "variation": "on",
        "value": True,
        "default": False,
        "version": "1.4",
        "source": "SERVER",
    }
    if number % 10 == 3:
        fields["key"] = UNTRACKED
    if number % 10 == 7:
        del fields["version"], fields["source"]
    return user.encode(), json.dumps(fields, separators=(",", ":")).encode()


def tracked(count: int) -> int:
    """How many of events 0 to ``count`` are of tracked flags, and so reach the output topic."""
    return count - (count + 6) // 10


def fill(bootstrap: str, topic: str, count: int, headers: bool = False) -> None:
    """Produce events 0 to ``count``."""
    from confluent_kafka import Producer

    producer = Producer(
        {"bootstrap.servers": bootstrap, "queue.buffering.max.messages": 200_000, "linger.ms": 20}
    )
    for number in range(count):
        key, value = event(number)
        extra: Headers = None
        if headers:
            extra = [("traceparent", TRACE)]
        while True:
            try:
                producer.produce(topic, value, key, headers=extra)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(120):
        raise RuntimeError(f"not all events reached {topic}")
