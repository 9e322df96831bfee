"""Baselines: the pipeline's call, and each baseline's own way to a picture."""

import pytest
import torch

from minigpt5 import MiniGPT5Pipeline
from minigpt5.evaluation.baselines import GILL, Divter, TwoStage, ZeroShotDiffusion, last_text
from minigpt5.readers.prompts import Example
from minigpt5.storyworld import miniature


@pytest.fixture(scope="module")
def whole(tiny_pipe, texts):
    """The tiny pipeline with a text encoder."""
    torch.manual_seed(1)
    tokenizer = miniature.build_tokenizer(texts, lowercase=True, max_length=miniature.TEXT_LENGTH)
    parts = tiny_pipe.components | {
        "tokenizer": tokenizer,
        "text_encoder": miniature.build_text_encoder(tokenizer).eval(),
    }
    pipe = MiniGPT5Pipeline(**parts, guidance_scale=2.5, num_inference_steps=2)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


def latents(output):
    return [picture for row in output.images for picture in row]


CHAT = [
    {"role": "user", "content": [{"type": "text", "text": "It was night."}]},
    {"role": "user", "content": [{"type": "text", "text": "Draw this:"}, {"type": "text", "text": "a red fox"}]},
]


def test_the_caption_is_the_last_text_of_a_prompt():
    assert last_text("a cat <ImageHere> a red fox") == "a red fox"
    assert last_text("a red fox <ImageHere>") == "a red fox"
    assert last_text(CHAT) == "a red fox"
    assert last_text([{"role": "user", "content": "a red fox"}]) == "a red fox"
    assert last_text(Example(["Generate an image: a red fox ###Assistant:"], [], caption="a red fox")) == "a red fox"
    with pytest.raises(ValueError, match="no text"):
        last_text([{"role": "user", "content": [{"type": "image"}]}])


def test_zero_shot_diffusion_paints_the_last_text_whatever_stands_before_it(whole, pictures):
    system = ZeroShotDiffusion(whole)
    alone = system("a red fox", generator=seeds(3), output_type="latent")
    context = system(CHAT, generator=seeds(3), output_type="latent", image_mode="always", max_new_tokens=5)
    assert torch.equal(latents(alone)[0], latents(context)[0])
    assert alone.text == [""] and [len(row) for row in alone.segments] == [1]


def test_zero_shot_diffusion_takes_steps_and_guidance_of_the_pipeline_unless_told(whole, count_calls):
    calls = count_calls(whole.unet)
    ZeroShotDiffusion(whole)(["a red fox", "a cat"])
    assert [args[0].shape[0] for args, _ in calls] == [4, 4]
    ZeroShotDiffusion(whole)("a red fox", num_inference_steps=3, guidance_scale=1.0)
    assert [args[0].shape[0] for args, _ in calls[2:]] == [1, 1, 1]


def test_fine_tuned_diffusion_is_the_same_with_another_unet(whole, count_calls):
    torch.manual_seed(2)
    tuned = miniature.build_unet().eval()
    own, other = count_calls(whole.unet), count_calls(tuned)
    ZeroShotDiffusion(whole, unet=tuned)("a red fox")
    assert (len(own), len(other)) == (0, 2)


def test_an_unknown_option_is_refused(whole):
    with pytest.raises(TypeError, match="sharpness"):
        ZeroShotDiffusion(whole)("a red fox", sharpness=2)


def test_baselines_need_the_text_encoder(tiny_pipe):
    for build in (ZeroShotDiffusion, TwoStage, Divter, GILL.around):
        with pytest.raises(ValueError, match="text encoder"):
            build(tiny_pipe)


def test_two_stage_paints_what_it_said_and_nothing_else(whole, script):
    script(["a red fox"], ["a blue cat"])
    reply = TwoStage(whole)(["go on", "and then?"], generator=seeds(3, 4), output_type="latent", image_mode="always")
    assert reply.text == ["a red fox", "a blue cat"]
    alone = ZeroShotDiffusion(whole)(reply.text, generator=seeds(3, 4), output_type="latent")
    assert all(map(torch.equal, latents(reply), latents(alone)))
    assert [segments[0] for segments in reply.segments] == reply.text


def test_two_stage_paints_nothing_where_pictures_are_off(whole, script, count_calls):
    script(["a red fox"])
    calls = count_calls(whole.unet)
    assert TwoStage(whole)("go on", image_mode="never").segments == [["a red fox"]]
    assert not calls


def test_gill_swaps_the_mapper_and_guides_away_from_the_empty_caption(whole, script, tiny_processor):
    torch.manual_seed(5)
    mapper = miniature.build_mapper().eval()
    gill = GILL.around(whole, mapper)
    assert gill.mapper is mapper and gill.unet is whole.unet and gill.config.guidance_scale == 2.5
    empty = whole.tokenizer([""], padding="max_length", max_length=miniature.TEXT_LENGTH, return_tensors="pt")
    with torch.no_grad():
        expected = whole.text_encoder(empty.input_ids).last_hidden_state
    torch.testing.assert_close(gill.null_embeds(), expected)

    seen = {}

    def look(pipe, step, timestep, tensors):
        return seen.update(tensors) or {}

    script(["a fox", tiny_processor.voken_ids[0]])
    reply = gill(
        "go on",
        callback_on_step_end=look,
        callback_on_step_end_tensor_inputs=["prompt_embeds", "negative_prompt_embeds"],
        max_new_tokens=30,
    )
    assert [type(part).__name__ for part in reply.segments[0]] == ["str", "Image"]
    torch.testing.assert_close(seen["negative_prompt_embeds"], expected)


def test_gill_paints_only_where_the_language_model_says_so(whole, script):
    script(["a fox"])
    assert GILL.around(whole)("go on", max_new_tokens=30).segments == [["a fox"]]


def test_divter_paints_the_description_behind_the_mark(whole, script):
    script(["here it is [DST] a red fox"], ["no picture"], ["[DST] a blue cat"])
    reply = Divter(whole)(
        ["show it", "and you?", "draw"], generator=seeds(3, 4, 5), max_new_tokens=60, output_type="latent"
    )
    assert reply.text == ["here it is", "no picture", ""]
    assert [len(row) for row in reply.images] == [1, 0, 1]
    alone = ZeroShotDiffusion(whole)(["a red fox", "a blue cat"], generator=seeds(3, 5), output_type="latent")
    assert all(map(torch.equal, latents(reply), latents(alone)))


def test_divter_paints_its_text_where_a_picture_is_owed(whole, script):
    script(["a red fox"])
    reply = Divter(whole)("show it", image_mode="always", generator=seeds(3), output_type="latent", max_new_tokens=60)
    alone = ZeroShotDiffusion(whole)("a red fox", generator=seeds(3), output_type="latent")
    assert reply.text == ["a red fox"] and torch.equal(latents(reply)[0], latents(alone)[0])


def test_divter_keeps_descriptions_to_itself_where_pictures_are_off(whole, script, count_calls):
    script(["here [DST] a red fox"])
    calls = count_calls(whole.unet)
    reply = Divter(whole)("show it", image_mode="never", max_new_tokens=60)
    assert reply.segments == [["here"]] and not calls
