"""The words of GO Feature Flag's configuration, and what says the same here: for messages only.

Source: the reference of its relay proxy and of its Go module; docs/migrating-from-goff.md has the same
in tables.
"""

import re
from collections.abc import Iterator, Mapping

GUIDE = "docs/migrating-from-goff.md"

TOP: Mapping[str, str] = {
    "retriever": "[[flags.sources]] with type",
    "retrievers": "[[flags.sources]] with type, one for each",
    "exporter": "[sinks.<name>] with type",
    "exporters": (
        "[sinks.<name>] with type, one for each; the topic of a kafka exporter that feeds this worker is "
        "topics.ingest"
    ),
    "pollingInterval": 'flags.poll_interval, with a unit ("60s"): GO Feature Flag counts in milliseconds',
    "startWithRetrieverError": "flags.cache_path: without it the worker waits until every source answers",
    "persistentFlagConfigurationFile": "flags.cache_path",
    "fileFormat": "format of the source, or flags.format",
    "flagSets": "one worker for each flag set, with a name and topics of its own",
    "notifier": "nothing: the worker notifies nobody of changed flags",
    "notifiers": "nothing: the worker notifies nobody of changed flags",
    "listen": "web.port",
    "port": "web.port",
    "host": "web.host",
    "server": "web.host and web.port",
    "logLevel": "log.level",
    "logFormat": "log.format",
    "debug": 'log.level = "debug"',
    "authorizedKeys": (
        "nothing: the worker takes events from Kafka only; an API key for a relay is api_key of a source"
    ),
    "apiKeys": (
        "nothing: the worker takes events from Kafka only; an API key for a relay is api_key of a source"
    ),
    "enableSwagger": "nothing: the worker evaluates no flags",
    "swagger": "nothing: the worker evaluates no flags",
    "hideBanner": "nothing",
    "evaluationContextEnrichment": "enrich.metadata, for what each event is to have",
    "environment": "nothing",
    "openTelemetryOtlpEndpoint": "nothing: /metrics is for Prometheus",
    "enablePprof": "nothing",
    "restApiTimeout": "nothing: the worker evaluates no flags",
    "exporterCleanQueueInterval": "nothing: Kafka's retention",
}
"""At the top of a relay's configuration."""

SINK: Mapping[str, str] = {
    "kind": "type",
    "outputDir": "path",
    "filename": (
        "name, made of the window's range: {{ .Topic }}, {{ .Partition }}, {{ .Start }} and {{ .End }}"
    ),
    "csvTemplate": "csv_template",
    "logFormat": "template",
    "parquetCompressionCodec": "compression",
    "flushInterval": 'flush_interval, with a unit ("60s"): GO Feature Flag counts in milliseconds',
    "maxEventInMemory": "max_events",
    "maxEventsInMemory": "max_events",
    "eventType": "events",
    "exporterEventType": "events",
    "endpointUrl": "endpoint_url",
    "endpointURL": "endpoint_url",
    "s3Path": "prefix",
    "path": "prefix",
    "kafka": "topic and bootstrap_servers of the sink",
    "addresses": "bootstrap_servers",
    "exporterMetadata": "enrich.metadata",
}
"""In an exporter."""

SINK_TYPES: Mapping[str, str] = {
    "googleStorage": "gcs",
    "googleCloudStorage": "gcs",
    "gcstorage": "gcs",
    "s3v2": "s3",
    "webhooks": "webhook",
    "logs": "log",
}
FOREIGN_SINKS = ("sqs", "kinesis", "pubsub", "azureBlobStorage", "bigquery", "opentelemetry")
"""Exporters that the worker has no sink for."""

SOURCE: Mapping[str, str] = {
    "kind": "type",
    "fileFormat": "format",
    "item": "key",
    "apiKey": "api_key",
    "repositorySlug": "url of a source of type http: https://raw.githubusercontent.com/OWNER/REPOSITORY/BRANCH/PATH",
    "branch": "url of a source of type http",
    "baseUrl": "url",
    "token": "headers",
    "githubToken": "headers",
    "authToken": "headers",
    "pollingInterval": "flags.poll_interval, one for all sources",
}
"""In a retriever."""

SOURCE_TYPES: Mapping[str, str] = {"googleStorage": "gcs", "s3v2": "s3"}
FOREIGN_SOURCES: Mapping[str, str] = {
    "github": 'write type = "http" and url = "https://raw.githubusercontent.com/OWNER/REPOSITORY/BRANCH/PATH"',
    "gitlab": 'write type = "http" and the address of the raw file',
    "bitbucket": 'write type = "http" and the address of the raw file',
    "configmap": 'mount the ConfigMap and write type = "file"',
    **dict.fromkeys(
        ("mongodb", "redis", "postgresql", "azureBlobStorage"),
        'let a relay read it and write type = "relay"',
    ),
}
"""Retrievers that the worker has no source of the same name for."""

_FLAG_KEYS = ("variations", "defaultRule", "targeting", "percentage", "trackEvents")
_UNMISTAKABLE = {"retriever", "retrievers", "exporter", "exporters", "flagSets", "pollingInterval", "listen"}


def words_of_a_relay(text: str) -> Iterator[str]:
    """Yield the words at the top of ``text`` if it is a relay's configuration in YAML or JSON."""
    key = '"{}"\\s*:' if text.lstrip().startswith("{") else r"^{}\s*:"
    found = [word for word in TOP if re.search(key.format(word), text, re.MULTILINE)]
    if _UNMISTAKABLE & {*found}:
        yield from found


def counterpart(word: str, known: Mapping[str, str]) -> str | None:
    """Return the setting that corresponds to GO Feature Flag's ``word``, as the end of a sentence."""
    # Go's names begin with a capital, and variables have no small letters.
    hint = next((hint for key, hint in known.items() if key.lower() == word.lower()), None)
    if hint is None:
        return None
    if hint.startswith("nothing"):
        return f"GO Feature Flag's {word} has no counterpart here{hint.removeprefix('nothing')}"
    return f"for GO Feature Flag's {word} write {hint}"


def is_flag_file(text: str) -> bool:
    """Return whether ``text`` has keys that only a flag file has."""
    return any(re.search(rf'^\s+"?{key}"?\s*[:=]', text, re.MULTILINE) for key in _FLAG_KEYS) or any(
        re.search(rf"^\[[^]]+\.{key}\]", text, re.MULTILINE) for key in _FLAG_KEYS
    )
