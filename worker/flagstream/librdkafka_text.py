"""librdkafka's errors and log lines as texts that may be shown.

Its texts name brokers, codes and properties, which help. But if it could not get an OAuth token, it quotes
the answer of the token endpoint, and some endpoints quote the whole request.
"""

import logging
import re

from confluent_kafka import KafkaError

_QUOTES = re.compile(r"(?i)((?:oauthbearer|oidc)[^:]*|token endpoint[^:]*):.*", re.DOTALL)


def words(error: KafkaError) -> str:
    """Return the error's text, without quotes of others."""
    return shown(error.str())


def shown(text: str) -> str:
    """Return a text of librdkafka, without quotes of others."""
    return _QUOTES.sub(r"\1: what it answered is not shown", text)


class _Shown(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = shown(record.getMessage()), ()
        return True


LOGGER = logging.getLogger("librdkafka")
"""The logger for every client. Its lines go through :func:`shown`, too."""
LOGGER.addFilter(_Shown())
