"""The webhook sink passes the contract of sinks that deliver at least once, on a real receiver."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from flagstream.sinks.webhook.settings import WebhookSettings
from flagstream.sinks.webhook.sink import WebhookSink
from flagstream.testing import SinkContract
from tests.support.receiver import receiving


class _WebhookContract(SinkContract):
    """The contract, read back from what the receiver accepted."""

    sink_class = WebhookSink
    unacceptable = (
        b"",
        b"{",
        b"text",
        b"[]",
        b'{"userKey":"\xff"}',
        b'{"value":NaN}',
        b'{"a":1},{"b":2}',
        b'{"a":' + b"[" * 5000,
        b'{"a":"' + b"x" * 100_000 + b'"}',
    )

    @pytest.fixture(autouse=True)
    def place(self) -> Iterator[None]:
        with receiving() as self.receiver:
            yield

    def settings(self) -> WebhookSettings:
        return self.settings_of()

    def settings_of(self, **changes: object) -> WebhookSettings:
        settings = {
            "endpoint_url": SecretStr(self.receiver.url),
            "allow_private_addresses": True,
            "max_part_bytes": 100_000,
            **changes,
        }
        return WebhookSettings.model_validate(settings)

    def settings_of_another_shape(self) -> WebhookSettings:
        return self.settings_of(max_part_events=7)

    def refusing_settings(self) -> WebhookSettings:
        """The receiver is on the loopback address, which is not allowed."""
        return self.settings_of(allow_private_addresses=False)

    def read_back(self) -> list[bytes]:
        return self.receiver.values()


class TestWebhook(_WebhookContract):
    """Whole windows, and parts where they are large."""


class TestCompressedInSmallParts(_WebhookContract):
    """Requests of at most 300 events, with gzip and signatures."""

    def settings(self) -> WebhookSettings:
        return self.settings_of(max_part_events=300, compression="gzip", secret="secret")
