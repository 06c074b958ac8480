"""Values of an event as text, without decoding more of their JSON than is shown."""

import msgspec

Value = msgspec.Raw | str | None
"""JSON text, a plain text, or nothing: a member that the event lacks."""

split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""The members of a JSON object. Raises ValueError when it is none."""
_decode_text = msgspec.json.Decoder(str).decode


def plain(value: Value) -> str:
    """A string without its quotes, anything else as compact JSON; empty for nothing. Raises ValueError."""
    if value is None or isinstance(value, str):
        return value or ""
    text = bytes(value)
    if text.startswith(b'"'):
        return _decode_text(text)
    if text.startswith((b"{", b"[")):
        return msgspec.json.format(text, indent=-1).decode()
    return text.decode()


def member(value: Value, key: str) -> Value:
    """The member ``key`` of a JSON object; nothing when ``value`` has no such member or is no object."""
    if isinstance(value, msgspec.Raw) and bytes(value).startswith(b"{"):
        return split(value).get(key)
    return None
