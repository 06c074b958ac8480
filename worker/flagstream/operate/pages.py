"""Serves the pages of the web server: /live, /ready, /health and /metrics.

What is wrong has the same shape on every page: ``problems`` has the lines for people by source, and ``kinds``
how many there are of each kind, as ``flagstream_problems`` counts them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from flagstream.operate import metrics
from flagstream.operate.health import PROCESS, Health, Problem, counted

Answer = tuple[dict[str, Any], int]


def live(health: Health) -> Answer:
    """Answer 503 while a thread hangs: a restart helps."""
    stuck = health.stuck()
    return {"live": not stuck, "stuck": stuck}, 503 if stuck else 200


def ready(health: Health) -> Answer:
    """Answer 503 while the process starts, stops, is not in its groups, or has lost a task. The body has
    every problem.
    """
    return {"ready": health.ready, **_shown(health.problems())}, 200 if health.ready else 503


def healthy(health: Health, sinks: Collection[str], sink: str | None = None) -> Answer:
    """Answer 503 on any problem, or only on those of ``sink`` and the process; 404 if ``sink`` is not in
    ``sinks``.
    """
    if sink is not None and sink not in sinks:
        return {"error": f"no sink of this process is called {sink!r}", "sinks": sorted(sinks)}, 404
    problems = health.problems()
    if sink is not None:
        problems = {source: found for source, found in problems.items() if source in (sink, PROCESS)}
    return {"healthy": not problems, **_shown(problems)}, 503 if problems else 200


def add(app: Any, health: Health, sinks: Collection[str], measure: Callable[[], None]) -> None:
    """Add the pages to a Faust app. ``measure`` sets what is measured only when somebody looks."""

    async def show_metrics(pages: Any, request: Any) -> Any:
        measure()
        return pages.bytes(metrics.text(), content_type="text/plain; version=0.0.4")

    async def show_live(pages: Any, request: Any) -> Any:
        return _json(pages, live(health))

    async def show_ready(pages: Any, request: Any) -> Any:
        return _json(pages, ready(health))

    async def show_health(pages: Any, request: Any) -> Any:
        return _json(pages, healthy(health, sinks, request.query.get("sink")))

    for path, page in (
        ("/metrics", show_metrics),
        ("/live", show_live),
        ("/ready", show_ready),
        ("/health", show_health),
    ):
        app.page(path, name=path)(page)


def _json(pages: Any, answer: Answer) -> Any:
    body, status = answer
    return pages.json(body, status=status)


def _shown(problems: Mapping[str, Sequence[Problem]]) -> dict[str, Any]:
    return {
        "problems": {source: [problem.text for problem in found] for source, found in problems.items()},
        "kinds": {source: counted(found) for source, found in problems.items()},
    }
