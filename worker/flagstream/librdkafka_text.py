"""librdkafka's errors and log lines in words that may be shown.

Its texts name brokers, codes and properties, which help. But where it could not get an OAuth token it quotes
what the token endpoint answered, and some endpoints quote the whole request.
"""

import logging
import re

from confluent_kafka import KafkaError

_QUOTES = re.compile(r"(?i)((?:oauthbearer|oidc)[^:]*|token endpoint[^:]*):.*", re.DOTALL)


def words(error: KafkaError) -> str:
    """The error's text, without what it quotes of others."""
    return shown(error.str())


def shown(text: str) -> str:
    """A text of librdkafka's, without what it quotes of others."""
    return _QUOTES.sub(r"\1: what it answered is not shown", text)


class _Shown(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = shown(record.getMessage()), ()
        return True


LOGGER = logging.getLogger("librdkafka")
"""For every client: its log lines go through :func:`shown`, too."""
LOGGER.addFilter(_Shown())
