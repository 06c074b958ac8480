"""Records that are no event, or only just one: what producers, and accidents, put into an ingest topic."""

from collections.abc import Iterator

ACCEPTED = "accepted"

KEYS = b'"kind":"feature","userKey":"u1","key":"new-checkout"'
EVENT = b"{" + KEYS + b',"creationDate":1618228297,"value":true}'

MEBIBYTE = 1 << 20


def event(*fields: bytes) -> bytes:
    """Return a feature event with these fields more, or once more."""
    return EVENT[:-1] + b"".join(b"," + field for field in fields) + b"}"


def _records() -> Iterator[tuple[str, bytes | None, str]]:
    yield "tombstone", None, "tombstone"
    yield "empty", b"", "empty"
    yield "blank", b" \r\n\t ", "empty"
    yield "text", b"hello", "invalid_json"
    yield "truncated", EVENT[:-1], "invalid_json"
    yield "trailing garbage", EVENT + b"x", "invalid_json"
    yield "two objects", EVENT + EVENT, "invalid_json"
    yield "trailing comma", EVENT[:-1] + b",}", "invalid_json"
    yield "single quotes", EVENT.replace(b'"', b"'"), "invalid_json"
    yield "byte order mark", b"\xef\xbb\xbf" + EVENT, "invalid_json"
    yield "UTF-16", EVENT.decode().encode("utf-16"), "invalid_json"
    yield "Avro of a registry's serializer", b"\x00\x00\x00\x00\x01\x0efeature", "invalid_json"
    yield "gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "invalid_json"
    yield "invalid UTF-8 in the key", EVENT.replace(b"new-", b"\xff"), "invalid_json"
    yield "invalid UTF-8 in the value", EVENT.replace(b"true", b'"\xff"'), "invalid_json"
    yield "invalid UTF-8 in metadata", event(b'"metadata":{"a":"\xc0\x80"}'), "invalid_json"
    yield "invalid UTF-8 in a field's name", event(b'"\xe9":1'), "invalid_json"
    yield "half of a surrogate pair", EVENT.replace(b"true", rb'"\ud800"'), "invalid_json"
    yield "line break in a string", EVENT.replace(b"new-", b"new\n"), "invalid_json"
    yield "line break in the value", EVENT.replace(b"true", b'"a\nb"'), "invalid_json"
    yield "NaN", EVENT.replace(b"true", b"NaN"), "invalid_json"
    yield "Infinity", EVENT.replace(b"true", b"-Infinity"), "invalid_json"
    yield "leading zero", EVENT.replace(b"true", b"01"), "invalid_json"
    yield "array", b"[" + EVENT + b"]", "not_an_object"
    yield "string", b'"event"', "not_an_object"
    yield "number", b"42", "not_an_object"
    yield "null", b"null", "not_an_object"
    yield "empty object", b"{}", "missing_field"
    yield "no kind", EVENT.replace(b'"kind":"feature",', b""), "missing_field"
    yield "no user key", EVENT.replace(b'"userKey":"u1",', b""), "missing_field"
    yield "no creation date", EVENT.replace(b',"creationDate":1618228297', b""), "missing_field"
    yield "no flag key", EVENT.replace(b',"key":"new-checkout"', b""), "missing_field"
    yield "no value", EVENT.replace(b',"value":true', b""), "missing_field"
    yield "names in another case", EVENT.replace(b"userKey", b"UserKey"), "missing_field"
    for name in ("kind", "userKey", "creationDate", "key"):
        yield f"null {name}", event(b'"%s":null' % name.encode()), "wrong_type"
    for name in ("kind", "userKey", "key", "contextKind", "variation", "source"):
        yield f"number as {name}", event(b'"%s":5' % name.encode()), "wrong_type"
    for name in ("version", "default", "metadata", "evaluationContext", "trackingEventDetails"):
        yield f"array as {name}", event(b'"%s":[]' % name.encode()), "wrong_type"
    yield "text as default", event(b'"default":"true"'), "wrong_type"
    yield "number as default", event(b'"default":1'), "wrong_type"
    yield "text as metadata", event(b'"metadata":"{}"'), "wrong_type"
    yield "text as creationDate", event(b'"creationDate":"1618228297"'), "wrong_type"
    yield "fraction as creationDate", event(b'"creationDate":1618228297.5'), "wrong_type"
    yield "creationDate beyond int64", event(b'"creationDate":9223372036854775808'), "out_of_range"
    yield "creationDate below int64", event(b'"creationDate":-9223372036854775809'), "out_of_range"
    yield "huge creationDate", event(b'"creationDate":' + b"9" * 10_000), "out_of_range"
    yield "fraction of a second as creationDate", event(b'"creationDate":1.6802460005e9'), "wrong_type"
    yield "whole creationDate beyond int64", event(b'"creationDate":1e19'), "wrong_type"
    yield "creationDate 1e999", event(b'"creationDate":1e999'), "out_of_range"
    yield "version 1e999", event(b'"version":1e999'), "out_of_range"
    yield "value nested deeply", EVENT.replace(b"true", b"[" * 50_000 + b"]" * 50_000), "too_deep"
    yield (
        "metadata nested deeply",
        event(b'"metadata":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
        "too_deep",
    )
    yield "unknown field nested deeply", event(b'"x":' + b"[" * 50_000 + b"]" * 50_000), "too_deep"
    yield "value one level too deep", EVENT.replace(b"true", b"[" * 500 + b"]" * 500), "too_deep"
    yield "5 MiB that are no JSON", b"x" * (5 * MEBIBYTE), "invalid_json"
    yield "5 MiB, truncated", EVENT[:-1] + b',"x":"' + b"a" * (5 * MEBIBYTE), "invalid_json"
    yield "5 MiB of zeros", bytes(5 * MEBIBYTE), "invalid_json"

    yield "5 MiB event", event(b'"x":"' + b"a" * (5 * MEBIBYTE) + b'"'), ACCEPTED
    yield "value as deep as may be", EVENT.replace(b"true", b"[" * 499 + b"]" * 499), ACCEPTED
    yield "brackets in a string", EVENT.replace(b"true", b'"\\"' + b"[{" * 5_000 + b'"'), ACCEPTED
    yield "key there twice, the last one wins", event(b'"key":"banner"'), ACCEPTED
    yield "variation there twice, empty first", event(b'"variation":"","variation":"on"'), ACCEPTED
    yield "variation there twice, empty last", event(b'"variation":"on","variation":""'), ACCEPTED
    yield "huge number as value", EVENT.replace(b"true", b"1e999"), ACCEPTED
    yield "many digits as value", EVENT.replace(b"true", b"9" * 10_000), ACCEPTED
    yield "null as value", EVENT.replace(b"true", b"null"), ACCEPTED
    yield "unknown fields", event(b'"x":1', b'"":{}'), ACCEPTED
    yield "empty strings", event(b'"kind":"","userKey":"","key":""'), ACCEPTED
    yield "nulls", event(b'"variation":null,"default":null,"version":null,"metadata":null'), ACCEPTED
    yield "white space around and inside", b" \n" + EVENT.replace(b",", b" ,\r\n\t") + b"\n\n", ACCEPTED
    yield "creationDate before 1970", event(b'"creationDate":-1'), ACCEPTED
    yield "creationDate in nanoseconds", event(b'"creationDate":1618228297123456789'), ACCEPTED
    yield "creationDate 1680246000.0", event(b'"creationDate":1680246000.0'), ACCEPTED
    yield "creationDate 1.680246e9", event(b'"creationDate":1.680246e9'), ACCEPTED
    yield "a registry's JSON serializer", b"\x00\x00\x00\x00\x01" + EVENT, ACCEPTED
    yield "a registry's JSON serializer, id 10", b"\x00\x00\x00\x00\n" + EVENT, ACCEPTED
    yield "U+0000 and U+2028", EVENT.replace(b"new-", "\\u0000\u2028".encode()), ACCEPTED


BROKEN_RECORDS: list[tuple[str, bytes | None, str]] = list(_records())
"""Name, value of the record, and the reason of its dead letter or `ACCEPTED`."""
