"""Turns of a conversation on a page: asked of the engine, and answered piece by piece."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from minigpt5.chat import assistant_turn, fitting, user_turn
from minigpt5.output import Segment
from minigpt5.readers.prompts import Message
from minigpt5.service.engine import (
    MOST_PREVIEWS,
    CancelledError,
    ClosedError,
    DeadlineError,
    Engine,
    FailedError,
    PreviewEvent,
    QueueFullError,
    Reply,
    segments,
)
from minigpt5.service.feedback import Feedback
from minigpt5.utils.checks import sampling

# What ends a reply, or lets it not begin, and is told in words of its own.
ENDS = (CancelledError, ClosedError, DeadlineError, FailedError, QueueFullError)
STOPPED = "Stopped."


@dataclass(frozen=True)
class Choices:
    """What a person sets: of pictures, and of words.

    Args:
        seed: `None` for a new one each time.
        guidance_scale: `None` for the model's own.
        temperature: 0 takes the likeliest words.
    """

    seed: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    temperature: float = 0.0
    image_mode: str = "auto"

    def options(self) -> dict[str, Any]:
        """As `Engine.submit` takes them, but the seed and whether there are pictures."""
        options = {name: getattr(self, name) for name in ("num_inference_steps", "guidance_scale")}
        return options | sampling(self.temperature)


@dataclass(eq=False)
class Turn:
    """What a person said and what was answered.

    Args:
        text: may hold `<ImageHere>` where a picture stands.
        choices: what the reply is made with.
        id: of the reply.
        seed: that the reply was made with.
        read: the messages that the model read.
        reply: its segments, so far.
        note: why the reply is not whole.
    """

    text: str
    images: Sequence[Image.Image] = ()
    choices: Choices = field(default_factory=Choices)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    seed: int | None = None
    read: Sequence[Message] = ()
    reply: Sequence[Segment] = ()
    note: str = ""

    def feedback(self, model: Mapping[str, Any], rating: str, correction: Sequence[Segment] | None) -> Feedback:
        """What a person thinks of the reply, with what repeats it."""
        settings = self.choices.options() | {"image_mode": self.choices.image_mode}
        return Feedback(self.id, model, self.read, settings, self.seed or 0, self.reply, rating, correction)

    def corrected(self, text: str, pictures: Sequence[Image.Image]) -> list[Segment]:
        """The reply as it should have been: in these words, with these pictures in the place of its own."""
        painted = pictures or [part for part in self.reply if not isinstance(part, str)]
        return [*([text.strip()] if text.strip() else []), *painted]

    def again(self, text: str | None = None, choices: Choices | None = None) -> Turn:
        """The same, unanswered, perhaps in other words."""
        return Turn(self.text if text is None else text, self.images, choices or self.choices)


def messages(turns: Sequence[Turn]) -> list[Message]:
    """A conversation; turns that were not answered are left out, but for the last."""
    told: list[Message] = []
    for turn in turns[:-1]:
        if turn.reply:
            told += [user_turn(turn.text, turn.images), assistant_turn(turn.reply)]
    return [*told, user_turn(turns[-1].text, turns[-1].images)]


def ask(engine: Engine, turns: Sequence[Turn]) -> Reply:
    """Ask for the reply to the last turn, with previews of its pictures.

    Raises:
        TypeError, ValueError: for what does not fit the model.
        QueueFullError, ClosedError: where the engine takes no more.
    """
    turn, choices = turns[-1], turns[-1].choices
    own = {"seed": choices.seed, "previews": MOST_PREVIEWS, "image_mode": choices.image_mode}
    turn.read, reply = fitting(messages(turns), lambda kept: engine.submit(kept, **own, **choices.options()))
    turn.seed = reply.seed
    return reply


def answer(turn: Turn, reply: Reply) -> Iterator[None]:
    """Fill a turn with a reply as it comes, and stop after each change; a picture's previews stand in its place.

    What ends the reply too early is noted, and what there is of it but for previews stays.
    """
    events: list[Any] = []
    shown: list[PreviewEvent] = []
    try:
        for event in reply:
            if isinstance(event, PreviewEvent):
                shown = [*[other for other in shown if other.picture != event.picture], event]
            else:
                events.append(event)
            painted = sum(not isinstance(part, str) for part in segments(events))
            sharpening = [one.image for one in shown if one.picture >= painted]
            turn.reply = [*segments(events), *sharpening]
            yield
    except ENDS as error:
        why = str(error)
        turn.note = STOPPED if isinstance(error, CancelledError) else f"{why[:1].upper()}{why[1:]}."
        turn.reply = segments(events)
        yield
    finally:
        # Also where nobody looks any more.
        reply.cancel()
