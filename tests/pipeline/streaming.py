"""Replies as they come."""

import pytest
import torch

from minigpt5 import ImageEvent, TextEvent

from .base import latents, seeded


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

    def test_streams_side_by_side_keep_their_own_guidance(self, pipe):
        options = {"image_mode": "always", "max_new_tokens": 3, "output_type": "latent"}
        scales = [1.0, 7.5]
        streams = [pipe.stream(self.prompt, guidance_scale=scale, generator=seeded(), **options) for scale in scales]
        for stream, scale in zip(streams, scales, strict=True):
            (ours,) = (event.image for event in stream if isinstance(event, ImageEvent))
            assert torch.equal(ours, latents(pipe, self.prompt, guidance_scale=scale))

    def test_a_stream_refuses_what_the_call_refuses(self, pipe):
        for options in ({"prompt": ""}, {"prompt": "a", "height": 64.0}, {"prompt": "a", "generator": 0}):
            with pytest.raises((TypeError, ValueError)):
                pipe.stream(**options)
