"""Configurations that would pass and could not work: each is refused, with the way out."""

from pathlib import Path

import pytest

from tests.unit.config.reading import FLAGS, LOG, WHOLE, accepted, problems


def sink(kind: str, lines: str, *required: str) -> str:
    """Return a configuration with the sink ``a``; ``required`` are the lines that ``lines`` does not
    replace."""
    kept = "\n".join(line for line in required if line.split("=")[0].strip() not in lines)
    return f'{FLAGS}[sinks.a]\ntype = "{kind}"\n{kept}\n{lines}\n'


def s3(lines: str) -> str:
    return sink("s3", lines, 'bucket = "b"')


def gcs(lines: str) -> str:
    return sink("gcs", lines, 'bucket = "bb"')


def file(lines: str) -> str:
    return sink("file", lines, 'path = "x"')


def webhook(lines: str) -> str:
    return sink("webhook", lines, 'endpoint_url = "https://receiver.example.com/x"')


def kafka_sink(lines: str) -> str:
    return sink("kafka", lines, 'topic = "t"', 'bootstrap_servers = "b:9092"')


def source(lines: str) -> str:
    return f"{LOG}[[flags.sources]]\n{lines}"


def kafka(lines: str) -> str:
    return f"{WHOLE}[kafka]\n{lines}"


def properties(lines: str) -> str:
    return f"{WHOLE}[kafka.properties]\n{lines}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        # ── the cluster ──
        (
            kafka('bootstrap_servers = "SASL_SSL://b:9092"'),
            'kafka.bootstrap_servers: holds an address that begins with "SASL_SSL://"; write host:port '
            'alone: "b:9092"',
        ),
        (kafka('bootstrap_servers = "b"'), 'kafka.bootstrap_servers: "b" has no port; write "b:9092"'),
        (kafka('bootstrap_servers = "a:9092,b"'), 'kafka.bootstrap_servers: "b" has no port; write "b:9092"'),
        (
            kafka('bootstrap_servers = "::1"'),
            'kafka.bootstrap_servers: "::1" has no port; write "[::1]:9092"',
        ),
        (kafka('bootstrap_servers = "b:0"'), 'kafka.bootstrap_servers: "b:0" has no port from 1 to 65535'),
        (kafka('bootstrap_servers = ","'), "kafka.bootstrap_servers: holds no broker"),
        (
            kafka('bootstrap_servers = "<b>:9092"'),
            'kafka.bootstrap_servers: "<b>:9092" is not a host with a port',
        ),
        (
            kafka('bootstrap_servers = "a:1;b:1"'),
            'kafka.bootstrap_servers: "a:1;b:1" is not a host with a port; separate',
        ),
        (
            kafka('bootstrap_servers = ["b:9092"]'),
            "kafka.bootstrap_servers: is one text, not a list; write its",
        ),
        (
            kafka('sasl_password = "x"'),
            'kafka.sasl_password: unknown key; did you mean kafka.properties."sasl.password"?',
        ),
        (kafka('sasl.password = "x"'), "kafka.sasl: unknown key; did you mean kafka.properties?"),
        (
            kafka('"client.id" = "x"'),
            'kafka."client.id": unknown key; did you mean kafka.properties."client.id"?',
        ),
        (f"{WHOLE}[Kafka]\ninstance = 'a'", "Kafka: unknown key; did you mean kafka?"),
        (
            'bootstrap_servers = "b:9092"\n' + WHOLE,
            "bootstrap_servers: unknown key; did you mean kafka.bootstrap_servers?",
        ),
        (
            properties('sasl.password = "x"'),
            'kafka.properties."sasl.password": is not used, since security.protocol is "plaintext"; write '
            '"security.protocol" = "sasl_ssl"',
        ),
        (
            properties('security.protocol = "SSL"\nsasl.username = "x"'),
            'kafka.properties."sasl.username": is not used, since security.protocol is "ssl"',
        ),
        (
            properties('ssl.ca.location = "/ca.pem"'),
            'kafka.properties."ssl.ca.location": is not used, since security.protocol is "plaintext"; write '
            '"security.protocol" = "ssl"',
        ),
        (
            f'{WHOLE}[kafka.consumer_properties]\nsasl.password = "x"',
            'kafka.consumer_properties."sasl.password": is not used',
        ),
        (
            properties('security.protocol = "sasl_ssl"\nsasl.mechanisms = "OAUTHBEARER"'),
            'kafka.properties."sasl.oauthbearer.method": is missing, and without it no token is ever '
            "fetched; "
            'write "oidc"',
        ),
        (
            properties(
                'security.protocol = "sasl_ssl"\nsasl.mechanism = '
                '"OAUTHBEARER"\nsasl.oauthbearer.method = "default"'
            ),
            'kafka.properties."sasl.oauthbearer.method": is missing',
        ),
        (
            properties('security.protocol = "sasl_ssl"\nsasl.username = "u"\nsasl.password = "p"'),
            'kafka.properties."sasl.mechanisms": is missing; write one of PLAIN, SCRAM-SHA-256',
        ),
        (
            properties('security.protocol = "sasl_ssl"\nsasl.mechanisms = "scram-sha-512"'),
            'kafka.properties."sasl.mechanisms": "scram-sha-512" is not a mechanism of librdkafka; did '
            'you mean "SCRAM-SHA-512"?',
        ),
        (
            properties(
                'security.protocol = "sasl_ssl"\nsasl.mechanisms = "PLAIN"\nsasl.oauthbearer.client.id = "x"'
            ),
            'kafka.properties."sasl.oauthbearer.client.id": is not used, since sasl.mechanisms is "PLAIN"',
        ),
        (
            f'{WHOLE}[kafka.consumer_properties]\nsecurity.protocol = "ssl"',
            'kafka.consumer_properties."security.protocol": belongs into kafka.properties',
        ),
        (properties('client.rack = "a\\n"'), 'kafka.properties."client.rack": holds a line break at its end'),
        # ── topics, registry, stages ──
        (
            f'{WHOLE}[topics]\ningest = "a.b"\noutput = "a_b"',
            'topics.output: "a_b" and topics.ingest, "a.b", differ in . and _ only; Kafka creates one '
            "of them",
        ),
        (
            f"{WHOLE}[topics]\nreplication_factor = 0",
            "topics.replication_factor: 0 is out of range; write at least 1, or",
        ),
        (f"{WHOLE}[registry]\npassword = 'x'", "registry.password: is not used without registry.user"),
        (f"{WHOLE}[registry]\nuser = 'x'", "registry.user: is not used without registry.url"),
        (
            f"{WHOLE}[registry]\nurl = 'http://r:8081/subjects/'",
            "registry.url: is a place inside the registry; write its address without /subjects",
        ),
        (
            f"{WHOLE}[enrich]\nmax_transaction_bytes = '1000GiB'",
            "enrich.max_transaction_bytes: 1000GiB is out of range",
        ),
        (
            f"{WHOLE}[enrich]\nmax_transaction_bytes = 64",
            'enrich.max_transaction_bytes: 64B is out of range; write at least 1MiB, such as "64MiB" if '
            "megabytes",
        ),
        (
            f"{WHOLE}[export]\nrevoke_budget = '10m'",
            "export.revoke_budget: 600s is out of range; write at most 240s",
        ),
        (
            f"{WHOLE}[web]\nhost = 'localhost:6066'",
            'web.host: "localhost:6066" is not an address; write "127.0.0.1", "::1"',
        ),
        (f"{WHOLE}[web]\nhost = 'http://0.0.0.0'", 'web.host: "http://0.0.0.0" is not an address'),
        (
            f"{LOG}[flags]\npath = 'f.yaml'\ncache_path = './f.yaml'",
            'flags.cache_path: "f.yaml" is the flag file itself',
        ),
        # ── objects ──
        (
            s3('bucket = "s3://b/x"'),
            'sinks.a.bucket: "s3://b/x" is not the name of a bucket; write it without s3:// and without '
            'slashes: "b", and "x" as prefix or key',
        ),
        (s3('bucket = " b"'), 'sinks.a.bucket: " b" is not the name of a bucket'),
        (
            s3('region = "eu-west-1a"'),
            'sinks.a.region: "eu-west-1a" is an availability zone; write its region, "eu-west-1"',
        ),
        (s3('region = "Ireland (eu-west-1)"'), 'sinks.a.region: "Ireland (eu-west-1)" is not a region'),
        (
            s3('role_arn = "my-role"'),
            'sinks.a.role_arn: "my-role" is not a role; write "arn:aws:iam::ACCOUNT:role/NAME"',
        ),
        (
            s3('storage_class = "standard_ia"'),
            'sinks.a.storage_class: "standard_ia" is not a storage class; they are capitals: write '
            '"STANDARD_IA"',
        ),
        (
            s3('storage_class = "STANDARD_AI"'),
            'sinks.a.storage_class: "STANDARD_AI" is not a storage class; did you mean STANDARD_IA?',
        ),
        (
            s3('tags = { "aws:x" = "y" }'),
            'sinks.a.tags: "aws:x": names that begin with aws: are Amazon\'s own',
        ),
        (s3('tags = { x = "a,b" }'), 'sinks.a.tags: "x": tags are letters'),
        (s3('content_type = "json"'), 'sinks.a.content_type: "json" is not a content type'),
        (s3('content_encoding = "gzip;"'), 'sinks.a.content_encoding: "gzip;" is not a content encoding'),
        (s3('prefix = "s3://b/x"'), 'sinks.a.prefix: "s3://b/x" is an address'),
        (s3('access_key = "a\\n"\nsecret_key = "s"'), "sinks.a.access_key: holds a line break at its end"),
        (s3("part_size = 8"), 'sinks.a.part_size: 8B is out of range; write at least 5MiB, such as "8MiB"'),
        (
            gcs('bucket = "gs://bb"'),
            'sinks.a.bucket: "gs://bb" is not the name of a bucket; write it without gs:// and without '
            'slashes: "bb"',
        ),
        (
            gcs('storage_class = "nearline"'),
            'sinks.a.storage_class: "nearline" is not a storage class; they are capitals',
        ),
        (
            gcs('kms_key_name = "key"'),
            'sinks.a.kms_key_name: "key" is not a key; write projects/P/locations/L',
        ),
        (gcs('project = "My Project"'), 'sinks.a.project: "My Project" is not a project; write its id'),
        (file('time_zone = "Europe/Berlinn"'), 'sinks.a.time_zone: "Europe/Berlinn" is not a time zone'),
        (
            file('compression = "snappy"'),
            'sinks.a.compression: "snappy" is not known to jsonl; write gzip, none, zstd',
        ),
        (
            file('csv_template = "{{ .Key}}\\n"'),
            'sinks.a.csv_template: is not used by format = "jsonl"; write format = "csv"',
        ),
        (
            file('format = "avro"\ncompression_level = 9'),
            'sinks.a.compression_level: is not used by format = "avro"',
        ),
        (
            file('compression = "none"\ncompression_level = 9'),
            "sinks.a.compression_level: is not used with compression",
        ),
        (file("max_bytes = 64"), 'sinks.a.max_bytes: 64 without a unit is bytes; write "64MiB", or "64B"'),
        # ── other sinks ──
        (
            webhook('endpoint_url = "http://localhost:8080/x"'),
            "sinks.a.endpoint_url: is at an address outside the public",
        ),
        (
            webhook('endpoint_url = "http://10.0.0.1/x"'),
            "sinks.a.endpoint_url: is at an address outside the public",
        ),
        (
            webhook('endpoint_url = "http://[::1]/x"'),
            "sinks.a.endpoint_url: is at an address outside the public Internet",
        ),
        (
            webhook('endpoint_url = "https://<host>/x"'),
            "sinks.a.endpoint_url: is not the address",
        ),
        (kafka_sink('bootstrap_servers = "b"'), 'sinks.a.bootstrap_servers: "b" has no port; write "b:9092"'),
        (
            kafka_sink('topic = "flag-evaluations"\nbootstrap_servers = "LOCALHOST:9092"'),
            'sinks.a.topic: "flag-evaluations" is topics.ingest; a sink needs a topic of its own',
        ),
        (
            kafka_sink('properties = { "sasl.password" = "x" }'),
            'sinks.a.properties: sasl.password is not used, since security.protocol is "plaintext"',
        ),
        (
            kafka_sink('properties = { "security.protocol" = "sasl_ssl", "sasl.mechanisms" = "PLAIN" }'),
            "sinks.a.properties: librdkafka cannot make its producer: sasl.username and sasl.password "
            "must be set",
        ),
        (
            kafka('bootstrap_servers = "::1:9092"'),
            'kafka.bootstrap_servers: "::1:9092" has no port; write "[::1]:9092"',
        ),
        (
            kafka('bootstrap_servers = "[::1]"'),
            'kafka.bootstrap_servers: "[::1]" has no port; write "[::1]:9092"',
        ),
        (
            kafka(
                '[kafka.properties]\n"security.protocol" = "sasl_ssl"\n"sasl.username" = "u"\n'
                '"sasl.password" = "p"\n"sasl.mechanism" = "PLAIN"\n"sasl.mechanisms" = "SCRAM-SHA-256"'
            ),
            'kafka.properties."sasl.mechanism": is another name of sasl.mechanisms, which is there too',
        ),
        *(
            (
                f'{WHOLE}[kafka.properties]\nsecurity.protocol = "ssl"\nssl.{which}.location = "/no.pem"',
                "kafka.properties: librdkafka cannot make consumers and producers: "
                f"ssl.{which}.location: /no.pem cannot be read: No such file or directory",
            )
            for which in ("ca", "certificate", "key", "crl")
        ),
        (
            kafka_sink('properties = { "security.protocol" = "ssl", "ssl.ca.location" = "/no.pem" }'),
            "sinks.a.properties: librdkafka cannot make its producer: ssl.ca.location: /no.pem cannot be "
            "read: No such file or directory",
        ),
        (s3('acl = "public"'), 'sinks.a.acl: "public" is not possible; write "private" or "public-read" or'),
        (
            s3('bucket = "arn:aws:s3:::flag-events"'),
            'sinks.a.bucket: "arn:aws:s3:::flag-events" is an address of the bucket; write its name alone: '
            '"flag-events"',
        ),
        (
            s3('bucket = "https://flag-events.s3.eu-west-1.amazonaws.com/"'),
            'sinks.a.bucket: "https://flag-events.s3.eu-west-1.amazonaws.com/" is an address of the bucket; '
            'write its name alone: "flag-events"',
        ),
        (
            s3('bucket = "s3.amazonaws.com/flag-events/x"'),
            'sinks.a.bucket: "s3.amazonaws.com/flag-events/x" is an address of the bucket; write its name '
            'alone: "flag-events"',
        ),
        (
            s3('endpoint = "https://account.r2.cloudflarestorage.com/b"'),
            "sinks.a.endpoint: holds the bucket, which stands in bucket; write "
            "https://account.r2.cloudflarestorage.com",
        ),
        (
            s3('endpoint = "https://b.s3.eu-west-1.amazonaws.com"'),
            "sinks.a.endpoint: holds the bucket, which stands in bucket; write "
            "https://s3.eu-west-1.amazonaws.com",
        ),
        (
            source('type = "s3"\nbucket = "bb"\nkey = "k"\nendpoint = "http://minio:9000/bb/"'),
            'flags.sources: "s3://bb/k": endpoint holds the bucket, which stands in bucket; write '
            "http://minio:9000",
        ),
        (
            file('name = ".flagstream-tmp/{{ .Topic }}.{{ .Partition }}.{{ .Start }}-{{ .End }}"'),
            "sinks.a.name: begins with .flagstream-tmp/, whose files are removed after a day",
        ),
        *(
            (
                file(f"name = '{name}'"),
                'sinks.a.name: an event with the value "_index" would get the name of its window\'s index, '
                "and stop the partition; write a text in front of the value, such as flag={{ .Key }}",
            )
            for name in (
                "{{ .Key }}/{{ .Topic }}/{{ .Partition }}/{{ .Start }}-{{ .End }}.json",
                "a/{{ .Metadata.app }}/{{ .Topic }}/{{ .Partition }}/{{ .Start }}-{{ .End }}.json",
            )
        ),
        (
            f"{LOG}[flags]\npath = 'f.yaml'\ncache_path = 'x/../f.yaml'",
            'flags.cache_path: "x/../f.yaml" is the flag file itself, which would be overwritten',
        ),
        (
            webhook('secret = "a"\nprevious_secrets = \'["b", "c"]\''),
            "sinks.a.previous_secrets: is a list written as one text; a variable holds one text, and the",
        ),
        (
            source('type = "relay"\nurl = "http://r"\nflags = "a,b"'),
            'flags.sources.0.flags: is a list; write ["a", "b"] in the file',
        ),
        (
            f"{LOG}[flags]\nsources = ['a.yaml']",
            "flags.sources.0: is not a table; write a table [[flags.sources]] for each",
        ),
        (
            f"{LOG}[flags]\npath = ['a.yaml', 'b.yaml']",
            'flags.path: is one path, not a list; write a table [[flags.sources]] with type = "file"',
        ),
        (
            f"{LOG}[flags]\npath = 'f.yaml'\ncache_path = \"a\\u0000\"",
            "flags.cache_path: holds a control character (U+0000) at its end; write the path on one line",
        ),
        *(
            (
                f"{WHOLE}[web]\nhost = '{host}'",
                f'web.host: "{host}" is not an address; write "127.0.0.1", "::1"',
            )
            for host in ("a..b", ".a")
        ),
        (
            f"{WHOLE}[web]\nhost = '{'a' * 64}'",
            'web.host: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',
        ),
        (f'{FLAGS}[[sinks]]\ntype = "log"', "sinks: is a list; write [sinks.<name>] for each"),
        (f'{WHOLE}[web]\nname = "x"', "web.name: unknown key; did you mean name, above all tables?"),
        (webhook('url = "https://x/"'), "sinks.a.url: unknown key; did you mean endpoint_url?"),
        # ── sources of flags ──
        (
            f"{LOG}[flags]\npath = 'f.yaml'\nurl = 'https://x/'",
            'flags.url: unknown key; did you mean a table [[flags.sources]] with type = "http"?',
        ),
        (
            source('type = "relay"\nurl = "http://r:1031/v1/flag/configuration"'),
            'flags.sources: "http://r:1031/v1/flag/configuration": url is the relay\'s address; leave '
            "out /v1/flag/conf",
        ),
        (
            source('type = "s3"\nbucket = "s3://b"\nkey = "k"'),
            'flags.sources.0.bucket: "s3://b" is not the name of a bucket',
        ),
        (
            source('type = "gcs"\nbucket = "gs://bb"\nobject = "k"'),
            'flags.sources.0.bucket: "gs://bb" is not the name of a bucket',
        ),
        (
            source('type = "http"\nurl = "https://github.com/o/r/blob/main/f.yaml"'),
            'flags.sources: "https://github.com/o/r/blob/main/f.yaml": url is a page about the file; '
            "write the",
        ),
        (
            source('type = "http"\nurl = "http://h/a b"'),
            "flags.sources.0.url: is not an address, as it holds white space",
        ),
        (
            source('type = "http"\nurl = "http://h"\nheaders = { "a b" = "x" }'),
            "flags.sources.0.headers: holds a name",
        ),
        (
            source('type = "gcs"\nbucket = "bb"\nobject = "o"\nanonymous = true\ncredentials = "c"'),
            'flags.sources: "gs://bb/o": anonymous contradicts credentials; leave one of them out',
        ),
        (
            f"{LOG}[flags]\npath = 'f.yaml'\npoll_interval = 10000",
            "flags.poll_interval: 10000 without a unit is seconds, 2.8 hours; write 10s if milliseconds "
            "are meant",
        ),
    ],
)
def test_one_mistake_is_one_line_with_the_way_out(tmp_path: Path, text: str, problem: str) -> None:
    """It begins with the setting, and says what to write."""
    (found,) = problems(tmp_path, text)
    assert found[: len(problem)] == problem


DURATIONS = {
    "kafka.session_timeout": kafka("session_timeout = {}"),
    "registry.timeout": f"{WHOLE}[registry]\ntimeout = {{}}",
    "enrich.commit_interval": f"{WHOLE}[enrich]\ncommit_interval = {{}}",
    "enrich.transaction_timeout": f"{WHOLE}[enrich]\ntransaction_timeout = {{}}",
    "export.revoke_budget": f"{WHOLE}[export]\nrevoke_budget = {{}}",
    "shutdown.budget": f"{WHOLE}[shutdown]\nbudget = {{}}",
    "flags.poll_interval": f"{LOG}[flags]\npath = 'f.yaml'\npoll_interval = {{}}",
    "flags.sources.0.timeout": source("type = 'http'\nurl = 'http://h'\ntimeout = {}"),
    "sinks.a.flush_interval": file("flush_interval = {}"),
    "sinks.a.read_timeout": s3("read_timeout = {}"),
    "sinks.a.connect_timeout": s3("connect_timeout = {}"),
    "sinks.a.timeout": gcs("timeout = {}"),
    "sinks.a.breaker_pause": webhook("breaker_pause = {}"),
}


@pytest.mark.parametrize("key", DURATIONS)
@pytest.mark.parametrize("written", ["60000", '"60000"', "60000.0"])
def test_every_duration_beyond_an_hour_needs_a_unit(tmp_path: Path, key: str, written: str) -> None:
    """Other programs count in milliseconds."""
    (found,) = problems(tmp_path, DURATIONS[key].format(written))
    assert found == (
        f"{key}: {written} without a unit is seconds, 16.7 hours; write 60s if milliseconds are meant, "
        f"else 60000s"
    )


def test_an_hour_without_a_unit_and_a_day_with_one_are_taken(tmp_path: Path) -> None:
    """The bound is for mistakes only."""
    for written in ("3600", '"1d"', '"86400s"'):
        assert accepted(tmp_path, file(f"flush_interval = {written}")) == []


@pytest.mark.parametrize(
    "text",
    [
        kafka('bootstrap_servers = "a:9092, b.example.com:9093 ,[::1]:9092"'),
        s3('bucket = "arn:aws:s3:eu-west-1:123456789012:accesspoint/events"'),
        s3('endpoint = "https://s3.example.com/storage/v1/s3"\nregion = "auto"\nstorage_class = "COLD"'),
        s3('role_arn = "arn:aws-cn:iam::123456789012:role/team/events"\nstorage_class = "GLACIER_IR"'),
        s3(
            'content_type = "text/csv; charset=utf-8"\ncontent_encoding = "gzip"\ntags = { team = "a b/c@d" }'
        ),
        gcs('kms_key_name = "projects/p/locations/eu/keyRings/r/cryptoKeys/k"\nproject = "example.com:p-1"'),
        webhook('endpoint_url = "http://10.0.0.1/x"\nallow_private_addresses = true'),
        webhook('endpoint_url = "https://[2606:4700::1111]/x?y=%20z"'),
        file('format = "csv"\ncsv_template = "{{ .Key}}\\n"\ncompression_level = 9'),
        file("name = '{{ .Topic }}/{{ .Key }}/{{ .Partition }}/{{ .Start }}-{{ .End }}.json'"),
        file("name = 'flag={{ .Key }}/{{ .Topic }}/{{ .Partition }}/{{ .Start }}-{{ .End }}.json'"),
        file("name = '{{ .Key }}/{{ .Topic }}/{{ .Partition }}/{{ .Start }}-{{ .End }}.{{ .Extension }}'"),
        properties('security.protocol = "ssl"\nenable.ssl.certificate.verification = "true"'),
        properties(
            'security.protocol = "sasl_plaintext"\nsasl.mechanisms = "OAUTHBEARER"\n'
            "enable.sasl.oauthbearer.unsecure.jwt = true"
        ),
        source('type = "relay"\nurl = "http://r/prefix"'),
        f"{WHOLE}[web]\nhost = '*'",
        f"{WHOLE}[web]\nhost = '::'",
        f"{WHOLE}[topics]\nreplication_factor = -1",
    ],
)
def test_what_works_is_taken(tmp_path: Path, text: str) -> None:
    """Settings that look unusual are accepted if they work."""
    assert accepted(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            f"{WHOLE}[registry]\nurl = 'http://r'",
            'registry.url: is not used: neither topics.ingest_format nor topics.output_format is "avro"',
        ),
        (
            kafka_sink('bootstrap_servers = "localhost:9092"'),
            "sinks.a.bootstrap_servers: is the worker's own cluster, taken for another one: at least "
            "once; leave it "
            "out for exactly once",
        ),
        (
            file('path = "x "'),
            "sinks.a.path: has white space at its beginning or end, which is taken for a part of",
        ),
    ],
)
def test_what_may_be_meant_is_a_warning(tmp_path: Path, text: str, warning: str) -> None:
    """It is said, and the worker starts."""
    (found,) = accepted(tmp_path, text)
    assert found[: len(warning)] == warning


def test_a_problem_is_one_line_whatever_was_written(tmp_path: Path) -> None:
    """Control characters are shown as in Python, so that each line of the output is a problem."""
    text = file('time_zone = "a\\nb"') + '[web]\nhost = "\\u001b[2J"'
    assert problems(tmp_path, text) == [
        'sinks.a.time_zone: "a\\nb" is not a time zone; write UTC, Europe/Berlin and so on',
        'web.host: "\\x1b[2J" is not an address; write "127.0.0.1", "::1" or "*", and the port in web.port',
    ]


def test_problems_of_librdkafka_come_with_all_others(tmp_path: Path) -> None:
    """Nobody has to mend one kind first to hear of the next."""
    text = properties('security.protocol = "sasl_ssl"\nsasl.mechanisms = "PLAIN"') + "\n[web]\nport = -1"
    assert problems(tmp_path, text) == [
        "web.port: -1 is out of range; write at least 0",
        "kafka.properties: librdkafka cannot make consumers and producers: sasl.username and "
        "sasl.password must be set",
    ]
