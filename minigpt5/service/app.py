"""The routes in front of an engine, in OpenAI's shapes; and a server for them.

`create_app(engine, settings)` is an ASGI application; `serve` runs it until SIGTERM, upon which it answers those whom
it has taken and no other.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from uvicorn import Config, Server

from minigpt5.output import Segment
from minigpt5.pipeline import ImageEvent, MiniGPT5Pipeline
from minigpt5.service import shapes
from minigpt5.service.engine import (
    CancelledError,
    ClosedError,
    DeadlineError,
    Engine,
    Event,
    Limits,
    PreviewEvent,
    QueueFullError,
    Reply,
    segments,
)
from minigpt5.service.feedback import Feedback, FeedbackStore
from minigpt5.service.metrics import Metrics
from minigpt5.service.pictures import PictureLimits
from minigpt5.service.store import Store
from minigpt5.service.stories import Teller
from minigpt5.utils.checks import shown
from minigpt5.vokens.decoding import TextEvent

# Seconds between two looks at whether who asked is still there.
PATIENCE = 0.25
# The status of an answer to which who asked no longer listens, by nginx's custom.
GONE = 499
# Bytes of replies, and of what they answer, that can still be rated.
RATEABLE = 64 * 2**20

logger = logging.getLogger("minigpt5.service")


@dataclass(frozen=True)
class ServiceSettings:
    """What is asked for beside the engine's limits.

    Args:
        model: its name in answers.
        api_key: that who asks must show; `None` lets everybody in.
        pictures: what pictures are opened.
        max_body_mb: megabytes of a request.
        log_prompts: whether the log tells what was asked and answered.
        feedback: where ratings of replies go; `None` takes none.
        identity: the model as feedback tells of it, see `minigpt5.loading.identity`.
    """

    model: str
    api_key: str | None = None
    pictures: PictureLimits = field(default_factory=PictureLimits)
    max_body_mb: int = 64
    log_prompts: bool = False
    feedback: FeedbackStore | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)


class HTTPError(Exception):
    """An answer that is none."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", code: str | None = None):
        super().__init__(message)
        self.status, self.kind, self.code = status, kind, code

    @property
    def body(self) -> dict[str, Any]:
        """In OpenAI's shape."""
        return {"message": str(self), "type": self.kind, "param": None, "code": self.code}


def as_http(error: Exception) -> HTTPError:
    """What an error of the engine is to who asked."""
    if isinstance(error, HTTPError):
        return error
    if isinstance(error, QueueFullError):
        return HTTPError(429, str(error), "rate_limit_error")
    if isinstance(error, DeadlineError):
        return HTTPError(504, str(error), "timeout")
    if isinstance(error, ClosedError):
        return HTTPError(503, "the service is shutting down", "server_error")
    if isinstance(error, (CancelledError, ClientDisconnect)):
        return HTTPError(GONE, str(error), "cancelled")
    if isinstance(error, (TypeError, ValueError)):
        return HTTPError(400, str(error))
    return HTTPError(500, "the service failed; its log says how", "server_error")


class Call:
    """One request on its way through: who asked, what became of it, and its line in the log."""

    def __init__(self, request: Request, route: str, settings: ServiceSettings, metrics: Metrics):
        self.request, self.route, self.settings, self.metrics = request, route, settings, metrics
        self.number, self.began = uuid.uuid4().hex, time.monotonic()
        self.told: dict[str, Any] = {}
        self._ended = False

    def ended(self, status: int) -> None:
        """Count it and write it down, once."""
        if self._ended:
            return
        self._ended = True
        self.metrics.responses.labels(self.route, str(status)).inc()
        fields = {"id": self.number, "route": self.route, "status": status}
        seconds = round(time.monotonic() - self.began, 3)
        logger.info("request", extra={"fields": {**fields, "seconds": seconds, **self.told}})

    def answered(self, replies: list[Reply], parts: list[list[Segment]]) -> None:
        """Note down what was answered."""
        self.told |= {
            "prompt_tokens": sum(reply.prompt_tokens for reply in replies),
            "cached_tokens": sum(reply.cached_tokens for reply in replies),
            "new_tokens": sum(reply.new_tokens for reply in replies),
            "pictures": sum(not isinstance(part, str) for reply in parts for part in reply),
            "seeds": [reply.seed for reply in replies],
        }
        if self.settings.log_prompts:
            texts = [[part if isinstance(part, str) else None for part in reply] for reply in parts]
            self.told["replies"] = texts

    async def body(self) -> Mapping[str, Any]:
        """The request's JSON object."""
        most, data = self.settings.max_body_mb * 2**20, bytearray()
        async for chunk in self.request.stream():
            data += chunk
            if len(data) > most:
                raise HTTPError(413, f"a request may be of {self.settings.max_body_mb} MB")
        try:
            body = await asyncio.to_thread(json.loads, bytes(data))
        except (ValueError, RecursionError):
            raise HTTPError(400, "the request's body is no JSON") from None
        if not isinstance(body, dict):
            raise HTTPError(400, "the request's body is no JSON object")
        return body


def create_app(engine: Engine, settings: ServiceSettings, metrics: Metrics) -> FastAPI:
    """The service as an ASGI application; it closes the engine when it ends.

    Args:
        metrics: whose `measure` the engine was given.
    """
    metrics.watch("queue_length", "Requests that wait.", lambda: engine.queue_length)
    metrics.watch("conversations_bytes", "Of conversations kept.", lambda: engine.memory.conversations.nbytes)
    metrics.watch("pictures_bytes", "Of pictures' features kept.", lambda: engine.memory.pictures.nbytes)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(engine.close)

    app = FastAPI(title="minigpt5", lifespan=lifespan)
    began = int(time.time())
    stops = engine.pipe.decoding_config().stop_strings
    stops = engine.pipe.reader.stop_strings if stops is None else stops
    rateable: Store[Feedback] = Store(RATEABLE)
    metrics.watch("rateable_bytes", "Of replies kept to be rated.", lambda: rateable.nbytes)

    def answered(call: Call, number: str, asked: shapes.Asked, reply: Reply, parts: list[Segment]) -> None:
        """Note down a reply, and keep it as long as somebody may rate it."""
        call.answered([reply], [parts])
        if settings.feedback is not None:
            kept = shapes.unrated(number, settings.identity, asked, reply, parts)
            rateable.put(number, kept, shapes.size_of(kept))

    def route(path: str) -> Callable:
        """A route for requests with a body: checks the key, answers errors in OpenAI's shape, and writes the log."""

        def wrap(answer: Callable) -> Callable:
            async def handle(request: Request) -> Response:
                call = Call(request, path, settings, metrics)
                try:
                    check_key(request)
                    body = await call.body()
                    check_model(body)
                    return await answer(call, body)
                except Exception as error:
                    refusal = as_http(error)
                    if refusal.status == 500:
                        logger.exception("a request failed")
                    call.ended(refusal.status)
                    return refused(refusal)

            app.post(path, name=answer.__name__)(handle)
            return handle

        return wrap

    def check_key(request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        wanted = settings.api_key
        # Headers come as Latin-1, whatever who sends them meant.
        right = scheme.lower() == "bearer" and hmac.compare_digest(key.encode("latin-1"), (wanted or "").encode())
        if wanted is not None and not right:
            raise HTTPError(401, "the API key is missing or wrong", "authentication_error")

    def check_model(body: Mapping[str, Any]) -> None:
        if body.get("model") not in (None, settings.model):
            told = f"the model {shown(body['model'])} is not served here, only {settings.model}"
            raise HTTPError(404, told, code="model_not_found")

    def listen() -> tuple[Callable[[Any], None], asyncio.Queue]:
        """What is told events from another thread, and where they are to be had."""
        loop, events = asyncio.get_running_loop(), asyncio.Queue()

        def listener(event: Any) -> None:
            # Who asked may be gone, and the loop with them.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(events.put_nowait, event)

        return listener, events

    async def ask(call: Call, asked: shapes.Asked, options: dict[str, Any]) -> tuple[Reply, asyncio.Queue]:
        listener, events = listen()
        if settings.log_prompts:
            call.told["prompt"] = shown_prompt(asked.prompt)
        return await asyncio.to_thread(engine.submit, asked.prompt, listener=listener, **options), events

    async def heard(call: Call, reply: Reply | Teller, events: asyncio.Queue) -> AsyncIterator[Any]:
        """The events of a reply or the steps of a story, as long as somebody listens."""
        try:
            while True:
                # Also while words come one after the other.
                if await call.request.is_disconnected():
                    raise CancelledError("who asked is gone")
                try:
                    event = await asyncio.wait_for(events.get(), PATIENCE)
                except TimeoutError:
                    continue
                if event is None:
                    return
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            reply.cancel()

    async def stream(call: Call, reply: Reply | Teller, lines: AsyncIterator[str]) -> Response:
        """A stream of server-sent events; what goes wrong before the first is an answer of its own."""
        first = await anext(lines)

        async def body() -> AsyncIterator[str]:
            status = GONE
            try:
                yield first
                async for line in lines:
                    yield line
                status = 200
            except Exception as error:
                refusal = as_http(error)
                status = refusal.status
                if status == 500:
                    logger.exception("a request failed")
                yield sent({"error": refusal.body})
            finally:
                reply.cancel()
                call.ended(status)

        return StreamingResponse(body(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

    async def whole(call: Call, reply: Reply, events: asyncio.Queue) -> list[Segment]:
        return segments([event async for event in heard(call, reply, events)])

    @route("/v1/chat/completions")
    async def chat_completions(call: Call, body: Mapping[str, Any]) -> Response:
        asked = await asyncio.to_thread(shapes.read_chat, body, settings.pictures, stops)
        reply, events = await ask(call, asked, asked.options)
        number = f"chatcmpl-{call.number}"
        if not asked.stream:
            parts = await whole(call, reply, events)
            answered(call, number, asked, reply, parts)
            content = await asyncio.to_thread(shapes.chat_completion, number, settings.model, reply, parts)
            call.ended(200)
            return JSONResponse(content)

        async def lines() -> AsyncIterator[str]:
            chunk = partial(shapes.chat_chunk, number, settings.model, int(time.time()))
            parts: list[Event] = []
            opening: dict[str, Any] = {"role": "assistant"}
            async for event in heard(call, reply, events):
                if isinstance(event, PreviewEvent):
                    continue
                parts.append(event)
                is_text = isinstance(event, TextEvent)
                content = event.text if is_text else [await asyncio.to_thread(shapes.content_part, event.image)]
                yield sent(chunk(opening | {"content": content}))
                opening = {}
            answered(call, number, asked, reply, segments(parts))
            yield sent(chunk(opening, reply.finish_reason))
            if asked.include_usage:
                last = chunk({})
                yield sent({**last, "choices": [], "usage": shapes.chat_usage(reply)})
            yield "data: [DONE]\n\n"

        return await stream(call, reply, lines())

    @route("/v1/responses")
    async def responses(call: Call, body: Mapping[str, Any]) -> Response:
        asked = await asyncio.to_thread(shapes.read_response, body, settings.pictures)
        reply, events = await ask(call, asked, asked.options)
        number = f"resp_{call.number}"
        made = shapes.ResponseEvents(number, settings.model)

        async def told() -> AsyncIterator[dict[str, Any]]:
            parts: list[Event] = []
            async for event in heard(call, reply, events):
                if not parts:
                    for one in made.begin():
                        yield one
                parts.append(event)
                if isinstance(event, TextEvent):
                    news = made.text(event.text)
                elif isinstance(event, ImageEvent):
                    news = await asyncio.to_thread(made.picture, event.image)
                else:
                    news = await asyncio.to_thread(made.preview, event.picture, event.number, event.image)
                for one in news:
                    yield one
            answered(call, number, asked, reply, segments(parts))
            for one in [] if parts else made.begin():
                yield one
            for one in made.end(reply):
                yield one

        if asked.stream:
            return await stream(call, reply, (sent(one, one["type"]) async for one in told()))
        last = [one async for one in told()][-1]
        call.ended(200)
        return JSONResponse(last["response"])

    @route("/v1/images/generations")
    async def images(call: Call, body: Mapping[str, Any]) -> Response:
        asked = shapes.read_picture(body)
        if asked.n > engine.limits.queue_size:
            raise HTTPError(400, f"n is {asked.n}, and no more than {engine.limits.queue_size} requests may wait here")
        replies: list[tuple[Reply, asyncio.Queue]] = []
        try:
            for number in range(asked.n):
                seed = asked.options.get("seed")
                own = {} if seed is None or not number else {"seed": seed + number}
                replies.append(await ask(call, asked, asked.options | own))
            parts = [await whole(call, reply, events) for reply, events in replies]
        finally:
            for reply, _ in replies:
                reply.cancel()
        call.answered([reply for reply, _ in replies], parts)
        painted = [part for reply in parts for part in reply if not isinstance(part, str)]
        data = [{"b64_json": await asyncio.to_thread(shapes.base64_png, image)} for image in painted]
        call.ended(200)
        return JSONResponse({"created": int(time.time()), "data": data})

    @route("/v1/stories")
    async def stories(call: Call, body: Mapping[str, Any]) -> Response:
        teller = await asyncio.to_thread(Teller, engine, body, settings.pictures)
        if settings.log_prompts:
            call.told["prompt"] = body.get("opening")

        listener, events = listen()
        teller.start(listener)

        async def lines() -> AsyncIterator[str]:
            async for step in heard(call, teller, events):
                image = None if step.image is None else await asyncio.to_thread(shapes.base64_png, step.image)
                yield sent({"index": step.index, "text": step.text, "image": image})
            call.answered(teller.replies, teller.parts)
            yield "data: [DONE]\n\n"

        return await stream(call, teller, lines())

    if (store := settings.feedback) is not None:

        @route("/v1/feedback")
        async def feedback(call: Call, body: Mapping[str, Any]) -> Response:
            number, rating, correction = await asyncio.to_thread(shapes.read_feedback, body, settings.pictures)
            if (kept := rateable.get(number)) is None:
                raise HTTPError(404, f"no reply {number} is remembered: it is too long ago, or was another service's")
            # On the disk before the answer.
            await asyncio.to_thread(store.put, replace(kept, rating=rating, correction=correction))
            call.ended(200)
            return JSONResponse({"id": number, "object": "feedback", "rating": rating})

    described = {"id": settings.model, "object": "model", "created": began, "owned_by": "minigpt5"}

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        check_key(request)
        return JSONResponse({"object": "list", "data": [described]})

    @app.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> Response:
        check_key(request)
        check_model({"model": name})
        return JSONResponse(described)

    @app.exception_handler(HTTPError)
    async def not_answered(request: Request, error: HTTPError) -> Response:
        return refused(error)

    @app.exception_handler(StarletteHTTPException)
    async def no_route(request: Request, error: StarletteHTTPException) -> Response:
        return refused(HTTPError(error.status_code, f"there is no {request.method} {request.url.path} here"))

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok" if engine.running else "closing"}, 200 if engine.running else 503)

    @app.get("/metrics")
    async def metrics_text() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return app


def sent(data: Any, event: str | None = None) -> str:
    """A server-sent event."""
    return (f"event: {event}\n" if event else "") + f"data: {json.dumps(data)}\n\n"


def refused(error: HTTPError) -> Response:
    """An error as an answer."""
    headers = {"Retry-After": "1"} if error.status == 429 else None
    # Escaped, as it may tell of half a surrogate pair.
    return Response(json.dumps({"error": error.body}), error.status, headers, "application/json")


def shown_prompt(prompt: Any) -> Any:
    """A prompt as the log has it: without its pictures."""
    if isinstance(prompt, str):
        return prompt
    return [
        {"role": message["role"], "content": [part.get("text") for part in message["content"]]} for message in prompt
    ]


class JSONLines(logging.Formatter):
    """A line of JSON for each record."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"time": f"{moment}Z", "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_as_json() -> None:
    """Write what the service and its server say to stderr, a line of JSON each."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSONLines())
    for name in ("minigpt5.service", "uvicorn"):
        own = logging.getLogger(name)
        own.handlers, own.propagate = [handler], False
        own.setLevel(logging.INFO)


def serve(pipe: MiniGPT5Pipeline, listening: socket.socket, limits: Limits, settings: ServiceSettings) -> None:
    """Answer requests until SIGTERM or SIGINT.

    Args:
        listening: a socket that is bound.
    """
    log_as_json()
    metrics = Metrics()
    engine = Engine(pipe, limits, metrics.measure)
    config = Config(
        create_app(engine, settings, metrics),
        log_config=None,
        access_log=False,
        # Nobody waits longer for a reply.
        timeout_graceful_shutdown=int(limits.timeout) + 1,
    )
    Server(config).run(sockets=[listening])
