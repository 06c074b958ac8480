"""The formats of values in the ingest and the output topic: JSON or Avro.

The stages know JSON only. A topic in Avro gets a :class:`~flagstream.topic_formats.protocol.Decoder` or an
:class:`~flagstream.topic_formats.protocol.Encoder` at the stage's edge; a topic in JSON gets neither, so
that its values pass as the bytes they are.
"""
