"""Less memory: offloading of all kinds, and attention and decoding in slices or tiles.

No accelerator is needed: hooks are put on as diffusers puts them on, and weights are taken away where they would be
moved away, so that who reads weights past the hooks finds none.
"""

import accelerate
import pytest
import torch

from minigpt5 import ImageEvent
from minigpt5.vokens.adapters import LoraSettings, train_adapter

from .base import latents, paint, same, seeded

CPU = torch.device("cpu")
KINDS = ["model", "sequential", "block_level", "leaf_level"]


class MemoryMixin:
    @pytest.fixture
    def offload(self, monkeypatch, weights_leave):
        """Switches a kind of offloading on; the list that it returns grows by what comes to the device."""
        came = weights_leave

        def counted(hook):
            genuine = hook.pre_forward

            def pre_forward(own, module, *args, **kwargs):
                came.append(module)
                return genuine(own, module, *args, **kwargs)

            monkeypatch.setattr(hook, "pre_forward", pre_forward)

        def switch_on(pipe, kind):
            if kind == "model":
                counted(accelerate.hooks.CpuOffload)
                pipe.enable_model_cpu_offload(device=CPU)
            elif kind == "sequential":
                counted(accelerate.hooks.AlignDevicesHook)
                genuine = accelerate.cpu_offload
                # "cpu:0", as diffusers would have it, is another device than "cpu" to accelerate.
                monkeypatch.setattr(accelerate, "cpu_offload", lambda part, _, **options: genuine(part, CPU, **options))
                pipe.enable_sequential_cpu_offload(device=CPU)
            else:
                pipe.enable_group_offload(CPU, CPU, kind, num_blocks_per_group=1)
            return came

        return switch_on

    @pytest.mark.parametrize("kind", KINDS)
    def test_offloaded_parts_reply_as_they_did(self, opened, offload, pictures, kind):
        pipe = opened()
        prompts = [(self.prompt, None), (self.picture_prompt, pictures[0])]
        whole = [paint(pipe, *prompt, output_type="pt") for prompt in prompts]
        came = offload(pipe, kind)
        for prompt, output in zip(prompts, whole, strict=True):
            came.clear()
            assert same(paint(pipe, *prompt, output_type="pt"), output) and came
        # A second time, because everything has to be put away behind a call.
        assert same(paint(pipe, *prompts[0], output_type="pt"), whole[0])

    @pytest.mark.parametrize("adapter", [{"lora": LoraSettings()}, {"prefix_length": 2}], ids=["lora", "prefix"])
    @pytest.mark.parametrize("kind", ["sequential", "leaf_level"])
    def test_offloaded_adapters_reply_as_they_did(self, opened, offload, pictures, kind, adapter):
        pipe = opened()
        train_adapter(pipe, **adapter)
        pipe.comprehension.requires_grad_(False)
        whole = paint(pipe, self.picture_prompt, pictures[0])
        offload(pipe, kind)
        assert same(paint(pipe, self.picture_prompt, pictures[0]), whole)

    @pytest.mark.parametrize("kind", KINDS)
    def test_offloaded_parts_stream_as_they_did(self, opened, offload, script, IMAGE, kind):
        pipe, line = opened(), ["a red fox", IMAGE, "in the forest", IMAGE]
        options = {"max_images": 2, "max_new_tokens": 20, "output_type": "pt"}

        def events():
            script(line)
            return list(pipe.stream("go on", generator=seeded(), **options))

        whole = events()
        offload(pipe, kind)
        for one, other in zip(events(), whole, strict=True):
            assert type(one) is type(other)
            assert torch.equal(one.image, other.image) if isinstance(one, ImageEvent) else one.text == other.text

    @pytest.mark.parametrize("kind", KINDS[1:])
    def test_what_reads_is_away_while_a_picture_is_painted(self, opened, offload, kind):
        pipe, there = opened(), []
        offload(pipe, kind)

        def look(owner, step, timestep, tensors):
            weight = pipe.comprehension.language_model.lm_head.weight
            there.append(weight.device.type != "meta" and not weight.isnan().any())
            return tensors

        paint(pipe, callback_on_step_end=look)
        assert there == [False, False]

    def test_models_come_to_the_device_in_the_order_of_their_use(self, opened, offload):
        pipe = opened()
        came = offload(pipe, "model")
        paint(pipe, output_type="pil")
        names = {id(part): name for name, part in pipe.components.items()}
        order = list(dict.fromkeys(names[id(part)] for part in came))
        assert "->".join(order) == pipe.model_cpu_offload_seq

    def test_a_device_map_places_every_part(self, opened, pictures):
        whole = paint(opened(), self.picture_prompt, pictures[0])
        pipe = opened(device_map="cpu")
        assert pipe.hf_device_map == "cpu"
        assert same(paint(pipe, self.picture_prompt, pictures[0]), whole)

    def test_attention_slicing_changes_nothing(self, opened):
        pipe = opened()
        whole = latents(pipe)
        pipe.enable_attention_slicing()
        assert torch.allclose(latents(pipe), whole, atol=1e-4)

    def test_slices_of_the_vae_change_nothing(self, opened, count_calls):
        pipe = opened()
        whole = paint(pipe, [self.prompt] * 2, output_type="pt")
        calls = count_calls(pipe.vae.decoder)
        pipe.vae.enable_slicing()
        assert same(paint(pipe, [self.prompt] * 2, output_type="pt"), whole, atol=1e-5) and len(calls) == 2

    def test_tiles_of_the_vae_make_a_picture_of_the_same_size(self, opened, count_calls):
        pipe = opened()
        calls = count_calls(pipe.vae.decoder)
        pipe.vae.enable_tiling()
        picture = paint(pipe, height=128, width=96, output_type="pt").images[0][0]
        assert picture.shape == (3, 128, 96) and picture.isfinite().all() and len(calls) > 1
