"""The pipeline as a user of diffusers expects one to be."""

import json
import random
from itertools import chain

import numpy as np
import pytest
import torch
from accelerate import cpu_offload_with_hook
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.callbacks import SDCFGCutoffCallback
from PIL import Image

from minigpt5 import ImageEvent, MiniGPT5Pipeline, TextEvent
from minigpt5.storyworld import miniature

PROMPT = "Draw this: a red fox"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def paint(pipe, prompt=PROMPT, **options):
    """A reply that holds a picture, as latents unless asked otherwise."""
    options = {"image_mode": "always", "max_new_tokens": 3, "generator": seeded(), "output_type": "latent"} | options
    return pipe(prompt, **options)


def latents(pipe, *args, **options):
    return paint(pipe, *args, **options).images[0][0]


def same(first, second):
    """Whether two outputs hold the same text and the same latents."""
    ours, theirs = (list(chain.from_iterable(output.images)) for output in (first, second))
    return first.text == second.text and all(map(torch.equal, ours, theirs)) and len(ours) == len(theirs) > 0


@pytest.fixture
def IMAGE(tiny_processor):
    return tiny_processor.voken_ids[0]


# Output


def test_a_reply_is_text_and_pictures_in_order(pipe, script, IMAGE):
    script(["a red fox", IMAGE, "in the forest", IMAGE, "at night"])
    output = pipe("go on", max_images=2, max_new_tokens=50)
    first, second = output.images[0]
    assert output.segments[0] == ["a red fox", first, "in the forest", second, "at night"]
    assert output.text == ["a red fox in the forest at night"]
    assert isinstance(first, Image.Image) and first.size == (64, 64) and first.mode == "RGB"


@pytest.mark.parametrize(
    ("output_type", "kind", "shape"),
    [("np", np.ndarray, (64, 64, 3)), ("pt", torch.Tensor, (3, 64, 64)), ("latent", torch.Tensor, (4, 16, 16))],
)
def test_output_types(pipe, output_type, kind, shape):
    picture = paint(pipe, output_type=output_type).images[0][0]
    assert isinstance(picture, kind) and picture.shape == shape
    if output_type != "latent":
        assert picture.min() >= 0 and picture.max() <= 1


def test_output_types_show_the_same_picture(pipe):
    pil, array, tensor = (paint(pipe, output_type=kind).images[0][0] for kind in ("pil", "np", "pt"))
    assert np.array_equal(np.asarray(pil), (array * 255).round().astype("uint8"))
    assert np.allclose(array, tensor.permute(1, 2, 0).numpy())


def test_without_return_dict_the_fields_come_as_a_tuple(pipe):
    output = paint(pipe)
    text, images, segments = paint(pipe, return_dict=False)
    assert text == output.text and torch.equal(images[0][0], output.images[0][0])
    assert len(segments) == 1 and output.to_tuple()[0] == text


def test_latents_cannot_be_saved_as_a_page(pipe, tmp_path):
    with pytest.raises(ValueError, match="latents cannot be shown"):
        paint(pipe).save_html(tmp_path / "reply.html")
    for output_type in ("pil", "np", "pt"):
        paint(pipe, output_type=output_type).save_html(tmp_path / "reply.html")
        assert "data:image/png;base64," in (tmp_path / "reply.html").read_text()


def test_a_batch_without_pictures_paints_nothing(pipe, count_calls):
    calls = count_calls(pipe.unet)
    output = pipe(["a", "b c d"], image_mode="never")
    assert output.images == [[], []] and not calls and len(output.text) == 2


# Prompts


def test_pictures_may_be_pil_arrays_or_tensors(pipe, pictures):
    array = np.asarray(pictures[0])
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    given = [pictures[0], [pictures[0]], array, tensor, array / 255.0, tensor / 255]
    outputs = [paint(pipe, "what is <ImageHere>?", images=picture) for picture in given]
    assert all(same(outputs[0], output) for output in outputs[1:])
    assert not same(outputs[0], paint(pipe, "what is <ImageHere>?", images=pictures[1]))


def test_a_string_equals_the_chat_that_says_it(pipe, pictures):
    content = [{"type": "text", "text": "what is"}, {"type": "image", "image": pictures[0]}]
    chat = [{"role": "user", "content": content}]
    assert same(paint(pipe, "what is <ImageHere>", images=pictures[0]), paint(pipe, chat))
    assert same(paint(pipe, [chat]), paint(pipe, chat))


def test_vision_runs_once_a_call(pipe, count_calls, pictures):
    calls = count_calls(pipe.comprehension.vision_model)
    pipe(["a <ImageHere> b <ImageHere>", "c <ImageHere>"], images=[pictures[:2], pictures[2]], max_new_tokens=2)
    assert len(calls) == 1


def test_settings_come_from_the_model_s_folder_unless_given(pipe):
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
        ("a", {"height": 63}, ValueError, "multiples of 4, got 63 and 64"),
        ("a", {"width": 0}, ValueError, "multiples of 4, got 64 and 0"),
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
        ("a", {"latents": torch.zeros(1, 4, 16, 16, dtype=torch.long)}, TypeError, "latents must be a dense tensor"),
        ("a", {"latents": torch.full((1, 4, 16, 16), float("nan"))}, ValueError, "latents must be finite"),
        ("a", {"latents": torch.zeros(1, 4, 8, 8)}, ValueError, r"latents must be \(pictures, 4, 16, 16\)"),
        ("a", {"callback_on_step_end": "print"}, TypeError, "callback_on_step_end must be callable, got str"),
        ("a", {"callback_on_step_end_tensor_inputs": "latents"}, TypeError, "must be a list of names, got str"),
        ("a", {"images": "fox.png"}, ValueError, "a picture is a PIL image, an array or a tensor, got str"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(pipe, count_calls, prompt, options, error, says):
    calls = count_calls(pipe.comprehension.language_model.model)
    with pytest.raises(error, match=says):
        pipe(prompt, **options)
    assert not calls


def test_numbers_may_be_of_any_kind_that_means_the_same(pipe):
    plain = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 3, "guidance_scale": 2.0, "height": 64}
    other = {"temperature": 1, "top_p": np.float32(1), "max_new_tokens": np.int64(3), "guidance_scale": 2}
    other |= {"height": np.uint8(64), "repetition_penalty": 1, "do_sample": np.True_}
    assert same(paint(pipe, **plain, do_sample=True), paint(pipe, **other))


@pytest.mark.parametrize(
    ("returned", "error", "says"),
    [
        (None, TypeError, "must return a dictionary of the tensors that change, got NoneType"),
        ({"noise": 1}, ValueError, "noise"),
    ],
)
def test_a_callback_returns_its_tensors(pipe, returned, error, says):
    with pytest.raises(error, match=says):
        paint(pipe, callback_on_step_end=lambda *_: returned)


def test_voken_features_are_checked(pipe):
    for wrong in (torch.zeros(8, 192), torch.zeros(1, 8, 191), torch.full((1, 8, 192), float("nan")), [0.0]):
        with pytest.raises((TypeError, ValueError), match=r"voken.features"):
            pipe.encode_vokens(wrong)


def test_painting_keeps_no_graph(pipe):
    noise = torch.randn(1, 4, 16, 16)
    embeds = pipe.encode_vokens(torch.zeros(1, 8, 192))
    painted = pipe.denoise(embeds, noise, 1)
    (picture,) = pipe.decode_latents(painted, "pt")
    assert not painted.requires_grad and not picture.requires_grad


def test_a_prompt_too_long_gives_no_other_warning(tiny_folder, caplog, capfd):
    from transformers.utils import logging

    fresh = MiniGPT5Pipeline.from_pretrained(tiny_folder)
    logging.enable_propagation()
    capfd.readouterr()
    with pytest.raises(ValueError, match="shorten it"):
        fresh("red " * 600)
    logging.disable_propagation()
    assert "longer than" not in caplog.text + capfd.readouterr().err


# Diffusion


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_without_guidance_the_unet_batch_is_not_doubled(pipe, count_calls, scale):
    calls = count_calls(pipe.unet)
    paint(pipe, guidance_scale=scale)
    assert [args[0].shape[0] for args, _ in calls] == [1, 1] and not pipe.do_classifier_free_guidance


def test_with_guidance_both_halves_go_as_one_batch(pipe, count_calls):
    calls = count_calls(pipe.unet)
    paint(pipe)
    assert [args[0].shape[0] for args, _ in calls] == [2, 2] and pipe.do_classifier_free_guidance


def test_guidance_leads_from_the_null_embedding_to_the_prompt_s(pipe):
    unguided, doubled = latents(pipe, guidance_scale=1.0), latents(pipe, guidance_scale=2.0)
    assert not torch.allclose(unguided, doubled, atol=1e-4)
    # Where the null embedding is the prompt's own, there is nothing to lead away from.
    embeds = []
    paint(
        pipe,
        callback_on_step_end=lambda p, i, t, tensors: embeds.append(tensors["prompt_embeds"]) or tensors,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
    )
    pipe.null_embeds = lambda: embeds[0]
    assert torch.allclose(latents(pipe, guidance_scale=2.0), unguided, atol=1e-4)


@pytest.mark.parametrize("count", [1, 3])
def test_the_unet_runs_once_a_step_whatever_the_number_of_pictures(pipe, count_calls, script, IMAGE, count):
    script([IMAGE], *[[IMAGE, "and", IMAGE]] * (count - 1))
    unet, vae = count_calls(pipe.unet), count_calls(pipe.vae.decoder)
    output = pipe(["go on"] * count, max_images=2, num_inference_steps=3)
    assert len(unet) == 3 == pipe.num_timesteps and len(vae) == 1
    assert [len(own) for own in output.images] == [1, 2, 2][:count]


def test_the_null_embedding_is_computed_once(pipe, count_calls):
    calls = count_calls(pipe.mapper)
    paint(pipe), paint(pipe)
    assert len(calls) == 3


@pytest.mark.parametrize("how", ["in place", "another mapper"])
def test_the_null_embedding_follows_the_mapper_s_weights(pipe, how):
    pipe.mapper = miniature.build_mapper().eval()
    before = pipe.null_embeds()
    with torch.no_grad():
        if how == "in place":
            pipe.mapper.queries.add_(1)
        else:
            pipe.mapper = miniature.build_mapper().eval()
        expected = pipe.mapper(torch.zeros(1, 8, 192))
    assert torch.equal(pipe.null_embeds(), expected) and not torch.equal(expected, before)


def test_latents_can_be_given(pipe):
    noise = torch.randn(1, 4, 16, 16)
    first, second = (latents(pipe, latents=noise, generator=seeded(seed)) for seed in (0, 1))
    assert torch.equal(first, second) and not torch.equal(first, latents(pipe))


def test_latents_of_the_wrong_shape_are_refused(pipe):
    with pytest.raises(ValueError, match=r"1 picture\(s\), so latents must be \(1, 4, 16, 16\), got \(2, 4, 16, 16\)"):
        paint(pipe, latents=torch.randn(2, 4, 16, 16))


@pytest.mark.parametrize("size", [(32, 96), (72, 64)])
def test_any_size_that_the_vae_can_make(pipe, size):
    height, width = size
    assert paint(pipe, height=height, width=width, output_type="np").images[0][0].shape == (height, width, 3)


def test_a_callback_sees_every_step_and_may_change_the_latents(pipe):
    seen = []

    def zero_at_last(owner, step, timestep, tensors):
        seen.append((owner is pipe, step, int(timestep), set(tensors)))
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 1 else tensors

    changed = latents(pipe, callback_on_step_end=zero_at_last)
    assert not changed.any()
    assert seen == [(True, i, int(t), {"latents"}) for i, t in enumerate(pipe.scheduler.timesteps)]


def test_a_callback_is_given_all_tensors_it_names(pipe):
    shapes = {}

    def look(_, step, timestep, tensors):
        shapes.update({name: tuple(tensor.shape) for name, tensor in tensors.items()})
        return tensors

    paint(pipe, callback_on_step_end=look, callback_on_step_end_tensor_inputs=pipe._callback_tensor_inputs)
    assert shapes == {"latents": (1, 4, 16, 16), "prompt_embeds": (1, 32, 128), "negative_prompt_embeds": (1, 32, 128)}


def test_a_callback_may_raise_the_guidance(pipe):
    def raise_guidance(owner, step, timestep, tensors):
        owner._guidance_scale *= 2
        return tensors

    assert not torch.allclose(latents(pipe, callback_on_step_end=raise_guidance), latents(pipe))
    assert pipe.guidance_scale == 2.5


def test_diffusers_own_callbacks_work(pipe, count_calls):
    calls = count_calls(pipe.unet)
    paint(pipe, callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=0))
    assert [args[0].shape[0] for args, _ in calls] == [2, 1]


def test_a_callback_may_interrupt(pipe, count_calls):
    def stop(owner, step, timestep, tensors):
        owner._interrupt = True
        return tensors

    calls = count_calls(pipe.unet)
    paint(pipe, callback_on_step_end=stop, num_inference_steps=5)
    assert len(calls) == 1 and pipe.interrupt
    paint(pipe)
    assert len(calls) == 3


@pytest.mark.parametrize(
    "kind", [DPMSolverMultistepScheduler, UniPCMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler]
)
def test_schedulers_can_be_swapped(pipe, kind):
    # What a zero terminal SNR would make of these noise scales is not the subject.
    settings = {**pipe.scheduler.config, "rescale_betas_zero_snr": False}
    settings |= {"timestep_spacing": "leading", "skip_prk_steps": True}
    pipe.scheduler = kind.from_config(settings)
    first, second = latents(pipe), latents(pipe)
    assert first.isfinite().all() and torch.equal(first, second)


def test_the_first_call_with_a_scheduler_equals_the_next_with_other_steps_between(pipe):
    """The noise scale of some schedulers depends on the timesteps, so it is read after they are set."""
    pipe.scheduler = EulerDiscreteScheduler(timestep_spacing="leading", prediction_type="v_prediction")
    first = latents(pipe, num_inference_steps=3)
    latents(pipe, num_inference_steps=1)
    assert torch.equal(first, latents(pipe, num_inference_steps=3))


def test_the_progress_bar_can_be_configured(pipe, capfd):
    pipe.set_progress_bar_config(desc="painting")
    paint(pipe)
    assert "painting" in capfd.readouterr().err
    pipe.set_progress_bar_config(disable=True)
    paint(pipe)
    assert "painting" not in capfd.readouterr().err


# Batches and generators


def test_a_prompt_alone_equals_the_same_among_others(pipe, pictures, script, IMAGE):
    prompts = ["a", "a <ImageHere> much longer prompt than the other two", "look <ImageHere>"]
    images = [[], [pictures[0]], [pictures[1]]]
    lines = [["a red fox", None, IMAGE, None], [None, IMAGE, "and", IMAGE], [None]]
    options = {"max_images": 2, "max_new_tokens": 20, "output_type": "pt"}
    script(*lines)
    together = pipe(prompts, images, generator=[seeded(i) for i in range(3)], **options)
    for i, line in enumerate(lines):
        script(line)
        alone = pipe(prompts[i], images[i], generator=seeded(i), **options)
        assert alone.text == together.text[i : i + 1]
        assert len(alone.images[0]) == len(together.images[i])
        for one, other in zip(alone.images[0], together.images[i], strict=True):
            assert torch.allclose(one, other, atol=1e-4)


def test_sampled_rows_with_generators_of_their_own_are_independent(pipe):
    options = {"do_sample": True, "top_k": 0, "top_p": 1.0, "max_new_tokens": 6}
    together = paint(pipe, ["go on", "a red fox"], generator=[seeded(3), seeded(4)], **options)
    alone = paint(pipe, "a red fox", generator=seeded(4), **options)
    assert together.text[1:] == alone.text
    assert torch.allclose(together.images[1][0], alone.images[0][0], atol=1e-4)


def test_the_same_seed_gives_the_same_reply(pipe):
    assert same(paint(pipe, do_sample=True), paint(pipe, do_sample=True))
    assert not torch.equal(latents(pipe), latents(pipe, generator=seeded(1)))


# Streaming


def test_a_stream_says_and_paints_what_the_call_returns(pipe, script, IMAGE):
    line = ["a red fox", IMAGE, "in the forest"]
    script(line)
    events = list(pipe.stream("go on", max_new_tokens=20, generator=seeded(), output_type="latent"))
    script(line)
    output = pipe("go on", max_new_tokens=20, generator=seeded(), output_type="latent")
    at = next(i for i, event in enumerate(events) if isinstance(event, ImageEvent))
    assert "".join(event.text for event in events[:at]) == output.segments[0][0]
    assert torch.equal(events[at].image, output.segments[0][1])
    assert "".join(event.text for event in events[at + 1 :]) == output.segments[0][2]


def test_a_stream_paints_before_it_goes_on(pipe, script, IMAGE, count_calls):
    script(["a", IMAGE, "fox", "fox"])
    unet = count_calls(pipe.unet)
    stream = pipe.stream("go on", max_new_tokens=20)
    assert isinstance(next(stream), TextEvent) and not unet
    assert isinstance(next(stream), ImageEvent) and len(unet) == 2


def test_a_stream_refuses_what_the_call_refuses(pipe):
    for options in ({"prompt": ""}, {"prompt": "a", "height": 64.0}, {"prompt": "a", "generator": 0}):
        with pytest.raises((TypeError, ValueError)):
            pipe.stream(**options)


# Saving, loading, rebuilding


def test_saving_and_loading_keeps_the_reply(pipe, tiny_folder):
    again = MiniGPT5Pipeline.from_pretrained(tiny_folder)
    again.set_progress_bar_config(disable=True)
    assert same(paint(again), paint(pipe))
    assert again.config.guidance_scale == 2.5 and again.config.num_inference_steps == 2
    assert again.decoding_config() == pipe.decoding_config()


def test_the_folder_records_stable_names_and_safe_weights(tiny_folder):
    index = json.loads((tiny_folder / "model_index.json").read_text())
    assert index["mapper"] == ["minigpt5", "VokenMapper"] and index["processor"] == ["minigpt5", "MiniGPT5Processor"]
    assert index["text_encoder"] == index["tokenizer"] == [None, None]
    suffixes = {path.suffix for path in tiny_folder.rglob("*") if path.is_file()}
    assert ".safetensors" in suffixes and not suffixes & {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
    assert "MiniGPT5Pipeline.from_pretrained" in (tiny_folder / "README.md").read_text()


def test_saving_keeps_a_card_that_is_there(pipe, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    pipe.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_optional_components_are_saved_when_given(tiny_pipe, texts, tmp_path):
    tokenizer = miniature.build_tokenizer(texts, lowercase=True, max_length=miniature.TEXT_LENGTH)
    encoder = miniature.build_text_encoder(tokenizer).eval()
    MiniGPT5Pipeline.from_pipe(tiny_pipe, text_encoder=encoder, tokenizer=tokenizer).save_pretrained(tmp_path)
    again = MiniGPT5Pipeline.from_pretrained(tmp_path)
    ids = tokenizer("a red fox", return_tensors="pt")["input_ids"]
    assert again.tokenizer("a red fox")["input_ids"] == ids[0].tolist()
    with torch.no_grad():
        assert torch.equal(again.text_encoder(ids).last_hidden_state, encoder(ids).last_hidden_state)


def test_components_rebuild_the_pipeline(pipe):
    again = MiniGPT5Pipeline(**pipe.components)
    again.set_progress_bar_config(disable=True)
    # As everywhere in diffusers, settings that are no components start from the class's defaults.
    assert again.config.guidance_scale == 7.5 and again.config.num_inference_steps == 50
    given = {"guidance_scale": 2.5, "num_inference_steps": 2}
    assert same(paint(again, **given), paint(pipe))


def test_from_pipe_keeps_parts_and_settings(pipe):
    again = MiniGPT5Pipeline.from_pipe(pipe)
    assert all(again.components[name] is part for name, part in pipe.components.items())
    assert again.config.guidance_scale == 2.5 and again.config.num_inference_steps == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("how", ["from_pretrained", "to"])
def test_half_precision_runs(tiny_folder, pictures, dtype, how):
    if how == "to":
        pipe = MiniGPT5Pipeline.from_pretrained(tiny_folder).to(dtype)
    else:
        pipe = MiniGPT5Pipeline.from_pretrained(tiny_folder, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    assert {pipe.mapper.dtype, pipe.unet.dtype, pipe.vae.dtype} == {dtype}
    # Small, for the sake of fp16 convolutions on the CPU.
    size = {"height": 32, "width": 32, "num_inference_steps": 1}
    output = paint(pipe, "what is <ImageHere>?", images=pictures[0], output_type="pt", **size)
    assert output.images[0][0].dtype == torch.float32 and output.images[0][0].isfinite().all()


def test_parts_may_differ_in_precision(tiny_folder):
    pipe = MiniGPT5Pipeline.from_pretrained(tiny_folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.to(torch.bfloat16)
    assert paint(pipe, output_type="pt").images[0][0].isfinite().all()


def test_weights_load_in_fp32_by_default(tiny_folder):
    pipe = MiniGPT5Pipeline.from_pretrained(tiny_folder)
    assert {part.dtype for part in pipe.components.values() if isinstance(part, torch.nn.Module)} == {torch.float32}


# Memory


def test_attention_slicing_changes_nothing(pipe):
    whole = latents(pipe)
    pipe.enable_attention_slicing()
    try:
        assert torch.allclose(latents(pipe), whole, atol=1e-4)
    finally:
        pipe.disable_attention_slicing()


def test_offload_hooks_fire_for_every_part(tiny_folder, monkeypatch):
    pipe = MiniGPT5Pipeline.from_pretrained(tiny_folder)
    pipe.set_progress_bar_config(disable=True)
    order = []
    for name in pipe.model_cpu_offload_seq.split("->"):
        _, hook = cpu_offload_with_hook(getattr(pipe, name), torch.device("cpu"))
        inner, part = hook.hook.pre_forward, name

        def fire(module, *args, inner=inner, part=part, **kwargs):
            order.append(part)
            return inner(module, *args, **kwargs)

        monkeypatch.setattr(hook.hook, "pre_forward", fire)
    paint(pipe, output_type="pil")
    assert list(dict.fromkeys(order)) == ["comprehension", "mapper", "unet", "vae"]


def test_random_prompts_leave_the_parts_as_they_were(pipe):
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    rng = random.Random(0)
    paint(pipe, [f"a {rng.choice(['red', 'blue'])} fox" for _ in range(2)])
    assert all(torch.equal(value, before[name]) for name, value in pipe.unet.state_dict().items())
