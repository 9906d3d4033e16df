"""A store's HTTP server: binary lookups, and JSON for everything that people and scripts read.

Errors are JSON too: `{"error": {"code", "what", "where", "hint"}}`, where `code` is the class in Ekko's error tree.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Annotated

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from ekko.schemas.errors import (
    BadInput,
    ConfigurationError,
    EkkoError,
    NotOwned,
    NotReady,
    QueueFull,
    StateUnavailable,
)
from ekko.schemas.signals import Signal, check_event_time
from ekko.storage.serving import wire
from ekko.storage.serving.lookups import LookupObserver, Lookups, parse_shards, parse_state, read_body
from ekko.storage.serving.served import MAX_SIGNAL_BYTES, Served

_STATUS: dict[type[EkkoError], int] = {
    BadInput: 400,
    ConfigurationError: 404,
    StateUnavailable: 409,
    NotOwned: 421,
    NotReady: 503,
    QueueFull: 503,
}

Endpoint = Callable[[Request], Awaitable[Response]]


class _SignalBody(BaseModel):
    """What a serving process measured."""

    model_config = ConfigDict(extra="forbid")

    metric: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
    value: Annotated[float, Field(allow_inf_nan=False)]
    count: Annotated[int, Field(ge=0, lt=2**62)] = 1
    cohort: Annotated[str, Field(pattern=r"^(live|baseline)$")] = "live"
    source: Annotated[str, Field(pattern=r"^[a-z0-9_.:/-]{1,128}$")] = "serving/unnamed"
    event_us: int | None = None


def build_app(served: Served, observer: LookupObserver, registry: CollectorRegistry, region: str) -> Starlette:
    """The ASGI application that serves `served`; `registry` holds the metrics of GET /metrics."""
    pages = _Pages(served, registry, region)
    routes = [
        Route("/v1/models/{model}/tables/{table}/lookup", Lookups(served, observer), methods=["POST"]),
        Route("/v1/models", pages.models),
        Route("/v1/models/{model}", pages.model),
        Route("/v1/models/{model}/checksum", pages.checksum),
        Route("/v1/models/{model}/tables/{table}/rows", pages.rows),
        Route("/v1/models/{model}/snapshots", pages.take_snapshot, methods=["POST"]),
        Route("/v1/models/{model}/snapshots/{taken:int}/{name:path}", pages.snapshot_file),
        Route("/v1/models/{model}/latency", pages.latency),
        Route("/v1/models/{model}/signals", pages.signal, methods=["POST"]),
        Route("/v1/members", pages.members),
        Route("/health", pages.health),
        Route("/ready", pages.ready),
        Route("/metrics", pages.metrics),
    ]
    handlers = {EkkoError: _ekko_error, HTTPException: _http_error, Exception: _unexpected}
    return Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]


class _Pages:
    """Everything but lookups."""

    def __init__(self, served: Served, registry: CollectorRegistry, region: str) -> None:
        self._served = served
        self._registry = registry
        self._region = region

    async def models(self, _request: Request) -> Response:
        return _json(wire.MODELS_JSON, self._served.models())

    async def model(self, request: Request) -> Response:
        return _json(wire.MODEL_JSON, self._served.model(request.path_params["model"]))

    async def checksum(self, request: Request) -> Response:
        table = request.query_params.get("table")
        if not table:
            raise BadInput("no table is named", hint="add ?table=NAME")
        as_of = request.query_params.get("as_of")
        state = None if as_of is None else parse_state(as_of)
        answer = await run_in_threadpool(self._served.checksum, request.path_params["model"], table, state)
        return _json(wire.CHECKSUM_JSON, answer)

    async def rows(self, request: Request) -> Response:
        model, table = request.path_params["model"], request.path_params["table"]
        state = parse_state(request.query_params.get("as_of", ""))
        shards = parse_shards(request.query_params.get("shards"))
        epoch = request.query_params.get("idle_since")
        idle_since = None if epoch is None else parse_state(epoch, "idle_since")
        frames = await run_in_threadpool(self._served.rows, model, table, state, shards, idle_since)
        return StreamingResponse(frames, media_type="application/octet-stream")

    async def take_snapshot(self, request: Request) -> Response:
        taken = await run_in_threadpool(self._served.take_snapshot, request.path_params["model"])
        return _json(wire.SNAPSHOT_JSON, taken, status=201)

    async def snapshot_file(self, request: Request) -> Response:
        model, taken_s, name = (request.path_params[part] for part in ("model", "taken", "name"))
        path = await run_in_threadpool(self._served.snapshot_file, model, taken_s, name)
        return FileResponse(path, media_type="application/octet-stream")

    async def latency(self, request: Request) -> Response:
        return _json(wire.LATENCY_JSON, self._served.latency(request.path_params["model"]))

    async def signal(self, request: Request) -> Response:
        model = self._served.model(request.path_params["model"]).name
        try:
            body = _SignalBody.model_validate_json(await read_body(request.receive, MAX_SIGNAL_BYTES))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "body"
            raise BadInput(
                f"signal: {place}: {first['msg']}", hint="send metric, value, count, cohort, source, event_us"
            ) from error
        now_us = time.time_ns() // 1_000
        event_us = now_us if body.event_us is None else body.event_us
        check_event_time(event_us, now_us)
        signal = Signal(model, self._region, body.source, body.metric, body.value, body.count, event_us, body.cohort)
        self._served.relay(signal)
        return Response(status_code=202)

    async def members(self, _request: Request) -> Response:
        return _json(wire.MEMBERS_JSON, self._served.members())

    async def health(self, _request: Request) -> Response:
        health = self._served.health()
        return _json(wire.HEALTH_JSON, health, status=200 if health.healthy else 503)

    async def ready(self, _request: Request) -> Response:
        health = self._served.health()
        return _json(wire.HEALTH_JSON, health, status=200 if health.ready and health.healthy else 503)

    async def metrics(self, _request: Request) -> Response:
        return Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST})


def _json(adapter: TypeAdapter, value: object, status: int = 200) -> Response:  # type: ignore[type-arg]
    return Response(adapter.dump_json(value), status_code=status, media_type="application/json")


def _error(error: EkkoError, request: Request, status: int) -> Response:
    headers = {"retry-after": "1"} if status == 503 else {}
    body = wire.encode_error(error, f"{request.method} {request.url.path}")
    return Response(body, status_code=status, headers=headers, media_type="application/json")


async def _ekko_error(request: Request, error: EkkoError) -> Response:
    matches = (_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    return _error(error, request, next(matches, 500))


async def _http_error(request: Request, error: HTTPException) -> Response:
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return _error(BadInput(f"method {request.method} is not allowed here", hint=f"use {allowed}"), request, 405)
    paths = "/v1/models, /v1/members, /health, /ready, /metrics"
    return _error(ConfigurationError(f"{error.detail}: no such path", hint=f"try {paths}"), request, error.status_code)


async def _unexpected(request: Request, error: Exception) -> Response:
    return _error(EkkoError(f"unexpected {type(error).__name__}", hint="see the store's log"), request, 500)
