"""Any arguments of the call and of the stream give a reply, or one error of our own, where they are none."""

import math
import numbers
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minigpt5.story import tell_story
from minigpt5.vokens.decoding import LAYOUT

HUGE = (2**31, 2**63, 10**30, -(2**63), 10**4000)
ODD = (
    *(True, False, 0, 1, -1, 2, 3, 7, *HUGE, 0.0, -0.0, 0.5, 1.0, 3.0, -1.0, 1e-300, 1e300),
    *(
        math.nan,
        math.inf,
        -math.inf,
        1j,
        Fraction(1, 2),
        "",
        "3",
        "pil",
        "auto",
        "é",
        "\ud800",
        b"",
        b"1",
        [],
        [1],
        (),
        {},
    ),
    *(
        np.int64(2),
        np.float32(0.5),
        np.bool_(True),
        np.float64("nan"),
        np.array(1),
        np.array([1, 2]),
        object(),
        int,
    ),
    *(torch.tensor(1), torch.tensor([1.0]), torch.Generator(), [None], [torch.Generator()], {"latents": 1}),
)
SIDE, CONTEXT = 16, 1024


def whole(least, most):
    def valid(value):
        kind = isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_))
        return kind and least <= value <= most

    return valid


def real(least, most):
    def valid(value):
        if not isinstance(value, numbers.Real) or isinstance(value, (bool, np.bool_)):
            return False
        return not (isinstance(value, int) and abs(value) > 1e9) and least <= float(value) <= most

    return valid


def one_of(*words):
    return lambda value: isinstance(value, str) and value in words


def yes_or_no(value):
    return isinstance(value, (bool, np.bool_))


def size(value):
    return whole(1, 8 * SIDE)(value) and value % 8 == 0


def generators(value):
    """Of one prompt."""
    own = value if isinstance(value, (list, tuple)) else [value]
    return len(own) == 1 and isinstance(own[0], torch.Generator)


# Of each argument: what it takes beside `None`, and values that are of the kind.
SPEAKING = {
    "max_new_tokens": (whole(1, CONTEXT), st.integers(1, 4)),
    "do_sample": (yes_or_no, st.booleans()),
    "temperature": (real(1e-6, 1e6), st.floats(1e-6, 1e6)),
    "top_k": (whole(0, 10**4000), st.integers(0, 600)),
    "top_p": (real(1e-9, 1), st.floats(1e-9, 1)),
    "repetition_penalty": (real(1e-3, 1e3), st.floats(1e-3, 1e3)),
    "image_mode": (one_of("auto", "always", "never"), st.sampled_from(("auto", "always", "never"))),
    "max_images": (whole(0, 10**4000), st.integers(0, 2)),
    "suppress_marks": (yes_or_no, st.booleans()),
    "num_inference_steps": (whole(1, 1000), st.integers(1, 3)),
    "guidance_scale": (real(0, 100), st.floats(0, 100)),
    "height": (size, st.integers(1, 4).map(lambda count: 8 * count)),
    "width": (size, st.integers(1, 4).map(lambda count: 8 * count)),
    "generator": (generators, st.builds(torch.Generator)),
    "output_type": (
        one_of("pil", "np", "pt", "latent"),
        st.sampled_from(("pil", "np", "pt", "latent")),
    ),
}
CALLING = SPEAKING | {"return_dict": (yes_or_no, st.booleans())}
# For these `None` is no way to leave them out.
NEEDED = {"output_type", "return_dict"}


def arguments(table):
    """Some arguments, most of them as they should be, and the names of those that are not."""

    def draw(name):
        _, good = table[name]
        return good | good | st.sampled_from(ODD) | st.none()

    def with_wrong(given):
        wrong = [
            name for name, value in given.items() if (name in NEEDED if value is None else not table[name][0](value))
        ]
        # A model that may paint nothing cannot always paint.
        if one_of("always")(given.get("image_mode")) and whole(0, 0)(given.get("max_images")):
            wrong.append("max_images")
        return given, wrong

    return st.fixed_dictionaries({}, optional={name: draw(name) for name in table}).map(with_wrong)


def check(clear_errors, reply, given, wrong):
    with clear_errors() as caught:
        result = reply()
    if caught:
        assert wrong, f"refused, although all is well: {caught[0]!r} for {given}"
        return None
    assert not wrong, f"{wrong} of {given} should have been refused"
    return result


@given(arguments(CALLING))
def test_any_arguments_of_the_call(small_pipe, clear_errors, given_and_wrong):
    given, wrong = given_and_wrong
    options = {"max_new_tokens": 2, "num_inference_steps": 1} | given
    reply = check(clear_errors, lambda: small_pipe("a fox", **options), given, wrong)
    if reply is None:
        return
    text, images, segments = reply if isinstance(reply, tuple) else (reply.text, reply.images, reply.segments)
    assert text[0] == text[0].strip(LAYOUT) and len(images) == len(segments) == 1
    height, width = (options.get(side) or SIDE for side in ("height", "width"))
    for picture in images[0]:
        if options.get("output_type", "pil") == "pil":
            assert picture.size == (width, height)
        else:
            assert torch.as_tensor(picture).isfinite().all()


@given(arguments(SPEAKING))
def test_any_arguments_of_the_stream(small_pipe, clear_errors, given_and_wrong):
    given, wrong = given_and_wrong
    options = {"max_new_tokens": 2, "num_inference_steps": 1} | given
    # What is wrong is said at once, not when the first word is asked for.
    events = check(clear_errors, lambda: small_pipe.stream("a fox", **options), given, wrong)
    if events is not None:
        assert all(event.row == 0 for event in events)


LATENTS = st.builds(
    lambda dtype, shape, value: torch.full(shape, value, dtype=torch.float64).to(dtype),
    st.sampled_from((torch.float32, torch.float64, torch.float16, torch.long, torch.bool, torch.complex64)),
    st.sampled_from(((1, 4, 8, 8), (2, 4, 8, 8), (1, 3, 8, 8), (1, 4, 8, 7), (4, 8, 8), (0, 4, 8, 8), ())),
    st.sampled_from((0.0, 1.0, -3.5, math.nan, math.inf)),
)


@given(latents=LATENTS | st.sampled_from(ODD))
def test_any_latents(small_pipe, clear_errors, latents):
    valid = isinstance(latents, torch.Tensor) and latents.is_floating_point() and latents.shape == (1, 4, 8, 8)
    wrong = [] if valid and latents.isfinite().all() else ["latents"]
    options = {"image_mode": "always", "max_images": 1, "max_new_tokens": 2, "num_inference_steps": 1}
    check(clear_errors, lambda: small_pipe("a fox", latents=latents, **options), latents, wrong)


@given(returned=st.sampled_from(ODD) | LATENTS.map(lambda tensor: {"latents": tensor}), named=st.sampled_from(ODD))
def test_any_callback(small_pipe, clear_errors, returned, named):
    options = {"image_mode": "always", "max_images": 1, "max_new_tokens": 2, "num_inference_steps": 1}

    def reply(**callback):
        return small_pipe("a fox", output_type="latent", **options, **callback)

    latents = returned.get("latents") if isinstance(returned, dict) else None
    valid = isinstance(latents, torch.Tensor) and latents.dtype == torch.float32 and latents.shape == (1, 4, 8, 8)
    valid = (valid and bool(latents.isfinite().all())) or (isinstance(returned, dict) and not returned)
    check(
        clear_errors, lambda: reply(callback_on_step_end=lambda *_: returned), returned, [] if valid else ["callback"]
    )
    if not callable(named):
        check(clear_errors, lambda: reply(callback_on_step_end=named), named, ["callback_on_step_end"])
    names = isinstance(named, (list, tuple)) and set(named) <= {"latents", "prompt_embeds", "negative_prompt_embeds"}
    check(
        clear_errors,
        lambda: reply(callback_on_step_end=lambda *given: given[-1], callback_on_step_end_tensor_inputs=named),
        named,
        [] if names else ["callback_on_step_end_tensor_inputs"],
    )


@pytest.mark.parametrize("name", ["prompt", "images", "prompt_cache"])
@given(value=st.sampled_from(ODD) | st.lists(st.sampled_from(ODD), min_size=1, max_size=3))
def test_any_value_for_a_prompt_or_its_pictures(small_pipe, clear_errors, name, value):
    options = {"prompt": "a fox", "max_new_tokens": 1, "image_mode": "never"}
    with clear_errors():
        small_pipe(**options | {name: value})


OPTIONS = (
    *(
        "add_special_tokens",
        "padding",
        "truncation",
        "max_length",
        "pad_to_multiple_of",
        "padding_side",
        "return_tensors",
    ),
    *(
        "return_attention_mask",
        "text_kwargs",
        "images_kwargs",
        "size",
        "crop_size",
        "resample",
        "do_resize",
        "do_rescale",
    ),
    *(
        "rescale_factor",
        "do_normalize",
        "image_mean",
        "image_std",
        "do_convert_rgb",
        "do_center_crop",
        "do_pad",
        "pad_size",
    ),
    *("data_format", "input_data_format", "default_to_square", "device", "disable_grouping", "nonsense"),
)
GOOD = (
    "longest",
    "max_length",
    "left",
    "right",
    "pt",
    "np",
    8,
    16,
    {"height": 8, "width": 6},
    {"size": 9},
    "channels_first",
)


@given(options=st.dictionaries(st.sampled_from(OPTIONS), st.sampled_from(ODD + GOOD), max_size=3))
def test_any_options_of_the_processor(small_pipe, clear_errors, options):
    picture = Image.new("RGB", (20, 30), "red")
    with clear_errors():
        batch = small_pipe.processor(["a <ImageHere>", "a fox"], [picture, None], **options)
        assert len(batch["input_ids"]) == 2 and len(batch["pixel_values"]) == 1
        assert all(torch.as_tensor(pixels).isfinite().all() for pixels in batch["pixel_values"])


TELLING = {"do_sample", "temperature", "guidance_scale", "num_inference_steps", "max_new_tokens", "height", "width"}


@given(
    given_and_wrong=arguments({name: SPEAKING[name] for name in sorted(TELLING)}),
    steps=st.sampled_from(ODD),
    seed=st.sampled_from(ODD),
)
def test_any_arguments_of_a_story(small_pipe, clear_errors, given_and_wrong, steps, seed):
    given, wrong = given_and_wrong
    wrong = wrong + ["steps"] * (not whole(1, 1000)(steps)) + ["seed"] * (not whole(0, 2**64 - 1)(seed))
    options = {"num_inference_steps": 1} | given

    def tell():
        told = tell_story(small_pipe, "a fox", steps=steps, seed=seed, **options)
        return next(told)

    step = check(clear_errors, tell, given | {"steps": steps, "seed": seed}, wrong)
    assert step is None or (step.index, step.text) == (1, "a fox")


@given(
    asked=st.lists(st.sampled_from(("a fox", "Who? <ImageHere>", "<ImageHere>", *ODD)), min_size=1, max_size=3),
    count=st.integers(0, 2),
)
def test_any_turns_of_a_chat(small_pipe, clear_errors, asked, count):
    chat = small_pipe.chat()
    pictures = [Image.new("RGB", (9, 9), "blue")] * count
    for turn in asked:
        before = list(chat.messages)
        with clear_errors() as refused:
            chat.reply(turn, pictures, max_new_tokens=2, num_inference_steps=1)
        # What is refused is forgotten; what is answered is remembered with its answer.
        assert chat.messages == before if refused else len(chat.messages) == len(before) + 2
