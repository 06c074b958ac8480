"""flagstream: feature-flag evaluation events, enriched in Kafka and exported exactly once.

This is the way of one event, a step a line, in order, with the module that takes the step. Records go forward
only; what goes back is the commit, and it comes last.

::

    ingest topic
      │  kafka.consumer       a thread polls Kafka; consecutive records of one partition become a chunk
      │  kafka.source         the chunk waits in a channel, for the stage that holds its partition
      │  enrich.transform     decode it, drop it if its flag is untracked, fill in what is missing, encode it
      │  enrich.transaction   produce the result, or the record itself to the dead-letter topic
      │  kafka.transactions   add the offsets that were read, and commit: all becomes visible, or nothing
      ▼
    output topic              each sink reads it as a group of its own
      │  kafka.consumer       as above
      │  kafka.source         as above
      │  export.validation    leave out what the sink does not export, reject what is not an event
      │  export.windows       fill a window [start, end) until its count, its size or its age closes it
      │  export.partition     plan: commit offset start, with the window's end, count and digest
      │  sinks.protocol       deliver under a name made of topic, partition, start and end, unless it is there
      │  export.partition     commit offset end
      ▼
    objects, requests, records of another topic

After a crash the next owner of a partition begins in ``export.takeover``: it delivers the planned window
again, and finds it there or not. ``stages`` puts all of it together, and ``host`` runs it as one process.
"""

__version__ = "0.1.0"
