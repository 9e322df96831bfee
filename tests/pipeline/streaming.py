"""Replies as they come."""

import pytest
import torch

from minigpt5 import ImageEvent, TextEvent

from .base import seeded


class StreamingMixin:
    def test_a_stream_says_and_paints_what_the_call_returns(self, pipe, script, IMAGE):
        line = ["a red fox", IMAGE, "in the forest"]
        script(line)
        events = list(pipe.stream("go on", max_new_tokens=20, generator=seeded(), output_type="latent"))
        script(line)
        output = pipe("go on", max_new_tokens=20, generator=seeded(), output_type="latent")
        at = next(i for i, event in enumerate(events) if isinstance(event, ImageEvent))
        assert "".join(event.text for event in events[:at]) == output.segments[0][0]
        assert torch.equal(events[at].image, output.segments[0][1])
        assert "".join(event.text for event in events[at + 1 :]) == output.segments[0][2]

    def test_a_stream_paints_before_it_goes_on(self, pipe, script, IMAGE, count_calls):
        script(["a", IMAGE, "fox", "fox"])
        unet = count_calls(pipe.unet)
        stream = pipe.stream("go on", max_new_tokens=20)
        assert isinstance(next(stream), TextEvent) and not unet
        assert isinstance(next(stream), ImageEvent) and len(unet) == 2

    def test_a_stream_refuses_what_the_call_refuses(self, pipe):
        for options in ({"prompt": ""}, {"prompt": "a", "height": 64.0}, {"prompt": "a", "generator": 0}):
            with pytest.raises((TypeError, ValueError)):
                pipe.stream(**options)
