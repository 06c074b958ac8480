"""The first look at a partition: where the last owner left off, and what the sink holds."""

from dataclasses import replace

import structlog

from flagstream.errors import RangesRefused, SinkRefused
from flagstream.export.commits import PartitionCommits
from flagstream.export.cutter import Cutter
from flagstream.export.destination import Destination
from flagstream.export.phases import Event
from flagstream.export.restarts import Restart, StartAgain
from flagstream.export.takeover import check_topic, first_range_start, go_on_with, take_over

log = structlog.get_logger(__name__)


async def first_look(to: Destination, commits: PartitionCommits, refused: SinkRefused | None) -> Cutter:
    """Find out how the export of a partition begins: with the plan of the last owner, with objects that it
    stored and did not commit, or with a new window. Called once, before anything is cut. Waits until the sink
    can be asked.

    ``refused``: the sink refused the planned window with this error, so it becomes dead letters.

    Raises PartitionStopped if what was found does not fit together, StartAgain if another offset has to be
    read, and OwnershipLost.
    """
    tenure, partition = commits.tenure, commits.tenure.partition
    log_ = log.bind(sink=to.name, partition=str(partition))
    found = commits.take_over()
    topic_id = await to.services.topic_id()
    check_topic(partition, found.topic_id, topic_id, to.unit)
    commits.topic_id = topic_id or found.topic_id
    origin = commits.origin
    start = first_range_start(origin, found)
    held = None
    if refused is None:  # a sink that refuses a window may refuse to list as well
        if not to.route.ready:
            await commits.start(start, asked=False)  # this process may end before the sink opens
        # Lost offsets may have led to a start after what is held, as "latest" does.
        first = start if origin.committed is not None else min(origin.low, start)
        held = await to.route.holdings(tenure, first)
    if held and found.plan is None and origin.committed is None:
        at = go_on_with(partition, origin, held, to.settings.on_lost_offsets, to.unit)
        if at != origin.offset:
            raise StartAgain(Event.OFFSETS_LOST, Restart(to=at))
        log_.error("offsets_lost", continues_at=at)
        held = [window for window in held if window.end > at]
    takeover = take_over(partition, origin, found, held, to.route.fingerprint, to.unit)
    if held and found.plan is None:
        log_.warning("objects_adopted", windows=len(held), start=held[0].start, end=held[-1].end)
    for fixed in takeover.ends:
        if fixed.plan is not None:
            log_.info("plan_taken_over", start=start, end=fixed.end, records=fixed.plan.records)
    if isinstance(refused, RangesRefused) and refused.until is not None:
        # The rest of the window was never accepted under any id: it is planned again.
        takeover.ends[0] = replace(takeover.ends[0], end=refused.until)
    await commits.start(takeover.range_start)
    return Cutter(
        to.name,
        partition,
        origin.offset,
        takeover,
        route=to.route,
        refused=to.refused(refused) if refused is not None else None,
        held=held or (),
        limits=to.limits,
        settings=to.settings,
        decoder=to.decoder,
    )
