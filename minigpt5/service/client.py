"""Asks a running service for a story, with the standard library and PIL alone: nothing here imports torch."""

from __future__ import annotations

import base64
import http.client
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from minigpt5.story import StoryStep
from minigpt5.utils.html import data_url

# Seconds without a word from the service; it makes a step, and those of others, in less.
PATIENCE = 600


class ServiceError(RuntimeError):
    """A service that does not do what it is asked; the message says which and why."""


def tell_story_at(
    server: str,
    opening: str,
    image: Image.Image | None = None,
    model: str | None = None,
    key: str | None = None,
    **options: Any,
) -> Iterator[StoryStep]:
    """A story that a running `minigpt5 serve` tells: with the same seed the one that `tell_story` tells with its model.

    Args:
        server: its address, such as `http://127.0.0.1:8000`.
        opening, image: as for `tell_story`.
        model: what it must serve, by its name there.
        key: its API key.
        options: steps, seed and image_mode, as for `tell_story`, and temperature, where 0 takes the likeliest words.

    Yields:
        The steps, each as soon as its picture is painted.

    Raises:
        ServiceError: if it cannot be reached, serves another model, or refuses or fails.
    """
    with _asked(server, key, "GET", "/v1/models") as answer:
        served = [one["id"] for one in json.load(answer)["data"]]
    if model is not None and model not in served:
        raise ServiceError(f"the service at {server} has the model {', '.join(served)}, not {model}")
    body: dict[str, Any] = {"opening": opening, **options}
    if image is not None:
        body["image"] = data_url(image)
    with _asked(server, key, "POST", "/v1/stories", body) as answer:
        for line in answer:
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                return
            step = json.loads(line.removeprefix(b"data: "))
            if "error" in step:
                raise ServiceError(f"the service at {server} says: {step['error']['message']}")
            picture = None if step["image"] is None else _opened(step["image"])
            yield StoryStep(step["index"], step["text"], picture)
        raise ServiceError(f"the service at {server} ended in the middle of the story")


@contextmanager
def _asked(
    server: str, key: str | None, method: str, path: str, body: Any = None
) -> Iterator[http.client.HTTPResponse]:
    """The answer to one request, which is what was asked for."""
    place = urlsplit(server)
    kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    headers: dict[str, str | bytes] = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}".encode()
    connection = kind(str(place.hostname), place.port, timeout=PATIENCE)
    try:
        connection.request(method, place.path.rstrip("/") + path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise ServiceError(f"the service at {server} says: {_refusal(answer)}")
        yield answer
    except (OSError, http.client.HTTPException) as error:
        raise ServiceError(
            f"the service at {server} does not answer ({error or type(error).__name__}); "
            "minigpt5 serve starts one, and without its address the story is told here"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ServiceError(f"what is at {server} is no service of minigpt5") from error
    finally:
        connection.close()


def _refusal(answer: http.client.HTTPResponse) -> str:
    try:
        return json.load(answer)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return f"{answer.status} {answer.reason}"


def _opened(data: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    image.load()
    return image
