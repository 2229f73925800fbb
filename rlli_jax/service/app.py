"""The HTTP interface: what is asked and answered, and in which words something is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from time import perf_counter, time
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from rlli_jax.checking import one_sentence
from rlli_jax.errors import InputError
from rlli_jax.service.batching import Batches
from rlli_jax.service.decisions import Decisions, Rating
from rlli_jax.service.limits import Limits
from rlli_jax.service.live import Live
from rlli_jax.service.selecting import Arm, Refused, Selector

Name = Annotated[str, Field(min_length=1, max_length=500)]
Trait = Annotated[float, Field(ge=1, le=5, allow_inf_nan=False)]
T = TypeVar("T", bound=BaseModel)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Select(_Body):
    """Who asks for what; ``persona``, ``user`` or both are needed."""

    persona: Annotated[list[Trait], Field(min_length=5, max_length=5)] | None = None
    """Openness, conscientiousness, extraversion, agreeableness, neuroticism, each from 1 to 5."""
    user: Name | None = None
    """Name of the user. A user of the run needs no persona; ratings are told apart by it."""
    request: Name | None = None
    """What is asked for."""
    offered: Annotated[list[Name], Field(min_length=1, max_length=1000)] | None = None
    """The providers that could serve; all if absent."""


class Selected(BaseModel):
    """A decision, which is on the disk by now."""

    id: str
    provider: str
    propensity: float


class Feedback(_Body):
    """How a decision was liked."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Of the decision."""
    qoe: Annotated[float, Field(allow_inf_nan=False)]
    """On the scale that the service was started with."""


class ArmWanted(_Body):
    """A policy to put in force."""

    run: Name
    """A run directory on the machine of the service."""
    policy: Name | None = None
    """Its name; the best one that knows the persona if absent."""
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Of all decisions."""


class Policies(_Body):
    """The policies to put in force, whose shares sum to 1."""

    policies: Annotated[list[ArmWanted], Field(min_length=1, max_length=10)]


@dataclass(frozen=True)
class Settings:
    """What the service is started with."""

    low: float
    high: float
    """The scale of ratings."""
    rate: float
    """Requests a second that one address may make."""
    key: str | None
    """That requests must carry; None: none."""
    load: Callable[[str, str | None], Any]
    """run directory, name of a policy -> ServedPolicy. Raises InputError."""


def make_app(selector: Selector, decisions: Decisions, settings: Settings) -> ASGIApp:
    """The service of the policies of ``selector``, with ``decisions`` as its log."""
    live = Live(settings.low, settings.high)
    live.begin_with(decisions.counts())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batches = Batches(selector, decisions)
        app.state.batches = batches
        live.waiting.set_function(lambda: batches.waiting)
        worker = asyncio.create_task(batches.run())
        yield
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        batches.close()
        decisions.close()

    app = FastAPI(
        title="rlli_jax",
        summary="Which provider should serve this person? Every decision is logged.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.add_exception_handler(HTTPException, _in_one_sentence)
    app.add_exception_handler(Refused, _refused)
    reloading = asyncio.Lock()

    async def select(body: bytes) -> dict[str, Any]:
        """Choose a provider; the decision is on the disk before it is answered."""
        start = perf_counter()
        asked = _read(body, Select)
        batches: Batches = app.state.batches
        persona = None if asked.persona is None else tuple(asked.persona)
        wish = batches.selector.check(asked.user, persona, asked.request, asked.offered)
        row = await batches.select(wish)
        live.decided(row, perf_counter() - start)
        return {name: row[name] for name in ("id", "provider", "propensity")}

    async def feedback(body: bytes) -> dict[str, Any]:
        """Take a rating; a decision has one, and sending it again changes nothing."""
        given = _read(body, Feedback)
        if not settings.low <= given.qoe <= settings.high:
            raise Refused(
                422,
                f"qoe: must be on the scale from {settings.low:g} to {settings.high:g} "
                f"(given: {given.qoe:g}).",
            )
        rated = await app.state.batches.rate(Rating(given.id, time(), given.qoe))
        if not rated.found:
            raise Refused(404, f"id: there is no decision {given.id}.")
        if rated.known is None:
            live.rated(rated.policy, rated.provider, given.qoe)
        elif rated.known != given.qoe:
            raise Refused(
                409, f"id: the decision {given.id} was rated {rated.known:g} already; that stays."
            )
        return {"status": "kept"}

    short = {"/v1/select": select, "/v1/feedback": feedback}
    for path, function, body, answer in (
        ("/v1/select", select, Select, Selected),
        ("/v1/feedback", feedback, Feedback, None),
    ):
        app.post(path, responses=_answers(answer), openapi_extra=_body(body))(_endpoint(function))

    @app.put("/v1/policies", openapi_extra=_body(Policies))
    async def policies(request: Request) -> dict[str, Any]:
        """Load policies and put them in force, while those before them go on serving."""
        wanted = _read(await request.body(), Policies)
        batches: Batches = request.app.state.batches
        async with reloading:
            try:
                made = await asyncio.to_thread(_load, wanted.policies, batches.selector, settings)
            except InputError as error:
                raise Refused(422, str(error)) from None
            batches.selector = made
        return {"policies": _in_force(made)}

    @app.get("/v1/summary")
    async def summary(request: Request) -> dict[str, Any]:
        """Decisions and ratings so far, by provider and by policy."""
        selector = request.app.state.batches.selector
        return {
            "policies_in_force": _in_force(selector),
            "exploration": str(selector.rule),
            "log": decisions.name,
            **live.summary(selector.providers),
        }

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the service is up."""
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(live.registry), media_type=CONTENT_TYPE_LATEST)

    page = resources.files("rlli_jax.service").joinpath("templates/live.html").read_text("utf-8")

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})

    return Limits(ShortWay(app, short), key=settings.key, rate=settings.rate)


Function = Callable[[bytes], Awaitable[dict[str, Any]]]


class ShortWay:
    """Around FastAPI: the two functions that are called thousands of times a second.

    They are FastAPI's routes too, and answer the same there; its way to them takes longer than they
    do.
    """

    def __init__(self, app: ASGIApp, functions: Mapping[str, Function]) -> None:
        self._app, self._functions = app, functions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        function = self._functions.get(scope["path"]) if scope["type"] == "http" else None
        if function is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        status = 200
        try:
            said = await function((await receive())["body"])  # the whole of it, by Limits
        except Refused as refusal:
            status, said = refusal.status, {"detail": str(refusal)}
        body = json.dumps(said).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _endpoint(function: Function) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return JSONResponse(await function(await request.body()))

    endpoint.__name__, endpoint.__doc__ = function.__name__, function.__doc__
    return endpoint


_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
)


def _load(wanted: Sequence[ArmWanted], before: Selector, settings: Settings) -> Selector:
    arms = [Arm(settings.load(arm.run, arm.policy), arm.share) for arm in wanted]
    made = Selector(arms, before.rule)
    if set(made.providers) != set(before.providers):
        raise InputError("the policies in force know other providers; start another service.")
    made.warm()
    return made


def _in_force(selector: Selector) -> list[dict[str, Any]]:
    return [
        {"policy": arm.policy.name, "share": arm.share, "trained_on": arm.policy.judge}
        for arm in selector.arms
    ]


def _read(body: bytes, kind: type[T]) -> T:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise Refused(400, "the body must be a JSON object in UTF-8.") from None
        raise Refused(422, one_sentence(error, content, kind)) from None


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"detail": str(error)}, error.status)


async def _in_one_sentence(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {
        404: f"there is no {request.url.path}; see /docs.",
        405: f"{request.url.path} does not take {request.method}; see /docs.",
    }
    detail = said.get(error.status_code, str(error.detail))
    return JSONResponse({"detail": detail}, error.status_code, dict(error.headers or {}))


def _body(kind: type[BaseModel]) -> dict[str, Any]:
    """How OpenAPI describes a body that is read by :func:`_read`."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, part in schema.pop("$defs", {}).items():
        schema = json.loads(
            json.dumps(schema).replace(
                json.dumps({"$ref": f"#/components/schemas/{name}"}), json.dumps(part)
            )
        )
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _answers(kind: type[BaseModel] | None) -> dict[int | str, dict[str, Any]]:
    refusals = {
        400: "The body is no JSON.",
        401: "The key is missing or wrong.",
        413: "The body is too large.",
        422: "Something in the body cannot be right; the detail says what, in one sentence.",
        429: "Too many requests.",
        503: "The log cannot be written.",
    }
    answers: dict[int | str, dict[str, Any]] = {
        status: {"description": text} for status, text in refusals.items()
    }
    return answers if kind is None else answers | {200: {"model": kind}}
