"""Send a window part by part, along its :class:`~flagstream.export.parts.Course`."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from structlog.typing import FilteringBoundLogger

from flagstream.crashpoints import crash_point
from flagstream.errors import PartitionStopped, PartRefused, SinkRefused, SinkUnavailable
from flagstream.export.parts import Course
from flagstream.kafka.commit_metadata import Division
from flagstream.sinks.protocol import Delivery, Part, PartsSink
from flagstream.window import Manifest


class CallSink(Protocol):
    """Calls the sink until it succeeds; raises SinkRefused when a refusal counts."""

    async def __call__(self, function: Callable[[], int | PartRefused]) -> int | PartRefused: ...


async def send_in_parts(
    sink: PartsSink[Any],
    manifest: Manifest,
    course: Course,
    *,
    call_sink: CallSink,
    commit: Callable[[Division], Awaitable[None]],
    refused: Callable[[], None],
    log: FilteringBoundLogger,
) -> Delivery:
    """Send what is left of the window. ``commit`` writes a division into the plan; ``refused`` counts a
    refusal.

    Raises RangesRefused when parts of the window are to become dead letters, and what ``commit`` and
    ``call_sink`` raise.
    """
    while (part := course.next) is not None and course.outcome() is None:
        if course.uncommitted:
            division = course.division
            crash_point("export.dividing")
            await commit(division)
            course.committed(division)
            crash_point("export.divided")
        try:
            answer = await call_sink(_attempt(sink, manifest, part, course))
        except SinkRefused as error:
            course.give_up(error)
            log.error("part_refused", range=str(part.range), events=part.count, error=str(error))
            continue
        if isinstance(answer, PartRefused):
            refused()
            log_ = log.bind(range=str(part.range), events=part.count, error=str(answer))
            if course.refuse(answer):
                log_.warning("part_divided")
            else:
                log_.warning("part_refused")
        else:
            course.accept(answer)
            crash_point("export.part_accepted")
    if (outcome := course.outcome()) is not None:
        raise outcome
    return course.delivery


def _attempt(
    sink: PartsSink[Any], manifest: Manifest, part: Part, course: Course
) -> Callable[[], int | PartRefused]:
    """One try, in a thread. A refusal that is for the course is a value, not an error."""

    def attempt() -> int | PartRefused:
        try:
            sent = sink.send(manifest, part)
        except PartRefused as error:
            if error.repeated:
                course.doubt()
            if (judged := course.judge(error)) is not None:
                raise judged from error
            return error
        except SinkRefused as error:
            if error.repeated:
                course.doubt()
            raise
        except PartitionStopped:
            raise
        except Exception as error:
            if not isinstance(error, SinkUnavailable) or error.unanswered:
                course.doubt()
            raise
        if course.last:
            crash_point("export.delivering")
        return sent

    return attempt
