"""Interleaved decoding: text token by token, a picture's vokens in one forward.

When a row chooses `[IMG0]`, its other vokens are known: all of them go through the language model together, and the
states that predict the vokens (the one that chose `[IMG0]`, then those at all vokens but the last) are the picture's
features. Then the row goes on with text. A row of T text tokens and B pictures takes T + B forwards.

All rows of a batch read equally many tokens in a step, so that nothing but a row's ends is ever padded, and every row
decodes as if it were alone, whatever its language model remembers by. While one row speaks, the blocks of others
therefore go through voken by voken, in the same forwards as its words; what they give is the same. Where the model
remembers keys and values of every token, rows may come and go between steps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, cast

import torch
from transformers import (
    BatchFeature,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from minigpt5.readers import Reader, ReaderCache
from minigpt5.readers.generic import States
from minigpt5.utils.checks import one_of, real_number, some_text, whole_number, yes_or_no
from minigpt5.utils.offload import bring_to_device, take_off_device

IMAGE_MODES = ("auto", "always", "never")
# White space that is layout, and is not part of a reply at its ends. Other control characters are the model's words.
LAYOUT = " \t\r\n"
Generators = torch.Generator | Sequence[torch.Generator] | None


@dataclass
class DecodingConfig:
    """How replies are decoded.

    Args:
        max_new_tokens: choices a reply may take; a picture counts as one.
        image_mode: auto leaves pictures to the model, always ends a reply without one with one, never forbids them.
        max_images: pictures a reply may hold.
        repetition_penalty: of what the reply has said; `generate` counts the prompt's words too.
        stop_strings: text that ends a reply, and is not part of it; `None` is the reader's own.
        suppress_marks: whether a reply never says the marks of pictures, which mean nothing where they are said:
            `[IMG1]` and the vokens after it, which follow `[IMG0]` by themselves, and `<ImageHere>`. The published
            program lets the model say them and any other special token, as text.

    Raises:
        TypeError, ValueError: for a setting of another kind or out of its range; names it.
    """

    max_new_tokens: int = 64
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.9
    repetition_penalty: float = 1.0
    image_mode: str = "auto"
    max_images: int = 1
    stop_strings: tuple[str, ...] | None = None
    suppress_marks: bool = True

    def __post_init__(self):
        self.max_new_tokens = whole_number("max_new_tokens", self.max_new_tokens, 1)
        self.do_sample = yes_or_no("do_sample", self.do_sample)
        # Beyond these bounds logits overflow; models that are not to sample have a temperature or top_p of 0.
        self.temperature = real_number("temperature", self.temperature, 1e-6 * self.do_sample, 1e6)
        self.top_k = whole_number("top_k", self.top_k, 0)
        self.top_p = real_number("top_p", self.top_p, 1e-9 * self.do_sample, 1)
        self.repetition_penalty = real_number("repetition_penalty", self.repetition_penalty, 1e-3, 1e3)
        self.image_mode = one_of("image_mode", self.image_mode, IMAGE_MODES)
        self.max_images = whole_number("max_images", self.max_images, 0)
        self.suppress_marks = yes_or_no("suppress_marks", self.suppress_marks)
        if self.image_mode == "always" and self.max_images < 1:
            raise ValueError("image_mode 'always' needs max_images of at least 1")
        if self.stop_strings is None:
            return
        stops = (self.stop_strings,) if isinstance(self.stop_strings, str) else self.stop_strings
        if not isinstance(stops, (list, tuple)):
            raise TypeError(f"stop_strings must be strings, got {type(stops).__name__}")
        self.stop_strings = tuple(some_text("a stop string", stop) for stop in stops)
        if "" in self.stop_strings:
            raise ValueError("stop_strings holds an empty string, at which every reply would end")


@dataclass(frozen=True)
class TextEvent:
    """More text of a row's reply."""

    row: int
    text: str


@dataclass(frozen=True)
class VokenEvent:
    """A picture of a row's reply as voken features `(n_vokens, width)`, of the states that the reader's layers give."""

    row: int
    features: torch.Tensor


@dataclass
class _Row:
    """One reply in the making."""

    decoder: InterleavedDecoder
    index: int
    length: int
    pending: list[int] = field(default_factory=list)
    states: list[torch.Tensor] = field(default_factory=list)
    history: list[int] = field(default_factory=list)
    run: list[int] = field(default_factory=list)
    said: str = ""
    choices: int = 0
    images: int = 0
    done: bool = False
    # Whether it was brought to an end by what it said, not for want of room.
    ended: bool = False


def as_segments(pieces: Iterable[Any]) -> list[Any]:
    """Pieces of a reply, strings and what stands for pictures, as its segments.

    Texts that follow one another become one, without layout at its ends; empty ones are left out.
    """
    segments: list[Any] = []
    for is_text, group in groupby(pieces, lambda piece: isinstance(piece, str)):
        run = list(group)
        segments += ["".join(run).strip(LAYOUT)] if is_text else run
    return [part for part in segments if not isinstance(part, str) or part]


def logits_processors(config: DecodingConfig) -> LogitsProcessorList:
    """Repetition penalty always; temperature, top-k and top-p where tokens are sampled."""
    processors = LogitsProcessorList()
    if config.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.do_sample:
        processors.append(TemperatureLogitsWarper(config.temperature))
        if config.top_k:
            processors.append(TopKLogitsWarper(config.top_k))
        if config.top_p < 1:
            processors.append(TopPLogitsWarper(config.top_p))
    return processors


class InterleavedDecoder:
    """Decodes the replies to one batch of prompts; `events` is the whole of it.

    Args:
        reader: what reads the prompts and says the replies.
        config: how.
        generator: of sampled tokens, one for all rows or one a row.
        choose: in place of random draws, takes the probabilities `(rows, vocabulary)` that temperature, top-k and top-p
            leave and gives a token for each row `(rows,)`. Their arg max, `lambda shares: shares.argmax(-1)`, is what
            `do_sample=False` takes too: no filter moves it.
    """

    def __init__(
        self,
        reader: Reader,
        config: DecodingConfig,
        generator: Generators = None,
        choose: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ):
        self.reader, self.config, self.generator, self.choose = reader, config, generator, choose
        self.stops = reader.stop_strings if config.stop_strings is None else config.stop_strings
        self.warp = logits_processors(config)
        self.never = reader.never_said if config.suppress_marks else []
        self.img0, self.ends = reader.voken_ids[0], reader.eos_token_ids
        # A row that is longer would not hold one more token and a picture.
        self.longest = reader.context_length - reader.n_vokens - 1

    def events(self, inputs: BatchFeature, cache: ReaderCache | None = None) -> Iterator[TextEvent | VokenEvent]:
        """Decode, yielding pieces of text and voken features as they come.

        Args:
            inputs: a batch of the reader, padded on the left.
            cache: what stands before it and was read already; it is extended.

        Raises:
            RuntimeError: on the way, if the cache is used for something else meanwhile.
        """
        return self._events(inputs, cache, None if cache is None else cache.ids)

    @torch.no_grad()
    def _events(
        self, inputs: BatchFeature, cache: ReaderCache | None, before: torch.Tensor | None
    ) -> Iterator[TextEvent | VokenEvent]:
        reader, config = self.reader, self.config
        model = reader.model
        bring_to_device(model)
        try:
            longest = config.max_new_tokens + config.max_images * reader.n_vokens
            with reader.reply_cache(inputs, longest) if cache is None else nullcontext(cache) as kept:
                kept.require_untouched(before)
                for event in self._decode(inputs, kept):
                    if isinstance(event, VokenEvent):
                        # Who takes the features may bring another model to the device in this one's place.
                        take_off_device(model)
                        yield event
                        bring_to_device(model)
                    else:
                        yield event
        finally:
            take_off_device(model)

    def _decode(self, inputs: BatchFeature, cache: ReaderCache) -> Iterator[TextEvent | VokenEvent]:
        batch = DecodingBatch(self.reader)
        batch.add(self, inputs, cache)
        while batch.goes_on:
            yield from batch.step()

    def _choose(self, logits: torch.Tensor, rows: list[_Row]) -> list[int]:
        """The next token of each row, `[IMG0]` only where a picture is allowed."""
        config = self.config
        logits[:, self.never] = -torch.inf
        if config.image_mode == "never" or config.max_images == 0:
            logits[:, self.img0] = -torch.inf
        else:
            full = [place for place, row in enumerate(rows) if row.images >= config.max_images]
            if full:
                logits[full, self.img0] = -torch.inf
        if self.warp:
            longest = max(len(row.history) for row in rows)
            begin = self.reader.reply_begin_id
            history = [[begin] * (1 + longest - len(row.history)) + row.history for row in rows]
            logits = self.warp(
                cast(torch.LongTensor, torch.tensor(history, device=logits.device)), cast(torch.FloatTensor, logits)
            )
        if not config.do_sample:
            return logits.argmax(-1).tolist()
        shares = logits.softmax(-1)
        if self.choose is not None:
            return self.choose(shares).tolist()
        if not isinstance(self.generator, Sequence):
            return _multinomial(shares, self.generator).tolist()
        # A row that has nothing to choose leaves its generator alone: what it paints must not depend on the others.
        return [
            self.img0 if row.done or row.pending else int(_multinomial(share, generator))
            for row, share, generator in zip(rows, shares, self.generator, strict=True)
        ]

    def _take(self, row: _Row, token: int) -> Iterator[TextEvent]:
        """Add a chosen token to its row: as text, as the start of a picture, or as its end."""
        row.choices += 1
        stops = self.stops
        paints, ends = token == self.img0, token in self.ends
        if not paints and not ends:
            row.run.append(token)
        text = self._text(row.run)
        stop = min((text.find(stop) for stop in stops if stop in text), default=None)
        row.ended = ends or stop is not None
        row.done = not paints and (row.ended or self._spent(row))
        if row.done and self.config.image_mode == "always" and row.images == 0:
            # The picture that the reply owes takes the place of the token that ended it.
            paints = True
            if stop is None and not ends:
                text = self._text(row.run[:-1])
        text = text[:stop].rstrip(LAYOUT) if paints or row.done else text[: _settled(text, stops)]
        if len(text) > len(row.said):
            yield TextEvent(row.index, text[len(row.said) :])
            row.said = text
        if paints:
            row.images += 1
            row.pending = list(self.reader.voken_ids)
        elif not row.done:
            row.pending = [token]
        # Of a block only what was chosen counts as said (published code).
        row.history += row.pending[:1]
        row.length += len(row.pending)

    def _text(self, tokens: list[int]) -> str:
        decode = self.reader.tokenizer.decode
        if self.config.suppress_marks:
            return decode(tokens, skip_special_tokens=True)
        # A mark is a word of its own (published code, decoding of transformers 4.31).
        parts: list[str] = []
        for is_mark, group in groupby(tokens, self.reader.never_said.__contains__):
            run = list(group)
            parts += [decode([mark]) for mark in run] if is_mark else [decode(run)]
        return " ".join(parts)

    def _spent(self, row: _Row) -> bool:
        """Whether a row has made all its choices, or its context would not hold one more token and a picture."""
        return row.length > self.longest or row.choices >= self.config.max_new_tokens


class DecodingBatch:
    """Rows that decode together, each as its own decoder says.

    Args:
        reader: what reads them all.
    """

    def __init__(self, reader: Reader):
        self.reader, self.rows = reader, []
        self._keep(ReaderCache())
        # Of the last token that each row has read.
        self.states: Any = None
        self._count = 0

    @property
    def goes_on(self) -> bool:
        """Whether there is a row whose reply is not whole."""
        return any(self._speaks(row) for row in self.rows)

    @property
    def takes_more(self) -> bool:
        """Whether a further prompt can be read beside the rows that are here."""
        return not self.rows or self.cache.joins

    def add(
        self,
        decoder: InterleavedDecoder,
        inputs: BatchFeature,
        cache: ReaderCache,
        features: torch.Tensor | None = None,
    ) -> list[int]:
        """Read prompts and make rows of them; where rows are here already, see `takes_more`.

        Args:
            inputs, cache: as in `InterleavedDecoder.events`. The cache is the batch's from now on.
            features: the `Reader.picture_features` of the prompts' pictures, where they are known.

        Returns:
            What events call these rows.
        """
        read = self.reader.prefill(inputs, cache, features)
        states = States(read.last[:, -1:], read.features[:, -1:])
        first = self._count
        added = [_Row(decoder, i, length) for i, length in enumerate(cache.mask.sum(1).tolist(), first)]
        if self.rows:
            cache = ReaderCache.joined([self.cache, cache])
            states = States(*(torch.cat(pair) for pair in zip(self.states, states, strict=True)))
        self.rows, self.states = [*self.rows, *added], states
        self._keep(cache)
        self._count += len(added)
        return [row.index for row in added]

    def remove(self, indices: Collection[int]) -> None:
        """Forget rows, which may be in the middle of their replies."""
        rest = [place for place, row in enumerate(self.rows) if row.index not in indices]
        if len(rest) == len(self.rows):
            return
        self.rows = [self.rows[place] for place in rest]
        if not rest:
            self.states = None
            self._keep(ReaderCache())
        else:
            self._keep(self.cache.select(rest))
            self.states = States(*(states[rest] for states in self.states))

    def whole(self) -> list[int]:
        """The rows whose replies are whole."""
        return [row.index for row in self.rows if not self._speaks(row)]

    def place(self, index: int) -> int:
        """Where a row stands in the batch."""
        return [row.index for row in self.rows].index(index)

    def read_by(self, index: int) -> ReaderCache:
        """What one row has read."""
        return self.cache.select([self.place(index)])

    def step(self) -> Iterator[TextEvent | VokenEvent]:
        """Choose the next token of each row that has none, and read on."""
        tokens: list[int] = []
        logits = self.reader.logits(self.states.last[:, -1])
        for decoder, group in groupby(self.rows, lambda row: row.decoder):
            rows = list(group)
            tokens += decoder._choose(logits[len(tokens) : len(tokens) + len(rows)], rows)
        for place, (row, token) in enumerate(zip(self.rows, tokens, strict=True)):
            if row.done or row.pending:
                continue
            yield from row.decoder._take(row, token)
            if row.pending == self.reader.voken_ids:
                row.states = [self.states.features[place]]
        feeding = [(place, row) for place, row in enumerate(self.rows) if row.pending]
        if not feeding:
            return
        self.cache.require_untouched(self._ids)
        width = min(len(row.pending) for _, row in feeding)
        states = self.reader.extend(*self._next(width), self.cache)
        self._keep(self.cache)
        self.states = States(states.last[:, -1:], states.features[:, -1:])
        for place, row in feeding:
            row.pending = row.pending[width:]
            if not row.states:
                continue
            row.states.append(states.features[place])
            if not row.pending:
                yield VokenEvent(row.index, torch.cat(row.states)[:-1])
                row.run, row.said, row.states = [], "", []
                row.done = row.done or row.decoder._spent(row)

    def _keep(self, cache: ReaderCache) -> None:
        """Take a cache and note what it holds, since who gave it may use it meanwhile."""
        self.cache, self._ids = cache, cache.ids

    @staticmethod
    def _speaks(row: _Row) -> bool:
        """Whether a reply is not whole; one may end with a picture whose block still goes through voken by voken."""
        return not row.done or bool(row.pending)

    def _next(self, width: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids and mask `(batch, width)` of what each row reads next; nothing, where its reply is over."""
        nothing = [self.reader.pad_token_id] * width
        like = self.cache.mask
        ids = torch.tensor([row.pending[:width] or nothing for row in self.rows], device=like.device)
        if all(row.pending for row in self.rows):
            return ids, None
        mask = [[int(bool(row.pending))] * width for row in self.rows]
        return ids, torch.tensor(mask, device=like.device, dtype=like.dtype)


def _multinomial(shares: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """One draw a row, on the generator's own device, so that a seed means the same everywhere."""
    device = generator.device if generator is not None else shares.device
    return torch.multinomial(shares.to(device), 1, generator=generator).squeeze(-1)


def _settled(text: str, stop_strings: Sequence[str]) -> int:
    """How much of a text can be shown: no unfinished character, trailing space, or start of a stop string."""
    end = len(text.rstrip("\ufffd"))
    for stop in stop_strings:
        for length in range(min(len(stop) - 1, end), 0, -1):
            if text[:end].endswith(stop[:length]):
                end -= length
                break
    return len(text[:end].rstrip(LAYOUT))


def decode_texts(reader: Reader, prompts: Sequence, batch_size: int = 50, **options) -> list[str]:
    """Greedy text replies to any number of prompts, without pictures; `options` go to `DecodingConfig`.

    Raises:
        ValueError: if the reader refuses a prompt, as one that is longer than its context.
    """
    decoder = InterleavedDecoder(reader, DecodingConfig(image_mode="never", **options))
    replies = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        texts = [""] * len(batch)
        inputs = reader.encode(batch)
        reader.check_length(inputs["input_ids"].shape[1])
        for event in decoder.events(inputs.to(reader.model.device)):
            texts[event.row] += cast(TextEvent, event).text
        replies += texts
    return replies
