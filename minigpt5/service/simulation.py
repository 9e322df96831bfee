"""A simulator of the service's engines: when each request would be answered, from the costs of what an engine does.

    costs = Costs(tables, lengths, http, denoising_steps)
    moments = arrivals(rate=20, seconds=60, seed=0)
    answers = simulate(costs, moments, sample_kinds(0.5, len(moments), seed=0), batch_size=8, replicas=8)
    print(summary(moments, answers))

`Replica` goes step by step where `minigpt5.service.engine.Engine` goes: rows join between steps, pictures that are
ready denoise together while decoding goes on, a full queue refuses. Several replicas have one queue, as in
`minigpt5.service.ray_app`: a request goes to that of two replicas, drawn at random of those with less than two batches
in hand, which has less. Deadlines and cancellations are left out.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from minigpt5.service.engine import PICTURE_WAIT
from minigpt5.service.load import PICTURE, Answer, sample_kinds, summary


@dataclass
class Costs:
    """What an engine takes, in seconds.

    Args:
        tables: by what is done and how many it is done for: "read words" and "read picture", a prompt beside the rows
            that are there; "step", of decoding; "begin", the mapper and the first denoising step; "denoise", each of
            the others; "finish", the VAE.
        lengths: of replies by kind, in decoding steps; a reply is one of them.
        http: by kind, what a request takes beside the engine. Both are Python of one process, which runs one thread at
            a time, so the engine stands still for it.
        denoising_steps: of a picture.
        source: the machine and the model.
    """

    tables: dict[str, dict[int, float]]
    lengths: dict[str, list[int]]
    http: dict[str, float]
    denoising_steps: int
    source: str = ""

    def of(self, what: str, many: int) -> float:
        """Seconds, on a straight line between the two nearest counts where this one was not measured."""
        table = self.tables[what]
        if many in table:
            return table[many]
        if len(table) == 1:
            return next(iter(table.values()))
        # The two on either side, or else the first or last two.
        counts = sorted(table)
        place = min(max(1, bisect(counts, many)), len(counts) - 1)
        low, high = counts[place - 1 : place + 1]
        return max(0.0, table[low] + (table[high] - table[low]) * (many - low) / (high - low))


@dataclass(eq=False)
class Request:
    """A request on its way through: which it is, its kind, when it came, and the decoding steps that are left."""

    number: int
    kind: str
    came: float
    left: int
    spoken: float = 0.0


@dataclass
class Replica:
    """One engine, as `minigpt5.service.engine.Engine` goes about it.

    Args:
        tell: is told each request that is answered.
    """

    costs: Costs
    batch_size: int
    tell: Callable[[Request, float], None]
    now: float = 0.0
    waiting: deque[Request] = field(default_factory=deque)
    speaking: list[Request] = field(default_factory=list)
    painting: list[Request] = field(default_factory=list)

    def __post_init__(self):
        self.idle, self.thread = True, self._work()

    @property
    def in_hand(self) -> int:
        """Requests that are not answered yet."""
        return len(self.waiting) + len(self.speaking) + len(self.painting)

    def _work(self) -> Iterator[float | None]:
        """What the engine's thread does, as the seconds that each thing takes; `None` where there is nothing to do."""
        while True:
            if not self.in_hand:
                yield None
            yield from self._turn()
            if self._picture_is_due():
                yield from self._paint()

    def _turn(self) -> Iterator[float]:
        most = self.batch_size
        while self.waiting and len(self.speaking) < most and len(self.painting) < most:
            request = self.waiting.popleft()
            self.speaking.append(request)
            yield self.costs.http[request.kind] + self.costs.of(f"read {request.kind}", len(self.speaking))
        if not self.speaking:
            return
        yield self.costs.of("step", len(self.speaking))
        for request in self.speaking:
            request.left -= 1
        whole = [request for request in self.speaking if not request.left]
        self.speaking = [request for request in self.speaking if request.left]
        for request in whole:
            request.spoken = self.now
            if request.kind == PICTURE:
                self.painting.append(request)
            else:
                self.tell(request, self.now)

    def _picture_is_due(self) -> bool:
        if not self.painting:
            return False
        late = self.now - self.painting[0].spoken > PICTURE_WAIT
        return late or len(self.painting) >= self.batch_size or not (self.speaking or self.waiting)

    def _paint(self) -> Iterator[float]:
        many = min(len(self.painting), self.batch_size)
        yield self.costs.of("begin", many)
        yield from self._turn()
        for _ in range(self.costs.denoising_steps - 1):
            yield self.costs.of("denoise", many)
            yield from self._turn()
        yield self.costs.of("finish", many)
        for request in self.painting[:many]:
            self.tell(request, self.now)
        del self.painting[:many]


def simulate(
    costs: Costs,
    moments: Sequence[float],
    kinds: Sequence[str],
    batch_size: int,
    replicas: int = 1,
    queue_size: int = 64,
    seed: int = 0,
) -> list[Answer]:
    """What comes of requests, as `minigpt5.service.load.put_load` gives it.

    Args:
        moments: when the requests come, in seconds, in order.
        kinds: of the requests.
        queue_size: requests that may wait.
        seed: of replies' lengths and of which replica gets what.
    """
    rng, answers = random.Random(seed), [Answer(429, 0.0)] * len(moments)

    def tell(request: Request, now: float) -> None:
        answers[request.number] = Answer(200, now - request.came)

    engines = [Replica(costs, batch_size, tell) for _ in range(replicas)]
    queue = engines[0].waiting if replicas == 1 else deque[Request]()
    # When each engine that has something to do is done with it.
    busy: list[tuple[float, int, Replica]] = []
    order = count()

    def go_on(engine: Replica, now: float) -> None:
        engine.now = now
        seconds = next(engine.thread)
        engine.idle = seconds is None
        if seconds is not None:
            heapq.heappush(busy, (now + seconds, next(order), engine))

    def run_until(moment: float) -> None:
        while busy and busy[0][0] <= moment:
            now, _, engine = heapq.heappop(busy)
            go_on(engine, now)
            hand_out(now)

    def hand_out(now: float) -> None:
        """Pass on what waits in front of several replicas; a single one is where it waits."""
        while replicas > 1 and queue and (free := [one for one in engines if one.in_hand < 2 * batch_size]):
            engine = min(rng.sample(free, min(2, len(free))), key=lambda one: one.in_hand)
            engine.waiting.append(queue.popleft())
            if engine.idle:
                go_on(engine, now)
        if replicas == 1 and queue and engines[0].idle:
            go_on(engines[0], now)

    for number, (moment, kind) in enumerate(zip(moments, kinds, strict=True)):
        run_until(moment)
        if len(queue) < queue_size:
            queue.append(Request(number, kind, moment, rng.choice(costs.lengths[kind])))
            hand_out(moment)
    run_until(float("inf"))
    return answers


def simulated_speed(costs: Costs, share: float, batch_size: int) -> float:
    """Replies a second of one replica that has work enough.

    Args:
        share: of requests for a picture.
    """
    many = 50 * batch_size
    moments, kinds = [0.0] * many, sample_kinds(share, many, seed=0)
    return summary(moments, simulate(costs, moments, kinds, batch_size, queue_size=many))["replies_per_s"]
