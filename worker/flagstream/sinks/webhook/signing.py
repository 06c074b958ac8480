"""The headers by which a receiver knows a request: GO Feature Flag's signature, and Standard Webhooks'.

Sources: GO Feature Flag's webhook exporter; the Standard Webhooks specification
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
"""

import base64
import binascii
import hmac
from collections.abc import Sequence

_ENCODED = "whsec_"
"""The beginning of a Standard Webhooks secret in base64."""


class Signer:
    """Signs with ``secret``, and for receivers that do not know it yet also with those of ``previous``.

    Without a secret there are no signatures. Raises ValueError for a secret that begins with ``whsec_`` and
    does not continue in base64; the message does not show the secret.
    """

    def __init__(self, secret: str | None, previous: Sequence[str] = ()) -> None:
        self._hub_key = secret.encode() if secret else None
        self._keys = [key_of(one) for one in (secret, *previous) if one]

    def headers(self, message_id: str, timestamp: int, body: bytes) -> list[tuple[str, str]]:
        """Return the headers of one try. ``timestamp`` is the time of this try in seconds since 1970,
        ``body`` the JSON before compression.
        """
        headers = [("webhook-id", message_id), ("webhook-timestamp", str(timestamp))]
        if self._keys:
            content = f"{message_id}.{timestamp}.".encode() + body
            signatures = " ".join(f"v1,{_base64_of(key, content)}" for key in self._keys)
            headers.append(("webhook-signature", signatures))
        if self._hub_key:
            digest = hmac.digest(self._hub_key, body, "sha256").hex()
            headers.append(("X-Hub-Signature-256", f"sha256={digest}"))
        return headers


def key_of(secret: str) -> bytes:
    """Return the key of a Standard Webhooks signature: the base64 after ``whsec_``, or else the text itself.

    Raises ValueError with a message that does not hold the secret.
    """
    if not secret.startswith(_ENCODED):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(_ENCODED), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise ValueError(f"begins with {_ENCODED} and does not go on in base64")
    return key


def _base64_of(key: bytes, content: bytes) -> str:
    return base64.b64encode(hmac.digest(key, content, "sha256")).decode()
