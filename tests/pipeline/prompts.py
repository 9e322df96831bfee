"""What a call is given, and what it refuses before anything runs."""

import numpy as np
import pytest
import torch

from minigpt5 import MiniGPT5Pipeline

from .base import paint, same, seeded


class PromptMixin:
    def test_pictures_may_be_pil_arrays_or_tensors(self, pipe, pictures):
        array = np.asarray(pictures[0])
        tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
        given = [pictures[0], [pictures[0]], array, tensor, array / 255.0, tensor / 255]
        outputs = [paint(pipe, self.picture_prompt, images=picture) for picture in given]
        assert all(same(outputs[0], output) for output in outputs[1:])
        assert not same(outputs[0], paint(pipe, self.picture_prompt, images=pictures[1]))

    def test_a_string_equals_the_chat_that_says_it(self, pipe, pictures):
        content = [{"type": "text", "text": "what is"}, {"type": "image", "image": pictures[0]}]
        chat = [{"role": "user", "content": content}]
        assert same(paint(pipe, "what is <ImageHere>", images=pictures[0]), paint(pipe, chat))
        assert same(paint(pipe, [chat]), paint(pipe, chat))

    def test_vision_runs_once_a_call(self, pipe, count_calls, pictures):
        calls = count_calls(pipe.comprehension.vision_model)
        pipe(["a <ImageHere> b <ImageHere>", "c <ImageHere>"], images=[pictures[:2], pictures[2]], max_new_tokens=2)
        assert len(calls) == 1

    def test_settings_come_from_the_model_s_folder_unless_given(self, pipe):
        assert pipe.decoding_config().max_new_tokens == 6
        assert pipe.decoding_config(max_new_tokens=9, top_k=None).max_new_tokens == 9

    @pytest.mark.parametrize(
        ("prompt", "options", "error", "says"),
        [
            ("", {}, ValueError, "prompt is empty"),
            ("  ", {}, ValueError, "prompt is empty"),
            ([], {}, ValueError, "at least one prompt"),
            (["a", ""], {}, ValueError, "prompt is empty"),
            (3, {}, TypeError, "got int"),
            ([3], {}, TypeError, "got int"),
            ("red " * 600, {}, ValueError, "tokens long, but the model's context holds 512"),
            ("a", {"height": 63}, ValueError, "multiples of 8, got 63 and 64"),
            ("a", {"width": 0}, ValueError, "multiples of 8, got 64 and 0"),
            ("a", {"output_type": "jpeg"}, ValueError, "got 'jpeg'"),
            ("a", {"num_inference_steps": 0}, ValueError, "num_inference_steps must be at least 1"),
            ("a", {"max_new_tokens": 0}, ValueError, "max_new_tokens must be at least 1"),
            ("a", {"callback_on_step_end_tensor_inputs": ["noise"]}, ValueError, r"got \['noise'\]"),
            (["a", "b"], {"generator": [seeded()]}, ValueError, "list of 2, got a list of 1"),
            ("a <ImageHere>", {}, ValueError, r"1 image mark\(s\) but 0 image\(s\)"),
            ("a", {"height": 64.0}, TypeError, "height must be a whole number, got float"),
            ("a", {"height": 10**9}, ValueError, "height must be at most 512"),
            ("a", {"width": True}, TypeError, "width must be a whole number, got bool"),
            ("a", {"num_inference_steps": 1e9}, TypeError, "num_inference_steps must be a whole number"),
            ("a", {"num_inference_steps": 10**9}, ValueError, "num_inference_steps must be at most 1000"),
            ("a", {"guidance_scale": float("nan")}, ValueError, "guidance_scale must be a finite number"),
            ("a", {"guidance_scale": 1j}, TypeError, "guidance_scale must be a number, got complex"),
            ("a", {"guidance_scale": -1}, ValueError, "guidance_scale must be at least 0"),
            ("a", {"max_new_tokens": 600}, ValueError, "max_new_tokens must be at most 512"),
            ("a", {"temperature": "hot"}, TypeError, "temperature must be a number"),
            ("a", {"do_sample": "no"}, TypeError, "do_sample must be True or False"),
            ("a", {"output_type": np.array(["pil"])}, TypeError, "output_type must be one of"),
            ("a", {"return_dict": None}, TypeError, "return_dict must be True or False"),
            ("a", {"generator": 0}, TypeError, "generator must be a torch.Generator or a list of them, got int"),
            (["a", "b"], {"generator": [seeded(), None]}, TypeError, "got NoneType"),
            ("a", {"latents": np.zeros((1, 4, 16, 16))}, TypeError, "latents must be a tensor, got ndarray"),
            (
                "a",
                {"latents": torch.zeros(1, 4, 16, 16, dtype=torch.long)},
                TypeError,
                "latents must be a dense tensor",
            ),
            ("a", {"latents": torch.full((1, 4, 16, 16), float("nan"))}, ValueError, "latents must be finite"),
            ("a", {"latents": torch.zeros(1, 4, 8, 8)}, ValueError, r"latents must be \(pictures, 4, 16, 16\)"),
            ("a", {"callback_on_step_end": "print"}, TypeError, "callback_on_step_end must be callable, got str"),
            ("a", {"callback_on_step_end_tensor_inputs": "latents"}, TypeError, "must be a list of names, got str"),
            ("a", {"images": "fox.png"}, ValueError, "a picture is a PIL image, an array or a tensor, got str"),
        ],
    )
    def test_what_cannot_be_run_is_refused_before_anything_is(self, pipe, count_calls, prompt, options, error, says):
        calls = count_calls(pipe.comprehension.language_model.model)
        with pytest.raises(error, match=says):
            pipe(prompt, **options)
        assert not calls

    def test_numbers_may_be_of_any_kind_that_means_the_same(self, pipe):
        plain = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 3, "guidance_scale": 2.0, "height": 64}
        other = {"temperature": 1, "top_p": np.float32(1), "max_new_tokens": np.int64(3), "guidance_scale": 2}
        other |= {"height": np.uint8(64), "repetition_penalty": 1, "do_sample": np.True_}
        assert same(paint(pipe, **plain, do_sample=True), paint(pipe, **other))

    def test_voken_features_are_checked(self, pipe):
        for wrong in (torch.zeros(8, 192), torch.zeros(1, 8, 191), torch.full((1, 8, 192), float("nan")), [0.0]):
            with pytest.raises((TypeError, ValueError), match=r"voken.features"):
                pipe.encode_vokens(wrong)

    def test_a_prompt_too_long_gives_no_other_warning(self, tiny_folder, caplog, capfd):
        from transformers.utils import logging

        fresh = MiniGPT5Pipeline.from_pretrained(tiny_folder)
        logging.enable_propagation()
        capfd.readouterr()
        with pytest.raises(ValueError, match="shorten it"):
            fresh("red " * 600)
        logging.disable_propagation()
        assert "longer than" not in caplog.text + capfd.readouterr().err
