"""Produces a record with a header whose name is not text, as clients in C or Go can write it and ours
cannot."""

import ctypes
from pathlib import Path

import confluent_kafka

_TOPIC, _VALUE, _KEY, _HEADERS, _END = 1, 4, 5, 10, 0
"""Of rd_kafka_vtype_t, which rd_kafka_producev() takes in front of each argument."""


def produce_with_header_name(
    bootstrap_servers: str, topic: str, key: bytes, value: bytes, name: bytes
) -> None:
    """Produce one record through the librdkafka that confluent-kafka's wheel brings, and wait for it."""
    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    library = ctypes.CDLL(str(next(folder.glob("librdkafka*"))))
    for function in (library.rd_kafka_conf_new, library.rd_kafka_new, library.rd_kafka_headers_new):
        function.restype = ctypes.c_void_p
    error = ctypes.create_string_buffer(512)
    conf = ctypes.c_void_p(library.rd_kafka_conf_new())
    library.rd_kafka_conf_set(conf, b"bootstrap.servers", bootstrap_servers.encode(), error, 512)
    client = ctypes.c_void_p(library.rd_kafka_new(0, conf, error, 512))
    headers = ctypes.c_void_p(library.rd_kafka_headers_new(ctypes.c_size_t(1)))
    library.rd_kafka_header_add(headers, name, ctypes.c_ssize_t(len(name)), b"v", ctypes.c_ssize_t(1))
    failed = library.rd_kafka_producev(
        client,
        *(_TOPIC, ctypes.c_char_p(topic.encode())),
        *(_VALUE, ctypes.c_char_p(value), ctypes.c_size_t(len(value))),
        *(_KEY, ctypes.c_char_p(key), ctypes.c_size_t(len(key))),
        *(_HEADERS, headers),
        _END,
    )
    assert not failed, error.value
    assert library.rd_kafka_flush(client, 30_000) == 0
    library.rd_kafka_destroy(client)
