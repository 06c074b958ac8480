"""What the enrich stage does after a transaction: counts after a commit, another try after a roll-back."""

import asyncio
import time
from collections.abc import Sequence

import structlog

from flagstream.config.settings import EnrichSettings
from flagstream.enrich.batch import Batch, Enricher
from flagstream.enrich.partitions import HeldPartitions
from flagstream.enrich.setbacks import Setbacks
from flagstream.enrich.thread import TransactionThread
from flagstream.enrich.transaction import Contents
from flagstream.errors import OwnershipLost, TransactionAborted
from flagstream.kafka.refusals import TopicRefusesAll, find_refused, find_untimely
from flagstream.kafka.transactions import RecordTooLarge, TransactionalProducer, TransactionRefused
from flagstream.operate import metrics
from flagstream.operate.dead_letters import DeadLetterLog

log = structlog.get_logger(__name__)


class StageAftermath:
    """Satisfies :class:`flagstream.enrich.transaction.Aftermath`. ``output`` is the name of the output
    topic.
    """

    def __init__(
        self,
        settings: EnrichSettings,
        output: str,
        producer: TransactionalProducer,
        thread: TransactionThread,
        enricher: Enricher,
        partitions: HeldPartitions,
        setbacks: Setbacks,
        dead_letters: DeadLetterLog,
    ) -> None:
        self._settings = settings
        self._output = output
        self._producer = producer
        self._thread = thread
        self._enricher = enricher
        self._partitions = partitions
        self._setbacks = setbacks
        self._dead_letters = dead_letters

    # ── after a commit ────────────────────────────────────────────────────────────

    def committed(self, contents: Contents, seconds: float) -> None:
        self._setbacks.committed(contents.tenures, asyncio.get_running_loop().time())
        for partition, offset in contents.offsets.items():
            self._enricher.forget_refused(partition, offset)
            contents.tenures[partition].committed_in_transaction(offset)
            self._partitions.committed(partition)
        metrics.TRANSACTIONS.labels("enrich", "committed").inc()
        metrics.TRANSACTION_SECONDS.labels("enrich").observe(seconds)
        for (outcome, reason), count in contents.outcomes.items():
            metrics.EVENTS.labels(outcome, reason).inc(count)
        self._dead_letters.tell(contents.dead)
        metrics.UNRESOLVED.inc(self._enricher.unresolved())
        log.debug(
            "transaction_committed",
            events=contents.events,
            offsets={str(partition): offset for partition, offset in contents.offsets.items()},
            seconds=round(seconds, 3),
        )

    # ── after a roll-back ────────────────────────────────────────────────────────────

    async def rolled_back(self, contents: Contents, error: Exception) -> None:
        """Let all partitions of the transaction be read again, after a pause that grows with each failure.

        If a topic refuses what the transaction held, each of its partitions gets transactions of its own. If
        the topic refuses such a one as well, its refused records are searched for; they become dead letters.
        """
        metrics.TRANSACTIONS.labels("enrich", "aborted").inc()
        tenures, alone, takes = contents.tenures, contents.alone, self._partitions.takes
        now = asyncio.get_running_loop().time()
        logged = log.bind(error=str(error), partitions=sorted(map(str, tenures)))
        if isinstance(error, OwnershipLost | RecordTooLarge):
            logged.info("transaction_aborted")
        elif not isinstance(error, TransactionRefused):
            logged.warning("transaction_aborted", retry_in=round(self._setbacks.failed(str(error), now), 2))
        elif alone is None or not takes(tenures.get(alone.partition)):
            # A partition that was lost meanwhile belongs to its next owner, and no commit here would end its
            # problem.
            self._setbacks.part([p for p, tenure in tenures.items() if takes(tenure)], now)
            logged.warning("transaction_aborted")
        elif found := await self._refused_records(alone, error):
            self._enricher.refused.setdefault(alone.partition, {}).update(found)
            logged.warning("transaction_aborted", refused_records=len(found))
        elif takes(tenures.get(alone.partition)):  # still, after the search
            pause = self._setbacks.refused(alone.partition, str(error), now)
            logged.warning("transaction_aborted", retry_in=round(pause, 2))
            await self._partitions.rewind_later(tenures.values(), pause)
            return
        await self._partitions.rewind(tenures.values())

    async def _refused_records(self, batch: Batch, error: TransactionRefused) -> dict[int, str]:
        """Return the offsets of the records that the output topic refuses, with the reason. Empty if the
        records are not the reason.
        """
        if not error.of_a_record or (error.untimely and not self._settings.keep_timestamps):
            return {}  # a time of sending that is refused is a clock that is wrong
        records = [
            {name: value for name, value in record.items() if name != "_error"} for record in batch.records
        ]

        def takes(some: Sequence[int]) -> bool:
            return self._producer.takes(self._output, [records[index] for index in sorted(some)])

        def search() -> list[int]:
            if not error.untimely:
                return find_refused(len(records), takes)
            now = round(time.time() * 1000)
            return find_untimely([record["timestamp"] or now for record in records], now, takes)

        try:
            found = await self._thread.run(search)
        except (TopicRefusesAll, TransactionAborted) as failure:
            log.warning("search_failed", partition=str(batch.partition), error=str(failure))
            return {}
        return {batch.offsets[index]: str(error) for index in found}
