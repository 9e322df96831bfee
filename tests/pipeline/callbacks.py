"""What goes on while a picture is painted: callbacks and the progress bar."""

import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback

from .base import latents, paint


class CallbackMixin:
    def test_a_callback_sees_every_step_and_may_change_the_latents(self, pipe):
        seen = []

        def zero_at_last(owner, step, timestep, tensors):
            seen.append((owner is pipe, step, int(timestep), set(tensors)))
            return {"latents": torch.zeros_like(tensors["latents"])} if step == 1 else tensors

        changed = latents(pipe, callback_on_step_end=zero_at_last)
        assert not changed.any()
        assert seen == [(True, i, int(t), {"latents"}) for i, t in enumerate(pipe.scheduler.timesteps)]

    def test_a_callback_is_given_all_tensors_it_names(self, pipe):
        shapes = {}

        def look(_, step, timestep, tensors):
            shapes.update({name: tuple(tensor.shape) for name, tensor in tensors.items()})
            return tensors

        paint(pipe, callback_on_step_end=look, callback_on_step_end_tensor_inputs=pipe._callback_tensor_inputs)
        embeds = (1, 32, 128)
        assert shapes == {
            "latents": (1, *self.latents_shape),
            "prompt_embeds": embeds,
            "negative_prompt_embeds": embeds,
        }

    def test_a_callback_may_give_back_all_that_it_was_given(self, pipe):
        names = pipe._callback_tensor_inputs
        look = {"callback_on_step_end": lambda *given: given[-1], "callback_on_step_end_tensor_inputs": names}
        for scale in (1.0, 2.5):
            assert torch.equal(latents(pipe, guidance_scale=scale, **look), latents(pipe, guidance_scale=scale))

    def test_a_callback_may_raise_the_guidance(self, pipe):
        def raise_guidance(owner, step, timestep, tensors):
            owner._guidance_scale *= 2
            return tensors

        assert not torch.allclose(latents(pipe, callback_on_step_end=raise_guidance), latents(pipe))
        assert pipe.guidance_scale == 2.5

    def test_diffusers_own_callbacks_work(self, pipe, count_calls):
        calls = count_calls(pipe.unet)
        paint(pipe, callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=0))
        assert [args[0].shape[0] for args, _ in calls] == [2, 1]

    def test_a_callback_may_interrupt(self, pipe, count_calls):
        def stop(owner, step, timestep, tensors):
            owner._interrupt = True
            return tensors

        calls = count_calls(pipe.unet)
        paint(pipe, callback_on_step_end=stop, num_inference_steps=5)
        assert len(calls) == 1 and pipe.interrupt
        paint(pipe)
        assert len(calls) == 3

    @pytest.mark.parametrize(
        ("returned", "error", "says"),
        [
            (None, TypeError, "must return a dictionary of the tensors that change, got NoneType"),
            ({"noise": 1}, ValueError, "noise"),
            (
                {"latents": None},
                TypeError,
                "latents of what callback_on_step_end returns must be a tensor, got NoneType",
            ),
            ({"latents": [[1.0]]}, TypeError, "must be a tensor, got list"),
            ({"prompt_embeds": torch.ones(1, 2, 3)}, ValueError, r"prompt_embeds .* must be \(1, 32, 128\) of "),
        ],
    )
    def test_a_callback_returns_its_tensors(self, pipe, returned, error, says):
        with pytest.raises(error, match=says):
            paint(pipe, callback_on_step_end=lambda *_: returned)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda latents: latents[:, :, 1:], r"must be \(1, 4, 16, 16\) .*, got \(1, 4, 15, 16\)"),
            (lambda latents: latents.expand(2, -1, -1, -1), r"got \(2, 4, 16, 16\)"),
            (lambda latents: latents.double(), "of torch.float32 on cpu, got .* torch.float64"),
            (lambda latents: latents / 0, "must be finite"),
            (lambda latents: latents.to("meta"), "meta tensor"),
            (lambda latents: latents.long(), "floating-point"),
        ],
    )
    def test_a_callback_s_tensors_are_those_it_was_given_in_kind(self, pipe, change, says):
        with pytest.raises((TypeError, ValueError), match=says):
            paint(pipe, callback_on_step_end=lambda *given: {"latents": change(given[-1]["latents"])})

    def test_the_progress_bar_can_be_configured(self, pipe, capfd):
        pipe.set_progress_bar_config(desc="painting")
        paint(pipe)
        assert "painting" in capfd.readouterr().err
        pipe.set_progress_bar_config(disable=True)
        paint(pipe)
        assert "painting" not in capfd.readouterr().err
