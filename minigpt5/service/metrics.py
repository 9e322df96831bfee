"""What an engine does, in Prometheus' terms."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
_RATES = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
# By the names that the engine measures under: buckets, and what they hold.
HISTOGRAMS = {
    "request_seconds": (_SECONDS, "From a request's arrival to the end of its reply."),
    "queue_seconds": (_SECONDS, "That a request waits before its prompt is read."),
    "tokens_per_second": (_RATES, "Tokens of a reply, over the time that it is spoken in."),
    "pictures_per_second": (_RATES, "Pictures that denoise together, over the time that they take."),
    "decoding_batch": (_SIZES, "Replies that a decoding step goes on with."),
    "painting_batch": (_SIZES, "Pictures that denoise together."),
}
COUNTERS = {
    "prompt_tokens": "Tokens of prompts.",
    "prompt_tokens_cached": "Of these, tokens whose keys and values were kept from an earlier request.",
    "pictures_read": "Pictures of prompts.",
    "pictures_cached": "Of these, pictures that were not looked at again.",
    "new_tokens": "Tokens of replies; a picture counts as one.",
    "pictures": "Pictures painted.",
}


class Metrics:
    """Histograms, counters and gauges of one engine; `measure` is what the engine is to be given."""

    def __init__(self):
        self.registry = CollectorRegistry()
        self._histograms = {
            name: Histogram(f"minigpt5_{name}", text, buckets=buckets, registry=self.registry)
            for name, (buckets, text) in HISTOGRAMS.items()
        }
        self._counters = {
            name: Counter(f"minigpt5_{name}", text, registry=self.registry) for name, text in COUNTERS.items()
        }
        self.responses = Counter("minigpt5_responses", "Answers.", ["route", "status"], registry=self.registry)

    def measure(self, name: str, value: float) -> None:
        """Take down a number."""
        if name in self._histograms:
            self._histograms[name].observe(value)
        else:
            self._counters[name].inc(value)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(f"minigpt5_{name}", text, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
