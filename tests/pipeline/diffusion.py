"""How pictures are painted: guidance, latents, sizes, schedulers."""

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from minigpt5.storyworld import miniature

from .base import latents, paint, seeded


class DiffusionMixin:
    @pytest.mark.parametrize("scale", [1.0, 0.0])
    def test_without_guidance_the_unet_batch_is_not_doubled(self, pipe, count_calls, scale):
        calls = count_calls(pipe.unet)
        paint(pipe, guidance_scale=scale)
        assert [args[0].shape[0] for args, _ in calls] == [1, 1] and not pipe.do_classifier_free_guidance

    def test_with_guidance_both_halves_go_as_one_batch(self, pipe, count_calls):
        calls = count_calls(pipe.unet)
        paint(pipe)
        assert [args[0].shape[0] for args, _ in calls] == [2, 2] and pipe.do_classifier_free_guidance

    def test_guidance_leads_from_the_null_embedding_to_the_prompt_s(self, pipe):
        unguided, doubled = latents(pipe, guidance_scale=1.0), latents(pipe, guidance_scale=2.0)
        assert not torch.allclose(unguided, doubled, atol=1e-4)
        # Where the null embedding is the prompt's own, there is nothing to lead away from.
        embeds = []
        paint(
            pipe,
            callback_on_step_end=lambda p, i, t, tensors: embeds.append(tensors["prompt_embeds"]) or tensors,
            callback_on_step_end_tensor_inputs=["prompt_embeds"],
        )
        pipe.null_conditioning = lambda: {"prompt_embeds": embeds[0]}
        assert torch.allclose(latents(pipe, guidance_scale=2.0), unguided, atol=1e-4)

    @pytest.mark.parametrize("count", [1, 3])
    def test_the_unet_runs_once_a_step_whatever_the_number_of_pictures(self, pipe, count_calls, script, IMAGE, count):
        script([IMAGE], *[[IMAGE, "and", IMAGE]] * (count - 1))
        unet, vae = count_calls(pipe.unet), count_calls(pipe.vae.decoder)
        output = pipe(["go on"] * count, max_images=2, num_inference_steps=3)
        assert len(unet) == 3 == pipe.num_timesteps and len(vae) == 1
        assert [len(own) for own in output.images] == [1, 2, 2][:count]

    @pytest.mark.parametrize("how", ["in place", "as averages of weights are swapped in", "another mapper"])
    def test_the_null_embedding_follows_the_mapper_s_weights(self, pipe, how):
        pipe.mapper = miniature.build_mapper().eval()
        before = pipe.null_embeds()
        with torch.no_grad():
            if how == "in place":
                pipe.mapper.queries.add_(1)
            elif how == "as averages of weights are swapped in":
                # As diffusers' EMAModel does it, which autograd does not count.
                pipe.mapper.queries.data.copy_(pipe.mapper.queries + 1)
            else:
                pipe.mapper = miniature.build_mapper().eval()
            expected = pipe.mapper(torch.zeros(1, 8, 192))
        assert torch.equal(pipe.null_embeds(), expected) and not torch.equal(expected, before)

    def test_latents_can_be_given(self, pipe):
        noise = torch.randn(1, *self.latents_shape)
        first, second = (latents(pipe, latents=noise, generator=seeded(seed)) for seed in (0, 1))
        assert torch.equal(first, second) and not torch.equal(first, latents(pipe))

    def test_latents_of_the_wrong_shape_are_refused(self, pipe):
        says = r"1 picture\(s\), so latents must be \(1, 4, 16, 16\), got \(2, 4, 16, 16\)"
        with pytest.raises(ValueError, match=says):
            paint(pipe, latents=torch.randn(2, 4, 16, 16))

    @pytest.mark.parametrize("size", [(32, 96), (72, 64)])
    def test_any_size_that_the_vae_can_make(self, pipe, size):
        height, width = size
        assert paint(pipe, height=height, width=width, output_type="np").images[0][0].shape == (height, width, 3)

    @pytest.mark.parametrize(
        "kind", [DPMSolverMultistepScheduler, UniPCMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler]
    )
    def test_schedulers_can_be_swapped(self, pipe, kind):
        # What a zero terminal SNR would make of these noise scales is not the subject.
        settings = {**pipe.scheduler.config, "rescale_betas_zero_snr": False}
        settings |= {"timestep_spacing": "leading", "skip_prk_steps": True}
        pipe.scheduler = kind.from_config(settings)
        first, second = latents(pipe), latents(pipe)
        assert first.isfinite().all() and torch.equal(first, second)

    def test_the_first_call_with_a_scheduler_equals_the_next_with_other_steps_between(self, pipe):
        """The noise scale of some schedulers depends on the timesteps, so it is read after they are set."""
        pipe.scheduler = EulerDiscreteScheduler(timestep_spacing="leading", prediction_type="v_prediction")
        first = latents(pipe, num_inference_steps=3)
        latents(pipe, num_inference_steps=1)
        assert torch.equal(first, latents(pipe, num_inference_steps=3))

    def test_steps_that_a_scheduler_cannot_make_are_refused(self, pipe):
        pipe.scheduler = PNDMScheduler(skip_prk_steps=False)
        with pytest.raises(ValueError, match="num_inference_steps is 1, but PNDMScheduler cannot make them: "):
            paint(pipe, num_inference_steps=1)
        assert latents(pipe, num_inference_steps=8).isfinite().all()

    def test_a_call_leaves_the_weights_as_they_were(self, pipe):
        before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
        paint(pipe, ["a red fox", "a blue fox"])
        assert all(torch.equal(value, before[name]) for name, value in pipe.unet.state_dict().items())

    def test_painting_keeps_no_graph(self, pipe):
        embeds, picture = pipe.encode_vokens(torch.zeros(1, 8, 192)), paint(pipe, output_type="pt").images[0][0]
        assert not embeds.requires_grad and not picture.requires_grad
