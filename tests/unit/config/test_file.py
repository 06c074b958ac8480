"""Files that are no configuration of the worker, and what is said of them."""

from pathlib import Path

import pytest

from flagstream.config import goff_words
from tests.unit.config.reading import FLAGS, LOG, WHOLE, accepted, problems

RELAY = """# our relay
listen: 1031
pollingInterval: 1000
startWithRetrieverError: false
retrievers:
  - kind: file
    path: flags.yaml
exporter:
  kind: log
authorizedKeys:
  evaluation: [key1]
notifier:
  - kind: webhook
    endpointUrl: "http://localhost:8080/webhook"
"""
RELAY_JSON = '{"listen": 1031, "retrievers": [{"kind": "file", "path": "f"}], "exporter": {"kind": "log"}}'


@pytest.mark.parametrize("content", ["", "\n", "# only a comment\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str | bytes) -> None:
    """Whoever names a file meant to configure something."""
    (problem,) = problems(tmp_path, content)
    assert problem.startswith("flagstream.toml: is empty; flagstream.example.toml is one to begin with")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a = " + "[" * 20_000, "cannot be read as TOML: it is nested too deeply"),
        (f"[web]\nport = {'9' * 5_000}", "holds a number with thousands of digits; write a smaller one"),
    ],
    ids=["nested", "digits"],
)
def test_what_python_cannot_read_is_one_line(tmp_path: Path, content: str, said: str) -> None:
    """Its own bounds are no reason for a trace."""
    assert problems(tmp_path, content) == [f"flagstream.toml: {said}"]


def test_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """Some editors begin a file with one."""
    assert accepted(tmp_path, b"\xef\xbb\xbf" + WHOLE.encode()) == []


def test_utf_16_is_read(tmp_path: Path) -> None:
    """A shell of Windows writes it, with a mark that names the encoding."""
    assert accepted(tmp_path, WHOLE.encode("utf-16")) == []


@pytest.mark.parametrize(
    "content", ["kafka:\n  bootstrap_servers: b:9092\n", "---\n# x\nname: x\n", "# x\n\n- a\n"]
)
def test_yaml_is_named(tmp_path: Path, content: str) -> None:
    """The message shows how the same looks in TOML."""
    (problem,) = problems(tmp_path, content)
    assert problem.startswith(
        "flagstream.toml: is YAML, not TOML; write tables as [kafka] and values as key ="
    )


def test_json_is_named(tmp_path: Path) -> None:
    """JSON is named as YAML is."""
    (problem,) = problems(tmp_path, '{"kafka": {}}')
    assert problem.startswith("flagstream.toml: is JSON, not TOML")


@pytest.mark.parametrize("content", [RELAY, RELAY_JSON, RELAY.replace("retrievers", "retriever")])
def test_the_configuration_of_a_relay_is_recognised(tmp_path: Path, content: str) -> None:
    """Each of its words is named with its counterpart."""
    found = problems(tmp_path, content)
    assert found[0].startswith("flagstream.toml: is the configuration of GO Feature Flag's relay proxy")
    assert "docs/migrating-from-goff.md" in found[0]
    assert "flagstream.toml: for GO Feature Flag's listen write web.port" in found
    assert "flagstream.toml: for GO Feature Flag's exporter write [sinks.<name>] with type" in found


def test_each_word_of_a_relay_in_toml_is_told(tmp_path: Path) -> None:
    """A relay takes TOML, too."""
    text = 'listen = 1031\npollingInterval = 1000\n[[retrievers]]\nkind = "file"\n[notifier]\na = 1\n'
    assert problems(tmp_path, text + WHOLE) == [
        "listen: unknown key; for GO Feature Flag's listen write web.port",
        "pollingInterval: unknown key; for GO Feature Flag's pollingInterval write "
        'flags.poll_interval, with a unit ("60s"): '
        "GO Feature Flag counts in milliseconds",
        "retrievers: unknown key; for GO Feature Flag's retrievers write [[flags.sources]] with type, "
        "one for each",
        "notifier: unknown key; GO Feature Flag's notifier has no counterpart here: the worker notifies "
        "nobody of changed flags",
    ]


@pytest.mark.parametrize(
    "content",
    [
        "new-checkout:\n  variations: {on: true}\n  defaultRule: {variation: on}\n",
        "[new-checkout.variations]\non = true\n[new-checkout.defaultRule]\nvariation = 'on'\n",
        'a:\n  percentage: 10\n  "true": 1\n',
    ],
)
def test_a_flag_file_is_recognised(tmp_path: Path, content: str) -> None:
    """It is what flags.path names."""
    (problem,) = problems(tmp_path, content)
    assert "is a file of flags, not the worker's configuration; name it there as flags.path" in problem


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (
            'kind = "googleStorage"\nbucket = "bucket"',
            ["sinks.a.kind: for GO Feature Flag's kind write type; did you mean gcs?"],
        ),
        (
            'kind = "file"\noutputDir = "x"',
            [
                "sinks.a.kind: for GO Feature Flag's kind write type; did you mean file?",
                "sinks.a.path: is missing: The folder for the files; created when missing",
                "sinks.a.outputDir: unknown key; for GO Feature Flag's outputDir write path",
            ],
        ),
        (
            'type = "sqs"',
            [
                'sinks.a.type: "sqs" is not a sink; read the output topic with a connector, or write a '
                "sink of your "
                "own: docs/write-a-sink.md"
            ],
        ),
        (
            'type = "file"\npath = "x"\nformat = "JSON"',
            [
                'sinks.a.format: "JSON" is not possible; write "jsonl" or "csv" or "avro" or "parquet"; '
                "did you mean "
                '"jsonl"?'
            ],
        ),
        (
            'type = "file"\npath = "x"\nformat = "CSV"\nflushInterval = 60000',
            [
                'sinks.a.format: "CSV" is not possible; write "jsonl" or "csv" or "avro" or "parquet"; '
                'did you mean "csv"?',
                "sinks.a.flushInterval: unknown key; for GO Feature Flag's flushInterval write "
                "flush_interval, with a "
                'unit ("60s"): GO Feature Flag counts in milliseconds',
            ],
        ),
        (
            'type = "file"\npath = "x"\nMaxEventInMemory = 5',
            [
                "sinks.a.MaxEventInMemory: unknown key; for GO Feature Flag's MaxEventInMemory write "
                "max_events",
            ],
        ),
        (
            'type = "s3"\nbucket = "b"\npath = "x"',
            ["sinks.a.path: unknown key; for GO Feature Flag's path write prefix"],
        ),
    ],
)
def test_words_of_an_exporter_are_told(tmp_path: Path, lines: str, found: list[str]) -> None:
    """Types, keys and values are named."""
    assert problems(tmp_path, f"{WHOLE}[sinks.a]\n{lines}") == found


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (
            'kind = "googleStorage"',
            "flags.sources.0: type is missing; for GO Feature Flag's kind write type; did you mean gcs?",
        ),
        (
            'type = "github"',
            'flags.sources.0: type "github" is not a source; write type = "http" and url = '
            '"https://raw.githubusercontent.com/OWNER/REPOSITORY/BRANCH/PATH"',
        ),
        (
            'type = "relay"\nurl = "http://r"\napiKey = "hunter2"',
            "flags.sources.0.apiKey: unknown key; for GO Feature Flag's apiKey write api_key",
        ),
        (
            'type = "s3"\nbucket = "b"\nkey = "k"\nfileFormat = "yaml"',
            "flags.sources.0.fileFormat: unknown key; for GO Feature Flag's fileFormat write format",
        ),
    ],
)
def test_words_of_a_retriever_are_told(tmp_path: Path, lines: str, found: str) -> None:
    """Types and keys are named, without values."""
    assert problems(tmp_path, f"{LOG}[[flags.sources]]\n{lines}") == [found]


def test_a_configuration_without_a_sink_is_refused(tmp_path: Path) -> None:
    """Together with everything else; but for a worker that only enriches."""
    assert problems(tmp_path, FLAGS + "[web]\nport = -1") == [
        "web.port: -1 is out of range; write at least 0",
        "sinks: there is none, so nothing would be exported; add one, such as [sinks.archive] with type "
        '= "file" and '
        "path, or run --stage enrich",
    ]


def test_the_words_that_messages_know_are_in_the_guide() -> None:
    """Who reads a message finds more about its word there."""
    guide = (Path(__file__).resolve().parents[3] / goff_words.GUIDE).read_text()
    words = {*goff_words.TOP, *goff_words.FOREIGN_SOURCES, "repositorySlug", "item", "envVariablePrefix"}
    assert {word for word in words if f"`{word}" not in guide} - {"exporterCleanQueueInterval"} == set()
