"""One model that answers many requests at once.

Requests that come while others are answered join them: their rows enter and leave the decoding batch between steps, and
the pictures of all replies that are whole are denoised together, while decoding goes on between denoising steps. Each
reply is that of `MiniGPT5Pipeline.__call__` to the same request alone, with a generator of its seed.

engine = Engine(pipe)
reply = engine.submit("Draw this: a red fox.", seed=0)
for event in reply:
    ...
engine.close()
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from transformers import BatchFeature

from minigpt5.output import Segment
from minigpt5.painters import TrainablePainter
from minigpt5.pipeline import ImageEvent, MiniGPT5Pipeline
from minigpt5.readers.conversation import conversation
from minigpt5.readers.prompts import Message, Prompt, PromptTooLongError, as_batch
from minigpt5.service.store import Memory
from minigpt5.utils.checks import real_number, whole_number
from minigpt5.utils.offload import bring_to_device, take_off_device
from minigpt5.vokens.decoding import DecodingBatch, InterleavedDecoder, TextEvent, VokenEvent, as_segments

# Seconds that a picture waits for others to be denoised with, while replies are being decoded.
PICTURE_WAIT = 0.25
LARGEST_SEED = 2**63 - 1
MOST_PREVIEWS = 3
# Of a prompt for each token that the context holds; hardly any token is as long.
MOST_CHARACTERS = 32
T = TypeVar("T")

logger = logging.getLogger("minigpt5.service")


class QueueFullError(RuntimeError):
    """As many requests wait as may."""


class ClosedError(RuntimeError):
    """The engine takes no more requests."""


class DeadlineError(TimeoutError):
    """A request was not answered in time."""


class CancelledError(RuntimeError):
    """Who asked no longer wants the reply."""


class FailedError(RuntimeError):
    """The model failed; the log says how."""


@dataclass(frozen=True)
class PreviewEvent:
    """A picture on its way: the picture's number in its reply, and which of its previews this is, both from 0."""

    picture: int
    number: int
    image: Any


Event = TextEvent | ImageEvent | PreviewEvent


@dataclass(frozen=True)
class Limits:
    """What an engine takes on.

    Args:
        batch_size: rows that decode together, and pictures that denoise together.
        queue_size: requests that may wait.
        timeout: seconds from a request's arrival to the end of its reply, if it does not say less.
        max_new_tokens: choices of a reply; by default what the model's context holds.
        max_images: pictures of a reply.
        cache_mb: megabytes for what was read before: half for conversations, half for pictures.

    Raises:
        TypeError, ValueError: naming the limit.
    """

    batch_size: int = 8
    queue_size: int = 64
    timeout: float = 300.0
    max_new_tokens: int | None = None
    max_images: int = 4
    cache_mb: int = 256

    def __post_init__(self):
        for name, least in (("batch_size", 1), ("queue_size", 1), ("max_images", 0), ("cache_mb", 0)):
            whole_number(name, getattr(self, name), least)
        real_number("timeout", self.timeout, 1e-3)
        if self.max_new_tokens is not None:
            whole_number("max_new_tokens", self.max_new_tokens, 1)


@dataclass(frozen=True)
class Look:
    """How pictures are painted; those that are painted alike are painted together."""

    num_inference_steps: int
    guidance_scale: float
    height: int
    width: int


@dataclass(eq=False)
class Reply:
    """A reply in the making: iterate over its events, or wait for its `segments`.

    Args:
        seed: of its random numbers; the request, made again with it, gets the same reply.
        previews: of each picture.
        deadline: by `time.monotonic`.
        listener: is told each event, from the engine's thread; then `None`, or the error that ended it. By default
            the events are kept for who iterates.
    """

    seed: int
    previews: int
    deadline: float
    listener: Callable[[Event | Exception | None], None] | None
    decoder: InterleavedDecoder
    generator: torch.Generator
    look: Look
    inputs: BatchFeature
    pictures: list[Any]
    keys: list[bytes]
    began: float = field(default_factory=time.monotonic)
    # What comes of it.
    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    finish_reason: str = "stop"
    features: list[torch.Tensor] = field(default_factory=list)
    behind: list[str | None] = field(default_factory=list)
    source: Any = None
    admitted: float = 0.0
    spoken: float = 0.0
    over: bool = False
    cancelled: bool = False
    events: SimpleQueue = field(default_factory=SimpleQueue)

    def tell(self, event: Event | Exception | None) -> None:
        """Hand an event on."""
        (self.listener or self.events.put)(event)

    def __iter__(self) -> Iterator[Event]:
        """The events as they come, once.

        Raises:
            DeadlineError, CancelledError, FailedError: where that ended the reply.
        """
        while (event := self.events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    def segments(self) -> list[Segment]:
        """The whole reply: strings and pictures in their order. Errors as in iteration."""
        return segments(self)

    def cancel(self) -> None:
        """Give up the reply; what the model does for it ends with its next step."""
        self.cancelled = True


def segments(events: Any) -> list[Segment]:
    """Events as strings and pictures, as `MiniGPT5PipelineOutput.segments` has them."""
    told = (event for event in events if not isinstance(event, PreviewEvent))
    return as_segments(event.text if isinstance(event, TextEvent) else event.image for event in told)


def _unmeasured(name: str, value: float) -> None:
    pass


class Engine:
    """Answers requests with one pipeline, in a thread of its own, which alone uses the model.

    Args:
        pipe: is not to be used elsewhere or changed while the engine runs.
        limits: what it takes on.
        measure: is told what happens, a name of `minigpt5.service.metrics` and a number.
    """

    def __init__(
        self,
        pipe: MiniGPT5Pipeline,
        limits: Limits | None = None,
        measure: Callable[[str, float], None] = _unmeasured,
    ):
        self.pipe, self.limits, self.measure = pipe, limits or Limits(), measure
        self.memory = Memory(pipe.reader, self.limits.cache_mb * 2**20)
        self._painter = pipe.picture.painter
        self._batch = DecodingBatch(pipe.reader)
        self._waiting: deque[Reply] = deque()
        self._speaking: dict[int, Reply] = {}
        self._painting: list[Reply] = []
        self._errands: deque[tuple[Callable[[MiniGPT5Pipeline], Any], Future]] = deque()
        # Guards the queue and whether the engine is open.
        self._changed = threading.Condition()
        self._closing = False
        # Tokenizers are not to be used by two threads at once.
        self._encoding = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="minigpt5-engine", daemon=True)
        self._thread.start()

    # For those who ask, from any thread

    def submit(
        self,
        prompt: Prompt,
        images: Any = None,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        timeout: float | None = None,
        previews: int = 0,
        goes_on: bool = False,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
        listener: Callable[[Event | Exception | None], None] | None = None,
        **decoding: Any,
    ) -> Reply:
        """Ask for one reply; comes back at once.

        Args:
            prompt, images, num_inference_steps, guidance_scale, height, width: as for the pipeline's call.
            seed: of words, where they are sampled, and pictures; by default a new one.
            generator: in the place of a generator of that seed, to go on where an earlier reply left it.
            timeout: seconds, up to the limit.
            previews: of each picture on its way, from 0 to 3.
            goes_on: whether it is a further part of what was taken on, so that it waits however many wait already.
            listener: see `Reply`; without one the reply itself is iterated over.
            decoding: of `DecodingConfig`.

        Raises:
            TypeError, ValueError: for inputs that do not fit, or are beyond the limits; names the argument.
            QueueFullError, ClosedError: where no more requests are taken.
        """
        self._check_room(goes_on)
        pipe, limits = self.pipe, self.limits
        prompts, image_lists = as_batch(prompt, images)
        if len(prompts) != 1:
            raise ValueError(f"a request is one prompt, got {len(prompts)}")
        height, width = pipe._size(height, width)
        look = Look(pipe._steps(num_inference_steps), pipe._guidance(guidance_scale), height, width)
        if generator is None:
            seed = secrets.randbelow(LARGEST_SEED) if seed is None else whole_number("seed", seed, 0, LARGEST_SEED)
            generator = torch.Generator().manual_seed(seed)
        timeout = limits.timeout if timeout is None else real_number("timeout", timeout, 0, limits.timeout)
        for name in ("max_new_tokens", "max_images"):
            if decoding.get(name) is not None:
                whole_number(name, decoding[name], 0, getattr(limits, name))
        config = pipe.decoding_config(**decoding)
        # The model's own settings may be beyond what is allowed here.
        config.max_images = min(config.max_images, limits.max_images)
        config.max_new_tokens = min(config.max_new_tokens, limits.max_new_tokens or config.max_new_tokens)
        messages, pictures = conversation(prompts[0], image_lists[0])
        self._check_text(messages)
        with self._encoding:
            inputs = pipe.reader.encode(prompts, image_lists)
        pipe.check_length(inputs["input_ids"].shape[1])
        reply = Reply(
            seed=generator.initial_seed(),
            previews=whole_number("previews", previews, 0, MOST_PREVIEWS),
            deadline=time.monotonic() + timeout,
            listener=listener,
            decoder=InterleavedDecoder(pipe.reader, config, [generator]),
            generator=generator,
            look=look,
            inputs=inputs,
            pictures=pictures,
            keys=pipe.reader.picture_keys(inputs, pictures),
        )
        with self._changed:
            self._check_room(goes_on)
            self._waiting.append(reply)
            self._changed.notify()
        return reply

    def _check_text(self, messages: Sequence[Message]) -> None:
        """Refuse what cannot fit before it is made tokens of, which takes long, and all others wait for."""
        parts = [part for message in messages for part in message["content"]]
        length, most = sum(len(part.get("text", "")) for part in parts), self.pipe.reader.context_length
        if length > MOST_CHARACTERS * most:
            raise PromptTooLongError(
                f"the prompt is {length} characters long, and the model's context holds {most} tokens"
            )

    def _check_room(self, goes_on: bool) -> None:
        if self._closing:
            raise ClosedError("the engine is closed")
        if len(self._waiting) >= self.limits.queue_size and not goes_on:
            raise QueueFullError(f"{self.limits.queue_size} requests are waiting; come again later")

    def use(self, errand: Callable[[MiniGPT5Pipeline], T]) -> T:
        """Call a function with the pipeline in the engine's thread, between two steps, and wait for what it returns.

        Nobody is answered meanwhile, so it is to be short.

        Raises:
            ClosedError: where nothing more is taken; and what the function raises.
        """
        done: Future = Future()
        with self._changed:
            if self._closing:
                raise ClosedError("the engine is closed")
            self._errands.append((errand, done))
            self._changed.notify()
        return done.result()

    def close(self, drain: bool = True) -> None:
        """Take no more requests, and wait for the end of those that are here.

        Args:
            drain: whether they are answered; else they are cancelled.
        """
        with self._changed:
            self._closing = True
            if not drain:
                for reply in self._replies():
                    reply.cancel()
            self._changed.notify()
        self._thread.join()

    @property
    def queue_length(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def running(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive() and not self._closing

    # In the engine's thread

    def _replies(self) -> list[Reply]:
        return [*self._waiting, *self._speaking.values(), *self._painting]

    @torch.no_grad()
    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._replies() and not self._errands:
                    if self._closing:
                        return
                    self._changed.wait()
            self._turn()
            if self._picture_is_due():
                self._paint()

    def _turn(self) -> None:
        """Let go of whom nobody waits for, do what is asked, take in who waits, and take one step of all replies."""
        self._drop_lost()
        while self._errands:
            errand, done = self._errands.popleft()
            try:
                done.set_result(errand(self.pipe))
            except Exception as error:
                done.set_exception(error)
        model = self.pipe.comprehension
        bring_to_device(model)
        try:
            self._admit()
            if self._batch.goes_on:
                self._step()
        except Exception:
            logger.exception("decoding failed")
            for reply in self._speaking.values():
                self._end(reply, FailedError("the model failed to decode the reply"))
            self._speaking.clear()
            self._batch = DecodingBatch(self.pipe.reader)
        finally:
            take_off_device(model)

    def _drop_lost(self) -> None:
        """End replies that are cancelled or too late, wherever they are."""
        now = time.monotonic()
        for reply in self._replies():
            if reply.cancelled:
                self._end(reply, CancelledError("the request was cancelled"))
            elif now > reply.deadline:
                late = now - reply.began
                self._end(reply, DeadlineError(f"the reply was not whole after {late:.1f} seconds"))
        with self._changed:
            self._waiting = deque(reply for reply in self._waiting if not reply.over)
        self._painting = [reply for reply in self._painting if not reply.over]
        lost = [index for index, reply in self._speaking.items() if reply.over]
        for index in lost:
            del self._speaking[index]
        self._batch.remove(lost)

    def _admit(self) -> None:
        """Read the prompts of those who wait, as long as there is room beside the others."""
        most = self.limits.batch_size
        while self._waiting and len(self._speaking) < most and len(self._painting) < most and self._batch.takes_more:
            with self._changed:
                reply = self._waiting.popleft()
            reply.admitted = time.monotonic()
            self.measure("queue_seconds", reply.admitted - reply.began)
            try:
                self._read(reply)
            except Exception:
                logger.exception("reading a prompt failed")
                self._end(reply, FailedError("the model failed to read the prompt"))

    def _read(self, reply: Reply) -> None:
        reader, device = self.pipe.reader, self.pipe._execution_device
        cache = self.memory.recall(reply.inputs, reply.keys)
        known = len(cache.pictures)
        with self._encoding:
            rest = reader.behind(cache, reply.inputs, reply.pictures, reply.keys, device).to(device)
        reply.cached_tokens, reply.source = len(cache), cache.source
        # Those that a cache which was not of use knew are read again.
        keys = reply.keys[known:] if len(cache) else reply.keys
        features, seen = self.memory.picture_features(rest, keys)
        (index,) = self._batch.add(reply.decoder, rest, cache, features)
        self._speaking[index] = reply
        reply.prompt_tokens = self._batch.rows[self._batch.place(index)].length
        self.measure("prompt_tokens", reply.prompt_tokens)
        self.measure("prompt_tokens_cached", reply.cached_tokens)
        self.measure("pictures_read", len(reply.keys))
        self.measure("pictures_cached", len(reply.keys) - len(keys) + seen)

    def _step(self) -> None:
        self.measure("decoding_batch", len(self._speaking))
        for event in self._batch.step():
            reply = self._speaking[event.row]
            if isinstance(event, VokenEvent):
                reply.features.append(event.features)
                reply.behind.append(None)
            elif reply.features:
                # Comes behind a picture that is not there yet.
                reply.behind.append(event.text)
            else:
                self._tell(reply, TextEvent(0, event.text))
        whole = self._batch.whole()
        for index in whole:
            reply, row = self._speaking.pop(index), self._batch.rows[self._batch.place(index)]
            reply.new_tokens, reply.spoken = row.choices, time.monotonic()
            if not row.ended:
                reply.finish_reason = "length"
            self.measure("new_tokens", row.choices)
            self.measure("tokens_per_second", row.choices / (reply.spoken - reply.admitted))
            if self._batch.cache.joins and self.memory.conversations.limit:
                kept = self._batch.read_by(index)
                kept.pictures, kept.source = reply.keys, reply.source
                self.memory.keep(kept)
            if reply.features:
                self._painting.append(reply)
            else:
                self._end(reply, None)
        self._batch.remove(whole)

    def _picture_is_due(self) -> bool:
        """Whether pictures are to wait no longer: for replies that may bring more, or until there are many."""
        if not self._painting:
            return False
        many = sum(len(reply.features) for reply in self._painting) >= self.limits.batch_size
        late = time.monotonic() - self._painting[0].spoken > PICTURE_WAIT
        return many or late or not (self._batch.goes_on or self._waiting)

    def _paint(self) -> None:
        """Paint the pictures of the reply that waits longest and of all that are to be painted like them."""
        group: list[Reply] = []
        pictures = 0
        for reply in [reply for reply in self._painting if reply.look == self._painting[0].look]:
            pictures += len(reply.features)
            if not group or pictures <= self.limits.batch_size:
                group.append(reply)
        features = [one for reply in group for one in reply.features]
        look, began = group[0].look, time.monotonic()
        self.measure("painting_batch", len(features))
        self.pipe._set_guidance(look.guidance_scale if self.pipe.guider is None else None)
        try:
            images = self.pipe._paint(
                torch.stack(features),
                num_inference_steps=look.num_inference_steps,
                height=look.height,
                width=look.width,
                generator=[reply.generator for reply in group for _ in reply.features],
                callback_on_step_end=lambda pipe, step, timestep, tensors: self._between(group, step, tensors),
            )
        except Exception:
            logger.exception("painting failed")
            for reply in group:
                self._end(reply, FailedError("the model failed to paint"))
        else:
            self.measure("pictures_per_second", len(features) / (time.monotonic() - began))
            self._hand_out(group, iter(images))
        finally:
            self.pipe.maybe_free_model_hooks()
            self._painting = [reply for reply in self._painting if reply not in group]

    def _hand_out(self, group: list[Reply], images: Iterator[Any]) -> None:
        for reply in group:
            for part in reply.behind:
                self._tell(reply, ImageEvent(0, next(images)) if part is None else TextEvent(0, part))
            if not reply.over:
                self.measure("pictures", len(reply.features))
                self._end(reply, None)

    def _between(self, group: list[Reply], step: int, tensors: dict[str, Any]) -> dict[str, Any]:
        """What is done between two steps of denoising: others are decoded, and previews are shown."""
        if _stays_on_device(self.pipe):
            self._turn()
        else:
            self._drop_lost()
        if all(reply.over for reply in group):
            self.pipe._interrupt = True
        self._show_previews(group, step, tensors["latents"])
        return {}

    def _show_previews(self, group: list[Reply], step: int, latents: torch.Tensor) -> None:
        if not isinstance(self._painter, TrainablePainter):
            return
        place = 0
        for reply in group:
            many = len(reply.features)
            own = latents[place : place + many]
            place += many
            if reply.over or not reply.previews:
                continue
            steps, asked = self.pipe.num_timesteps, reply.previews
            after = [max(1, steps * number // (asked + 1)) for number in range(1, asked + 1)]
            for number in [number for number, when in enumerate(after) if when == step + 1]:
                images = self._painter.decode(own, reply.look.height, reply.look.width)
                for picture, image in enumerate(images):
                    self._tell(reply, PreviewEvent(picture, number, image))

    def _tell(self, reply: Reply, event: Event) -> None:
        if not reply.over:
            reply.tell(event)

    def _end(self, reply: Reply, error: Exception | None) -> None:
        if reply.over:
            return
        reply.over = True
        self.measure("request_seconds", time.monotonic() - reply.began)
        reply.tell(error)


def _stays_on_device(pipe: MiniGPT5Pipeline) -> bool:
    """Whether the reader can be used while the painter paints: not where one takes the other's place on the device."""
    model = pipe.comprehension
    return getattr(model, "_hf_hook", None) is None and getattr(model, "_diffusers_hook", None) is None
