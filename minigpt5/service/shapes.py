"""OpenAI's shapes of requests, as what the engine is asked, and of its replies.

What these shapes have no word for goes beside their own words: `image_mode`, `max_images`, `num_inference_steps`,
`guidance_scale`, `height`, `width`, `top_k`, `repetition_penalty` and `timeout`, which the `openai` client sends as
`extra_body`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from PIL import Image

from minigpt5.output import Segment
from minigpt5.readers.prompts import Message
from minigpt5.service.engine import MOST_PREVIEWS, Reply
from minigpt5.service.feedback import RATINGS, Feedback
from minigpt5.service.pictures import Opener, PictureLimits
from minigpt5.utils.checks import one_of, sampling, shown, some_text, whole_number, yes_or_no
from minigpt5.utils.html import base64_png, data_url

# Passed on to the engine as they are.
EXTRAS = (
    "guidance_scale",
    "height",
    "image_mode",
    "max_images",
    "num_inference_steps",
    "repetition_penalty",
    "seed",
    "timeout",
    "top_k",
    "top_p",
)
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
TEXTS, PICTURES = ("text", "input_text", "output_text"), ("image_url", "input_image")
MOST_PICTURES_ASKED = 10
# Each is looked for at every token.
MOST_STOPS = 16


@dataclass
class Asked:
    """A request: what the engine is to be asked, and how the answer is to be given.

    Args:
        prompt: the conversation.
        options: of `Engine.submit`.
        stream: whether events are sent as they come.
        include_usage: whether a stream of a chat ends with the number of tokens.
        n: pictures asked for.
    """

    prompt: list[Message] | str
    options: dict[str, Any] = field(default_factory=dict)
    stream: bool = False
    include_usage: bool = False
    n: int = 1


def read_chat(body: Mapping[str, Any], limits: PictureLimits, stops: Sequence[str] = ()) -> Asked:
    """A request of `/v1/chat/completions`.

    Args:
        stops: what ends the model's replies anyhow, beside `stop`.

    Raises:
        TypeError, ValueError: for what cannot be done; names it.
    """
    penalties = ("frequency_penalty", "presence_penalty")
    _refuse(body, ("tools", "functions", "logprobs", "audio", "logit_bias", *penalties))
    if body.get("n") not in (None, 1):
        raise ValueError("n can only be 1; ask again for another reply")
    _only_text("response_format", body.get("response_format"))
    options = _options(body)
    for name in ("max_completion_tokens", "max_tokens"):
        if body.get(name) is not None:
            options["max_new_tokens"] = body[name]
            break
    stop = body.get("stop")
    if stop is not None:
        stop = [stop] if isinstance(stop, str) else stop
        if isinstance(stop, list) and len(stop) > MOST_STOPS:
            raise ValueError(f"stop can be {MOST_STOPS} texts at most, got {len(stop)}")
        options["stop_strings"] = [*stop, *stops] if isinstance(stop, list) else stop
    usage = body.get("stream_options") or {}
    if not isinstance(usage, Mapping):
        raise TypeError(f"stream_options must be an object, got {shown(usage)}")
    prompt = _conversation(body.get("messages"), "messages", limits)
    return Asked(prompt, options, _yes(body, "stream"), _yes(usage, "include_usage"))


def read_response(body: Mapping[str, Any], limits: PictureLimits) -> Asked:
    """A request of `/v1/responses`, where pictures are painted by the tool `image_generation` alone.

    Raises:
        TypeError, ValueError: for what cannot be done; names it.
    """
    _refuse(body, ("previous_response_id", "conversation", "background", "prompt", "top_logprobs"))
    text = body.get("text") or {}
    if not isinstance(text, Mapping):
        raise TypeError(f"text must be an object, got {shown(text)}")
    _only_text("text.format", text.get("format"))
    options = _options(body)
    if body.get("max_output_tokens") is not None:
        options["max_new_tokens"] = body["max_output_tokens"]
    tools = body.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise TypeError("tools must be a list of objects")
    if [tool for tool in tools if tool.get("type") != "image_generation"] or len(tools) > 1:
        raise ValueError("tools can only be one of type image_generation")
    if not tools:
        options.setdefault("image_mode", "never")
    for tool in tools:
        _only_opaque_png(tool)
        if tool.get("partial_images") is not None:
            options["previews"] = whole_number("partial_images", tool["partial_images"], 0, MOST_PREVIEWS)
        options |= _size(tool.get("size"))
    choice = body.get("tool_choice")
    if choice == "required" or (isinstance(choice, Mapping) and choice.get("type") == "image_generation"):
        options["image_mode"] = "always"
    elif choice == "none":
        options["image_mode"] = "never"
    elif choice not in (None, "auto"):
        raise ValueError(f"tool_choice can be auto, none, required or image_generation, got {shown(choice)}")
    said = body.get("input")
    if isinstance(said, str):
        said = [{"role": "user", "content": said}]
    if body.get("instructions") is not None and isinstance(said, list):
        said = [{"role": "system", "content": body["instructions"]}, *said]
    return Asked(_conversation(said, "input", limits), options, _yes(body, "stream"))


def read_picture(body: Mapping[str, Any]) -> Asked:
    """A request of `/v1/images/generations`.

    Raises:
        TypeError, ValueError: for what cannot be done; names it.
    """
    _refuse(body, ("stream", "partial_images"))
    if body.get("response_format") not in (None, "b64_json"):
        raise ValueError("response_format can only be b64_json: pictures are not kept at an address")
    _only_opaque_png(body)
    if not isinstance(body.get("prompt"), str):
        raise TypeError("prompt must be a string")
    n = 1 if body.get("n") is None else whole_number("n", body["n"], 1, MOST_PICTURES_ASKED)
    options = _options(body) | _size(body.get("size")) | {"image_mode": "always", "max_images": 1}
    return Asked(body["prompt"], options, n=n)


def read_feedback(body: Mapping[str, Any], limits: PictureLimits) -> tuple[str, str, list[Segment] | None]:
    """A request of `/v1/feedback`: the reply's id, its rating, and the segments that it should have had.

    Raises:
        TypeError, ValueError: for what is none; names it.
    """
    number, correction = body.get("id"), None
    if not isinstance(number, str):
        raise TypeError(f"id must be that of a reply, got {shown(number)}")
    rating = one_of("rating", body.get("rating"), RATINGS)
    if body.get("correction") is not None:
        parts = _content(body["correction"], "correction", Opener(limits))
        texts = [some_text("correction: the text of a part", part["text"]) for part in parts if "text" in part]
        if not all(map(str.strip, texts)):
            raise ValueError("correction: its parts must say or show something")
        correction = [part.get("text", part.get("image")) for part in parts]
    return number, rating, correction


def _refuse(body: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in names:
        if body.get(name):
            raise ValueError(f"{name} is not supported")


def _only_text(name: str, kind: Any) -> None:
    if kind is not None and (not isinstance(kind, Mapping) or kind.get("type") != "text"):
        raise ValueError(f"{name} can only be text")


def _only_opaque_png(asked: Mapping[str, Any]) -> None:
    if asked.get("output_format") not in (None, "png"):
        raise ValueError("output_format can only be png")
    if asked.get("background") not in (None, "auto", "opaque"):
        raise ValueError("background can only be opaque")


def _yes(body: Mapping[str, Any], name: str) -> bool:
    return False if body.get(name) is None else yes_or_no(name, body[name])


def _options(body: Mapping[str, Any]) -> dict[str, Any]:
    options = {name: body[name] for name in EXTRAS if body.get(name) is not None}
    return options | sampling(body.get("temperature"))


def _size(size: Any) -> dict[str, int]:
    if size in (None, "auto"):
        return {}
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size) if isinstance(size, str) else None
    if found is None:
        raise ValueError(f"size is WIDTHxHEIGHT or auto, got {shown(size)}")
    return {"width": int(found[1]), "height": int(found[2])}


def _conversation(said: Any, name: str, limits: PictureLimits) -> list[Message]:
    if not isinstance(said, list) or not said:
        raise ValueError(f"{name} must be a list of messages, and not be empty")
    messages: list[Message] = []
    opener = Opener(limits)
    for number, item in enumerate(said, 1):
        where = f"{name}, item {number}"
        if not isinstance(item, Mapping):
            raise TypeError(f"{where}: a message is an object, got {shown(item)}")
        if item.get("type") == "image_generation_call":
            picture = opener(f"data:image/png;base64,{item.get('result')}")
            message = {"role": "assistant", "content": [{"type": "image", "image": picture}]}
        elif item.get("type") in (None, "message"):
            role = one_of(f"{where}: role", item.get("role"), tuple(ROLES))
            message = {"role": ROLES[role], "content": _content(item.get("content"), where, opener)}
        else:
            raise ValueError(f"{where}: items of type {shown(item['type'])} are not supported")
        # What the assistant said in several items is one turn, and so is what the system says.
        if messages and message["role"] == messages[-1]["role"] != "user":
            messages[-1]["content"] += message["content"]
        else:
            messages.append(message)
    return messages


def _content(content: Any, where: str, opener: Opener) -> list[dict]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise TypeError(f"{where}: content is a string or a list of parts, got {shown(content)}")
    parts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in TEXTS:
            parts.append({"type": "text", "text": part.get("text")})
        elif kind in PICTURES:
            url = part.get("image_url")
            url = url.get("url") if isinstance(url, Mapping) else url
            parts.append({"type": "image", "image": opener(url)})
        else:
            raise ValueError(f"{where}: parts are of type {', '.join((*TEXTS, *PICTURES))}, got {shown(kind)}")
    return parts


# Replies


def unrated(number: str, model: Mapping[str, Any], asked: Asked, reply: Reply, parts: Sequence[Segment]) -> Feedback:
    """A reply with what repeats it, as feedback that lacks only the rating."""
    settings = {name: value for name, value in asked.options.items() if name not in ("seed", "timeout", "previews")}
    return Feedback(number, model, cast(list[Message], asked.prompt), settings, reply.seed, parts, rating="")


def size_of(feedback: Feedback) -> int:
    """About the bytes that it holds in memory."""
    read = [part.get("text", part.get("image")) for message in feedback.messages for part in message["content"]]
    parts: list[Any] = [*read, *feedback.reply]
    return 1000 + sum(len(part) if isinstance(part, str) else 3 * part.width * part.height for part in parts)


def content_part(part: Segment) -> dict[str, Any]:
    """A text or picture as a part of a message of a chat."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image_url", "image_url": {"url": data_url(part)}}


def chat_usage(reply: Reply) -> dict[str, Any]:
    """Tokens of a chat's turn."""
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.new_tokens,
        "total_tokens": reply.prompt_tokens + reply.new_tokens,
        "prompt_tokens_details": {"cached_tokens": reply.cached_tokens},
    }


def chat_completion(number: str, model: str, reply: Reply, parts: Sequence[Segment]) -> dict[str, Any]:
    """A whole reply; its content is a string, or a list of parts where it has pictures."""
    only_words = all(isinstance(part, str) for part in parts)
    content = " ".join(parts) if only_words else [content_part(part) for part in parts]
    message = {"role": "assistant", "content": content}
    return {
        "id": number,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason, "logprobs": None}],
        "usage": chat_usage(reply),
    }


def chat_chunk(
    number: str, model: str, created: int, delta: dict[str, Any], finish_reason: str | None = None
) -> dict[str, Any]:
    """A piece of a reply whose stream was created at a time, in seconds since 1970."""
    return {
        "id": number,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}],
    }


def message_item(number: str, text: str | None, status: str = "completed") -> dict[str, Any]:
    """A text of a response; `None` is one that has only begun."""
    content = [] if text is None else [output_text(text)]
    return {"id": number, "type": "message", "role": "assistant", "status": status, "content": content}


def output_text(text: str) -> dict[str, Any]:
    """A text as the content of a response's message."""
    return {"type": "output_text", "text": text, "annotations": []}


def picture_item(number: str, result: str | None, status: str = "completed") -> dict[str, Any]:
    """A picture of a response, its file in base64."""
    return {"id": number, "type": "image_generation_call", "status": status, "result": result}


def response(
    number: str, model: str, created: int, output: list[dict[str, Any]], reply: Reply | None = None
) -> dict[str, Any]:
    """A response, created at a time in seconds since 1970: in progress without a reply."""
    status = "in_progress" if reply is None else "completed"
    cut = reply is not None and reply.finish_reason == "length"
    usage = None
    if reply is not None:
        usage = {
            "input_tokens": reply.prompt_tokens,
            "input_tokens_details": {"cached_tokens": reply.cached_tokens},
            "output_tokens": reply.new_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": reply.prompt_tokens + reply.new_tokens,
        }
    return {
        "id": number,
        "object": "response",
        "created_at": created,
        "model": model,
        "status": "incomplete" if cut else status,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "error": None,
        "output": output,
        "usage": usage,
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
    }


class ResponseEvents:
    """The events of a streamed response, out of those of the engine; `output` grows on the way.

    Args:
        number: the response's id.
        model: the model's name.
    """

    def __init__(self, number: str, model: str):
        self.number, self.model, self.created = number, model, int(time.time())
        self.output: list[dict[str, Any]] = []
        self._sent = 0
        self._text = ""
        # The item that is open, of which the last of `output` is not yet one.
        self._open: str | None = None

    def begin(self) -> list[dict[str, Any]]:
        """What is told before anything else."""
        begun = response(self.number, self.model, self.created, [])
        return [self._event("response.created", response=begun), self._event("response.in_progress", response=begun)]

    def text(self, more: str) -> list[dict[str, Any]]:
        """More text."""
        if not self._text:
            more = more.lstrip()
        events = [] if self._open == "message" or not more else self._begin("message")
        self._text += more
        place = {"item_id": self._id("msg"), "content_index": 0, "delta": more, "logprobs": []}
        return [*events, self._of_item("response.output_text.delta", **place)] if more else events

    def preview(self, picture: int, number: int, image: Image.Image) -> list[dict[str, Any]]:
        """A picture on its way; of those behind the next one nothing is told, as items come one after another."""
        if picture != sum(item["type"] == "image_generation_call" for item in self.output):
            return []
        events = self._begin_picture()
        told = {"item_id": self._id("ig"), "partial_image_index": number, "partial_image_b64": base64_png(image)}
        return [*events, self._of_item("response.image_generation_call.partial_image", **told)]

    def picture(self, image: Image.Image) -> list[dict[str, Any]]:
        """A picture that is painted."""
        events = self._begin_picture()
        item = picture_item(self._id("ig"), base64_png(image))
        events.append(self._of_item("response.image_generation_call.completed", item_id=item["id"]))
        return [*events, *self._done(item)]

    def end(self, reply: Reply) -> list[dict[str, Any]]:
        """What is told last."""
        events = self._end_text()
        whole = response(self.number, self.model, self.created, self.output, reply)
        return [*events, self._event(f"response.{whole['status']}", response=whole)]

    def _event(self, kind: str, **told: Any) -> dict[str, Any]:
        self._sent += 1
        return {"type": kind, "sequence_number": self._sent - 1, **told}

    def _of_item(self, kind: str, **told: Any) -> dict[str, Any]:
        return self._event(kind, output_index=len(self.output), **told)

    def _id(self, kind: str) -> str:
        return f"{kind}_{len(self.output)}_{self.number}"

    def _begin(self, kind: str) -> list[dict[str, Any]]:
        self._open = kind
        if kind == "message":
            item = message_item(self._id("msg"), None, "in_progress")
            part = {"item_id": item["id"], "content_index": 0, "part": output_text("")}
            added = self._of_item("response.output_item.added", item=item)
            return [added, self._of_item("response.content_part.added", **part)]
        item = picture_item(self._id("ig"), None, "in_progress")
        return [
            self._of_item("response.output_item.added", item=item),
            self._of_item("response.image_generation_call.in_progress", item_id=item["id"]),
            self._of_item("response.image_generation_call.generating", item_id=item["id"]),
        ]

    def _begin_picture(self) -> list[dict[str, Any]]:
        return [] if self._open == "picture" else [*self._end_text(), *self._begin("picture")]

    def _end_text(self) -> list[dict[str, Any]]:
        if self._open != "message":
            return []
        item = message_item(self._id("msg"), self._text)
        place = {"item_id": item["id"], "content_index": 0}
        done = self._of_item("response.output_text.done", text=self._text, logprobs=[], **place)
        part = self._of_item("response.content_part.done", part=output_text(self._text), **place)
        self._text = ""
        return [done, part, *self._done(item)]

    def _done(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        told = self._of_item("response.output_item.done", item=item)
        self.output.append(item)
        self._open = None
        return [told]
