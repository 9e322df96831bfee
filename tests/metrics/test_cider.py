"""CIDEr against cases worked by hand."""

from math import exp, sqrt

import numpy as np
import pytest

from minigpt5.metrics import Cider

pytest.importorskip("nltk", reason="nltk is in the extra minigpt5[eval]")


def test_cider_is_that_by_hand():
    cider = Cider()
    cider.update(["A red fox.", "a blue dog"], ["a red fox", "a blue cat"])
    # Both captions have "a", so it weighs nothing; all else weighs log 2. The first is right in one, two and three
    # words and has no four. The second has one word of two right and one pair of two, and no three.
    assert cider.items[:, 0].tolist() == pytest.approx([10 * 3 / 4, 10 * (1 / 2 + 1 / 2) / 4])
    assert cider.compute()["cider"].item() == pytest.approx(5)


def test_words_said_too_often_add_nothing_and_length_is_punished():
    cider = Cider()
    cider.update(["red red fox", "blue cat"], ["red fox", "blue cat"])
    # Weights (2, 1) and (1, 1), of which (1, 1) is common; "red fox" beside "red red"; one pair too many.
    wanted = 10 * (2 / (sqrt(5) * sqrt(2)) + 1 / sqrt(2)) / 4 * exp(-1 / (2 * 36))
    assert cider.items[:, 0].tolist() == pytest.approx([wanted, 10 * 2 / 4])


def test_several_captions_are_averaged_over():
    cider = Cider()
    cider.update(["red fox", "blue cat"], [["red fox", "green bear"], "blue cat"])
    assert cider.items[:, 0].tolist() == pytest.approx([10 * 2 / 4 / 2, 10 * 2 / 4])


def test_an_empty_text_and_a_single_picture_count_as_nothing():
    cider = Cider()
    cider.update(["a fox"], ["a fox"])
    assert cider.items.tolist() == [[0]]
    cider.update([""], ["a cat"])
    # "a" is in both, and of "a fox" one word of one and one pair of one are right.
    assert cider.items[:, 0].tolist() == pytest.approx([10 * 2 / 4, 0])


def test_weights_are_of_all_instances():
    texts, truths = ["a red fox", "a blue dog", "the sun"], ["a red fox", "a blue cat", ["the sun", "a moon"]]
    one, other, whole = Cider(), Cider(), Cider()
    one.update(texts[:2], truths[:2])
    other.update(texts[2:], truths[2:])
    whole.update(texts, truths)
    one.merge_state(other)
    np.testing.assert_allclose(one.items, whole.items)
    assert len(Cider().items) == 0
