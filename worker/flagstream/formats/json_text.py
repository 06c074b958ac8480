"""Values of an event as text. No more of their JSON is decoded than is shown."""

import msgspec

Value = msgspec.Raw | str | None
"""JSON text, a plain text, or nothing: a member that the event lacks."""

split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""Return the members of a JSON object. Raises ValueError for anything else."""
_decode_text = msgspec.json.Decoder(str).decode


def plain(value: Value) -> str:
    """Return a string without its quotes, and anything else as compact JSON; "" for None. Raises
    ValueError.
    """
    if value is None or isinstance(value, str):
        return value or ""
    text = bytes(value)
    if text.startswith(b'"'):
        return _decode_text(text)
    if text.startswith((b"{", b"[")):
        return msgspec.json.format(text, indent=-1).decode()
    return text.decode()


def member(value: Value, key: str) -> Value:
    """Return the member ``key`` of a JSON object; None if ``value`` has no such member or is not an
    object.
    """
    if isinstance(value, msgspec.Raw) and bytes(value).startswith(b"{"):
        return split(value).get(key)
    return None
