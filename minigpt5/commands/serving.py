"""What listens: `minigpt5 serve` and `minigpt5 studio`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from minigpt5.commands.arguments import (
    API_KEY,
    MINIATURE,
    add_adapter,
    add_dtype,
    as_program_error,
    feedback_errors,
    free_file,
    model_name,
    say,
    whole_number,
)
from minigpt5.utils.imports import collector_paused
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.programs import ProgramError
from minigpt5.weights import title_of


def add_server_options(command: argparse.ArgumentParser, port: int) -> None:
    """What every command that opens a model and listens is told."""
    add_adapter(command)
    add_dtype(command)
    command.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen at (default: 127.0.0.1)")
    command.add_argument(
        "--port", type=whole_number(0, 65535), default=port, metavar="N", help=f"to listen at (default: {port})"
    )


@contextmanager
def listening_at(arguments: argparse.Namespace, extra: str, packages: Sequence[str]) -> Iterator[tuple[Any, str]]:
    """A socket that is bound, and its address for browsers; before the model is opened, which takes longer.

    Args:
        extra, packages: what is needed besides, and the extra that brings it.

    Raises:
        ProgramError: if it is not there, or the address cannot be listened at.
    """
    import socket

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ProgramError(f"this needs {', '.join(missing)}: pip install 'minigpt5[{extra}]'")
    address = (arguments.host, arguments.port)
    with as_program_error(OSError, f"cannot listen at {arguments.host}, port {arguments.port}: "):
        family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server(address, family=family, backlog=2048)
    with listening:
        host, port = listening.getsockname()[:2]
        yield listening, f"http://{f'[{host}]' if ':' in host else host}:{port}"


def add_serve(commands) -> None:
    """`minigpt5 serve`."""
    serving = commands.add_parser(
        "serve",
        help="answer requests over HTTP",
        description="Answer requests over HTTP in OpenAI's shapes: /v1/chat/completions, /v1/responses, "
        "/v1/images/generations; /v1/stories tells whole stories. Requests that come together are answered together. "
        f"The environment variable {API_KEY} sets a key that they must show. SIGTERM ends it once all are answered.",
        epilog="example: minigpt5 serve storyworld-mini --port 8000",
    )
    serving.set_defaults(run=run_serve)
    serving.add_argument(
        "model", metavar="MODEL", type=model_name, help="a shipped model, a pipeline's folder or a hub repository"
    )
    add_server_options(serving, port=8000)
    limits = {
        "batch-size": (1, 8, "replies that are decoded together, and pictures that are painted together"),
        "queue-size": (1, 64, "requests that may wait; more are told to come again"),
        "timeout": (1, 300, "seconds that a reply may take"),
        "max-new-tokens": (1, None, "tokens of a reply"),
        "max-images": (0, 4, "pictures of a reply"),
        "cache-mb": (0, 256, "memory for what was read before"),
    }
    for name, (least, value, text) in limits.items():
        told = "what the model holds" if value is None else value
        serving.add_argument(
            f"--{name}", type=whole_number(least), default=value, metavar="N", help=f"{text} (default: {told})"
        )
    serving.add_argument(
        "--allow-urls", action="store_true", help="fetch pictures from public http and https addresses"
    )
    serving.add_argument("--log-prompts", action="store_true", help="write what is asked and answered to the log")
    serving.add_argument(
        "--feedback", type=free_file, metavar="FILE", help="take ratings at /v1/feedback and keep them in this file"
    )


def run_serve(arguments: argparse.Namespace) -> None:
    """Open the model and answer requests until SIGTERM."""
    names = ("batch_size", "queue_size", "timeout", "max_new_tokens", "max_images", "cache_mb")
    with listening_at(arguments, "service", ("fastapi", "uvicorn", "prometheus_client")) as (listening, address):
        with collector_paused():
            import torch

            from minigpt5.loading import identity, open_model
            from minigpt5.service.app import ServiceSettings, serve
            from minigpt5.service.engine import Limits
            from minigpt5.service.feedback import FeedbackStore
            from minigpt5.service.pictures import PictureLimits

        quiet_libraries()
        store = None
        if arguments.feedback:
            with feedback_errors(arguments.feedback):
                store = FeedbackStore(arguments.feedback)
        pipe = open_model(arguments.model, arguments.adapter, getattr(torch, arguments.dtype))
        settings = ServiceSettings(
            model=title_of(arguments.model),
            api_key=os.environ.get(API_KEY) or None,
            pictures=PictureLimits(allow_urls=arguments.allow_urls),
            log_prompts=arguments.log_prompts,
            feedback=store,
            identity=identity(arguments.model, arguments.adapter) if store else {},
        )
        say(address)
        serve(pipe, listening, Limits(**{name: getattr(arguments, name) for name in names}), settings)


def add_studio(commands) -> None:
    """`minigpt5 studio`."""
    studio = commands.add_parser(
        "studio",
        help="open a page to chat on",
        description="Open the Studio in this machine's browser: a page to chat with a model in text and pictures. "
        "Ctrl-C or SIGTERM ends it.",
        epilog="example: minigpt5 studio storyworld-mini",
    )
    studio.set_defaults(run=run_studio)
    studio.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        default=MINIATURE,
        type=model_name,
        help=f"a shipped model, a pipeline's folder or a hub repository (default: {MINIATURE})",
    )
    add_server_options(studio, port=7860)
    studio.add_argument(
        "--feedback",
        type=free_file,
        default="feedback.sqlite",
        metavar="FILE",
        help="where thumbs and corrections go, made with the first (default: feedback.sqlite)",
    )
    studio.add_argument("--no-browser", action="store_true", help="open no browser, only print the address")


def run_studio(arguments: argparse.Namespace) -> None:
    """Open the model and show the Studio until SIGTERM."""
    with listening_at(arguments, "studio", ("gradio",)) as (listening, address):
        with collector_paused():
            import torch

            from minigpt5.loading import identity, open_model
            from minigpt5.service.feedback import FeedbackStore
            from minigpt5.studio.app import serve

        quiet_libraries()
        with feedback_errors(arguments.feedback):
            store = FeedbackStore(arguments.feedback)
        pipe = open_model(arguments.model, arguments.adapter, getattr(torch, arguments.dtype))
        model = identity(arguments.model, arguments.adapter)
        say(address)
        serve(pipe, listening, model, store, None if arguments.no_browser else address)
