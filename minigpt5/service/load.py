"""A service in a process of its own, and a load on it as strangers make it: open, by a Poisson process.

    with started("storyworld-mini", "--batch-size", 8) as service:
        moments = arrivals(rate=2, seconds=60, seed=0)
        answers = put_load(service.url, moments, sample_kinds(0.5, len(moments), seed=0))
    print(summary(moments, answers))

In an open load requests come whether or not earlier ones are answered, and a wait counts from when a request was to be
sent, so that a slow service cannot hide its waits by slowing down those who ask.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from minigpt5.utils.programs import ProgramError

# Kinds of requests: a reply in words alone, and one that is a picture.
WORDS, PICTURE = "words", "picture"
MOST_WORDS = 24
# Seconds without an answer.
PATIENCE = 3600
_COLOURS = ("red", "blue", "grey", "green", "white", "brown", "black", "orange")
_WHO = ("fox", "cat", "owl", "frog", "rabbit", "bear", "dog", "bird")
_WHERE = ("forest", "meadow", "desert", "snow", "garden", "mountains", "village")


@dataclass(frozen=True)
class Answer:
    """What came of a request.

    Args:
        status: of HTTP; 0 where the connection broke.
        seconds: from when it was to be sent to the end of the answer.
        content: of the answer, where it is 200.
    """

    status: int
    seconds: float
    content: Any = None


@dataclass(frozen=True)
class Service:
    """A running `minigpt5 serve`: its address and its process."""

    url: str
    process: subprocess.Popen

    @property
    def resident_mib(self) -> float:
        """Memory that the process holds."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def metric(self, name: str) -> float:
        """A number of `/metrics`, 0 where it has no such."""
        lines = (line.split() for line in get(self.url, "/metrics").splitlines())
        return float(next((words[1] for words in lines if words[0] == f"minigpt5_{name}"), 0))


@contextmanager
def started(model: str, *options: object) -> Iterator[Service]:
    """A service that is ready, on a port of its own; it gets SIGTERM in the end.

    Args:
        options: of `minigpt5 serve`.

    Raises:
        ProgramError: if it does not start; says why.
    """
    command = [sys.executable, "-m", "minigpt5", "serve", model, "--port", "0", *map(str, options)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process, ThreadPoolExecutor(1) as reading:
        # Who writes a log that is not read comes to a halt.
        told = reading.submit(lambda: [line for line in process.stderr or () if not line.startswith("{")])
        try:
            url = (process.stdout.readline() if process.stdout else "").strip()
            if not url:
                raise ProgramError(f"the service did not start: {' '.join(''.join(told.result()).split())}")
            get(url, "/health")
            yield Service(url, process)
        finally:
            process.terminate()


def get(url: str, path: str) -> str:
    """What a route answers."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def post(url: str, path: str, body: Mapping[str, Any], began: float | None = None) -> Answer:
    """Ask once.

    Args:
        began: when it was to be sent, by `time.monotonic`; by default now.
    """
    began = time.monotonic() if began is None else began
    connection = HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, HTTPException):
        return Answer(0, time.monotonic() - began)
    finally:
        connection.close()
    seconds = time.monotonic() - began
    return Answer(answer.status, seconds, json.loads(content) if answer.status == 200 else None)


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests of a Poisson process come.

    Args:
        rate: requests a second, on average.
        seconds: for which they come.
    """
    rng, moments, moment = random.Random(seed), [], 0.0
    while (moment := moment + rng.expovariate(rate)) < seconds:
        moments.append(moment)
    return moments


def sample_kinds(share: float, count: int, seed: int) -> list[str]:
    """The kinds of that many requests.

    Args:
        share: of requests for a picture, from 0 to 1, the others being for words.
    """
    rng = random.Random(f"kinds {seed}")
    return [PICTURE if rng.random() < share else WORDS for _ in range(count)]


def chat(kind: str, number: int, seed: int) -> dict[str, Any]:
    """A request of `/v1/chat/completions`; those of other numbers and seeds ask for something else."""
    rng = random.Random(f"{seed}, {number}")
    what = f"a {rng.choice(_COLOURS)} {rng.choice(_WHO)} and a {rng.choice(_COLOURS)} {rng.choice(_WHO)}"
    asked = f"Draw this: {what} in the {rng.choice(_WHERE)}." if kind == PICTURE else f"Tell me of {what}."
    limits = {"image_mode": "always", "max_images": 1} if kind == PICTURE else {"image_mode": "never"}
    message = {"role": "user", "content": asked}
    return {"messages": [message], "seed": number, "max_completion_tokens": MOST_WORDS, **limits}


def put_load(
    url: str,
    moments: Sequence[float],
    kinds: Sequence[str],
    seed: int = 0,
    then: Callable[[Answer], Any] | None = None,
) -> list[Answer]:
    """Ask at those moments, and wait for all answers, in the order of the requests.

    Args:
        moments: seconds from now.
        kinds: of the requests.
        seed: with another one something else is asked for, which the service has not read before.
        then: is told each answer, in a thread of its own.
    """
    began = time.monotonic()

    def ask(number: int) -> Answer:
        answer = post(url, "/v1/chat/completions", chat(kinds[number], number, seed), began + moments[number])
        if then is not None:
            then(answer)
        return answer

    # As many threads as requests may be on their way.
    with ThreadPoolExecutor(max(1, len(moments))) as threads:
        asked = []
        for number, moment in enumerate(moments):
            time.sleep(max(0.0, began + moment - time.monotonic()))
            asked.append(threads.submit(ask, number))
        return [one.result() for one in asked]


def summary(moments: Sequence[float], answers: Sequence[Answer]) -> dict[str, float]:
    """Replies a second and how long they took.

    Args:
        moments: when the requests came, in seconds.

    Returns:
        `replies_per_s`, from the first request to the last reply; `p50_s`, `p95_s` and `p99_s` of what was answered;
        `refused`, the share of the requests that found the queue full (429), and `failed`, of those that were not
        answered for another reason.

    Raises:
        ValueError: if nothing was answered.
    """
    done = [(moment, one.seconds) for moment, one in zip(moments, answers, strict=True) if one.status == 200]
    if not done:
        raise ValueError("no request was answered")
    span = max(moment + seconds for moment, seconds in done) - moments[0]
    told = {"replies_per_s": len(done) / span}
    waits = np.percentile([seconds for _, seconds in done], (50, 95, 99))
    told |= {name: float(wait) for name, wait in zip(("p50_s", "p95_s", "p99_s"), waits, strict=True)}
    refused = sum(one.status == 429 for one in answers) / len(answers)
    return told | {"refused": refused, "failed": 1 - len(done) / len(answers) - refused}


def full_speed(url: str, share: float, batch_size: int) -> float:
    """Replies a second to four batches of requests that all come at once, after one to warm up."""
    for count in (batch_size, 4 * batch_size):
        kinds = sample_kinds(share, count, seed=count)
        told = summary([0.0] * count, put_load(url, [0.0] * count, kinds, seed=-count))
    return told["replies_per_s"]
