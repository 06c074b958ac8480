"""The worker computes signatures as receivers do."""

import base64
import hashlib
import hmac
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from flagstream.sinks.webhook.signing import Signer

BODY = b'{"meta":{},"events":[]}'
ID = "evaluations-3-0-10"
AT = 1_700_000_000
KEY = bytes(range(24))
ENCODED = "whsec_" + base64.b64encode(KEY).decode()


def standard(key: bytes) -> str:
    """A signature as the Standard Webhooks specification has receivers compute it."""
    content = b".".join([ID.encode(), str(AT).encode(), BODY])
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def headers(*secrets: str) -> dict[str, str]:
    """Return the headers of a signer with the first secret in use, the others before it."""
    return dict(Signer(secrets[0] if secrets else None, secrets[1:]).headers(ID, AT, BODY))


def test_specification_example() -> None:
    """The signature matches the example of the specification's reference libraries: a fixed secret, id, time
    and body."""
    signer = Signer("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = dict(signer.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'))
    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_without_secret_no_signatures() -> None:
    """Id and time are always there: an id is what makes delivery exactly once."""
    assert headers() == {"webhook-id": ID, "webhook-timestamp": str(AT)}


def test_plain_secret() -> None:
    """A text is the key itself, in both signatures."""
    found = headers("secret")
    assert found["webhook-signature"] == standard(b"secret")
    assert found["X-Hub-Signature-256"] == f"sha256={hmac.new(b'secret', BODY, 'sha256').hexdigest()}"


def test_encoded_secret() -> None:
    """whsec_ is base64 for Standard Webhooks; GO Feature Flag's signature takes the text as it is."""
    found = headers(ENCODED)
    assert found["webhook-signature"] == standard(KEY)
    assert found["X-Hub-Signature-256"] == f"sha256={hmac.new(ENCODED.encode(), BODY, 'sha256').hexdigest()}"


def test_rotation() -> None:
    """Several secrets give several signatures, the one in use first; GO Feature Flag's has place for one."""
    found = headers("new", ENCODED, "older")
    assert found["webhook-signature"].split(" ") == [standard(b"new"), standard(KEY), standard(b"older")]
    assert found["X-Hub-Signature-256"] == headers("new")["X-Hub-Signature-256"]


def test_secret_that_is_no_base64() -> None:
    """A mistyped secret is an error that does not show it."""
    for bad in ("whsec_", "whsec_abc", "whsec_ab!d"):
        with pytest.raises(ValueError, match=r"^begins with whsec_ and does not go on in base64$"):
            Signer(bad)
    assert "secret" not in repr(Signer("secret"))


@pytest.mark.parametrize("secrets", [(ENCODED,), ("new", ENCODED), (ENCODED, "older")])
def test_the_reference_library_accepts_them(secrets: tuple[str, ...]) -> None:
    """Standard Webhooks' own library, with any one of the secrets, takes a request of now for genuine."""
    found = dict(Signer(secrets[0], secrets[1:]).headers(ID, int(time.time()), BODY))
    assert Webhook(ENCODED).verify(BODY, found) == {"meta": {}, "events": []}


@pytest.mark.parametrize("change", ["body", "webhook-id", "webhook-timestamp", "secret"])
def test_the_reference_library_refuses_what_was_changed(change: str) -> None:
    """Each part of a request is signed."""
    now = int(time.time())
    found = dict(Signer(ENCODED).headers(ID, now, BODY))
    if change == "webhook-id":
        found[change] = "evaluations-3-0-11"
    elif change == "webhook-timestamp":
        found[change] = str(now + 1)
    body = BODY + b" " if change == "body" else BODY
    secret = "whsec_" + base64.b64encode(KEY + b"x").decode() if change == "secret" else ENCODED
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(secret).verify(body, found)
