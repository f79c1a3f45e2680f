"""`GET /metrics`: the engine's levels, bounds and counts in Prometheus' text format.

They are read from the engine at each call and kept nowhere: no registry of the process, nothing to reset.
Totals of the whole server alone, no user's name. Knows nothing of how the engine counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import HTTPConnection

from server.accounts import Permission
from server.api.services import CurrentUser, ServicesDep, api_key_of
from server.api.transport.routing import Route
from server.engine import Engine
from server.errors import EngineDown, Forbidden

router = APIRouter(route_class=Route)

# (field of EngineStats, metric, what it says); a bound stands under its level.
GAUGES = (
    ("running", "tailor_requests_running", "Requests that generate now"),
    ("max_batch", "tailor_requests_running_max", "Requests that may generate together (engine.max_batch)"),
    ("waiting", "tailor_requests_waiting", "Requests that wait for a slot in the batch"),
    ("max_waiting", "tailor_requests_waiting_max", "Requests that may wait; over it: busy (engine.max_waiting)"),
    ("max_per_user", "tailor_requests_per_user_max", "Requests of one user, running and waiting (engine.max_per_user)"),
    ("max_tokens", "tailor_answer_tokens_max", "Tokens of one answer (engine.max_tokens)"),
    ("kv_bytes", "tailor_kv_bytes", "Keys and values of running requests"),
    ("max_kv_bytes", "tailor_kv_max_bytes", "Bound of tailor_kv_bytes (engine.kv_bytes)"),
    ("prefix_bytes", "tailor_prefix_bytes", "Prefix cache: keys and values of shared prompt prefixes"),
    ("max_prefix_bytes", "tailor_prefix_max_bytes", "Bound of tailor_prefix_bytes (engine.prefix_bytes)"),
    ("adapters", "tailor_adapters", "Adapters loaded or on their way"),
    ("max_adapters", "tailor_adapters_max", "Adapters that may be loaded together (engine.max_loras)"),
    ("adapter_bytes", "tailor_adapter_bytes", "Memory of the loaded adapters"),
    ("max_adapter_bytes", "tailor_adapter_max_bytes", "Bound of tailor_adapter_bytes (engine.adapter_bytes)"),
)
COUNTERS = (
    ("prompt_tokens", "tailor_prompt_tokens_total", "Prompt tokens of admitted requests"),
    ("cached_tokens", "tailor_prompt_tokens_cached_total", "Prompt tokens taken from the prefix cache, not computed"),
    ("completion_tokens", "tailor_completion_tokens_total", "Tokens generated"),
    ("finished", "tailor_requests_finished_total", "Requests answered to their end"),
    ("cancelled", "tailor_requests_cancelled_total", "Requests stopped by their reader"),
    ("failed", "tailor_requests_failed_total", "Requests that a fault of the model ended"),
    ("refused", "tailor_requests_refused_total", "Requests refused because a bound was reached (busy)"),
    ("preempted", "tailor_requests_preempted_total", "Requests preempted to make room, and resumed later"),
    ("steps", "tailor_engine_steps_total", "Steps of the model"),
    ("step_s", "tailor_engine_step_seconds_total", "Time spent in the model"),
    ("restarts", "tailor_engine_restarts_total", "Restarts of the model after a fault"),
)


class EngineCollector(Collector):
    """One engine as Prometheus sees it. While it is down its own counts are given as long as it can tell them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        up = self._engine.health().ok
        yield GaugeMetricFamily("tailor_engine_up", "1 when the model answers, 0 when it has failed", float(up))
        try:
            stats = self._engine.stats()
        except EngineDown:
            return
        for field, name, text in GAUGES:
            yield GaugeMetricFamily(name, text, getattr(stats, field))
        for field, name, text in COUNTERS:
            yield CounterMetricFamily(name, text, getattr(stats, field))


async def _require_metrics_access(connection: HTTPConnection, user: CurrentUser) -> None:
    """An administrator, or a program with anybody's API key: a scraper needs no rights to change things."""
    if not user.may(Permission.METRICS_READ) and not api_key_of(connection):
        raise Forbidden("only an administrator, or a program with an API key, may read the metrics")


@router.get("/metrics", dependencies=[Depends(_require_metrics_access)])
async def metrics(services: ServicesDep) -> Response:
    registry = CollectorRegistry()
    registry.register(EngineCollector(services.engine))
    return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})
