"""What is shown of librdkafka's texts."""

import logging

import pytest

from flagstream.librdkafka_text import LOGGER, shown

TOKEN = "Failed to acquire SASL OAUTHBEARER token: you sent: POST /secret HTTP/1.1"


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        'Failed to retrieve OIDC token from "http://host/secret": secret',
        "Expected JSON of the token endpoint: secret",
    ],
)
def test_the_answer_of_a_token_endpoint_is_not_shown(text: str) -> None:
    """It can quote the request with its secret; that there was no token is said."""
    assert "secret" not in shown(text).replace("is not shown", "")
    assert "not shown" in shown(text)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms)",
        "SASL authentication error: Authentication failed: Invalid username or password",
        "Topic authorization failed",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    """They name the broker and the reason, and hold nothing of others."""
    assert shown(text) == text


def test_log_lines_go_the_same_way(caplog: pytest.LogCaptureFixture) -> None:
    """librdkafka logs what it also reports as an error."""
    with caplog.at_level(logging.ERROR, logger="librdkafka"):
        LOGGER.error("SASL [rdkafka#%s] %s", "consumer-1", TOKEN)

    assert "POST" not in caplog.text
    assert "OAUTHBEARER" in caplog.text
