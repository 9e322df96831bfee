"""Arguments of their kind and in their range pass as plain Python; others are one error that names them."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from minigpt5.utils.checks import check_tensor, one_of, real_number, shown, some_text, whole_number, yes_or_no


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_whole_numbers_become_int(value):
    assert whole_number("steps", value, 1, 3) == 3 and type(whole_number("steps", value)) is int


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int8(1), Fraction(1, 2)])
def test_numbers_become_float(value):
    assert real_number("scale", value, 0, 1) == float(value) and type(real_number("scale", value)) is float


@pytest.mark.parametrize("value", [True, np.True_])
def test_truth_becomes_bool(value):
    assert yes_or_no("sample", value) is True


@pytest.mark.parametrize(
    "value", [True, np.True_, 3.0, "3", None, [3], 1j, float("nan"), np.array([3]), torch.tensor(3)]
)
def test_what_is_no_whole_number(value):
    with pytest.raises(TypeError, match=f"steps must be a whole number, got {type(value).__name__}"):
        whole_number("steps", value)


@pytest.mark.parametrize("value", [True, "1.0", None, 1j, [1.0], torch.tensor(1.0)])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match=f"scale must be a number, got {type(value).__name__}"):
        real_number("scale", value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float16("nan"), 10**999])
def test_numbers_that_are_not_finite(value):
    with pytest.raises(ValueError, match="scale must be a finite number"):
        real_number("scale", value)


@pytest.mark.parametrize(("value", "says"), [(0, "at least 1, got 0"), (10**999, "at most 9, got an int")])
def test_out_of_range(value, says):
    with pytest.raises(ValueError, match=f"steps must be {says}"):
        whole_number("steps", value, 1, 9)
    if value < 9:
        with pytest.raises(ValueError, match=f"steps must be {says}"):
            real_number("steps", value, 1, 9)


@pytest.mark.parametrize("value", [1, 0, "yes", None])
def test_only_bools_are_true_or_false(value):
    with pytest.raises(TypeError, match="sample must be True or False"):
        yes_or_no("sample", value)


def test_words():
    assert one_of("mode", "auto", ("auto", "never")) == "auto"
    with pytest.raises(ValueError, match="mode must be one of auto, never, got 'always'"):
        one_of("mode", "always", ("auto", "never"))
    with pytest.raises(TypeError, match="mode must be one of auto, never, got ndarray"):
        one_of("mode", np.array(["auto", "never"]), ("auto", "never"))


def test_texts():
    assert some_text("prompt", "a\0b 狐") == "a\0b 狐"
    with pytest.raises(TypeError, match="prompt must be a string, got bytes"):
        some_text("prompt", b"a")
    with pytest.raises(ValueError, match="surrogate pair stands at character 2"):
        some_text("prompt", "a \udc80")


def test_tensors():
    good = torch.zeros(2, dtype=torch.float16)
    assert check_tensor("latents", good) is good
    for bad in ([0.0], torch.zeros(2, dtype=torch.long), good.to_sparse(), good.to("meta"), good.to(torch.complex64)):
        with pytest.raises(TypeError, match="latents must be a"):
            check_tensor("latents", bad)
    with pytest.raises(ValueError, match="latents must be finite"):
        check_tensor("latents", torch.tensor([float("nan")]))


def test_values_are_shown_if_they_are_short():
    assert shown("a") == "'a'" and shown("a" * 99) == "a str" and shown([1]) == "a list" and shown(10**9999) == "an int"
