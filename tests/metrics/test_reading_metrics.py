"""Answers, boxes and StoryWorld's marks against cases worked by hand."""

import pytest

from minigpt5.metrics import AnswerAccuracy, ExactMatch, GroundingAccuracy, VQAAccuracy
from minigpt5.metrics.reading import normalise_answer


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Yes.", "yes"),
        ("The  cat\n", "cat"),
        ("a dog and an apple", "dog and apple"),
        ("Two", "2"),
        ("none", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("yall'll", "y'all'll"),
        ("It's 3.5 m.", "it's 3.5 m"),
        # Between letters a mark parts words; beside a space it goes, and so do all where digits have a comma.
        ("black/white", "black white"),
        ("black, white", "black white"),
        ("t-shirt", "t shirt"),
        ("1,000", "1000"),
        ("1,000 t-shirts", "1000 tshirts"),
        ("Yes!", "yes"),
        ("", ""),
    ],
)
def test_answers_are_normalised_as_vqa_does(text, plain):
    assert normalise_answer(text) == plain


def test_vqa_accuracy_is_the_mean_over_nine_of_ten():
    metric = VQAAccuracy()
    few = ["red"] * 2 + ["blue"] * 8
    metric.update(["Red.", "blue", "green", "2"], [few, few, few, ["two"] * 10])
    # Two said red: left out in turn, 2 of 10 choices have one of them, 1/3, and 8 have both, 2/3.
    assert metric.items[:, 0].tolist() == pytest.approx([(2 / 3 + 8 * 2 / 3) / 10, 1, 0, 1])
    # Three: 3 of 10 choices have two of them, 7 have three.
    metric.reset()
    metric.update(["red"], [["red"] * 3 + ["blue"] * 7])
    assert metric.compute()["vqa_accuracy"].item() == pytest.approx((3 * 2 / 3 + 7) / 10)
    with pytest.raises(ValueError, match="takes two, got 1"):
        metric.update(["red"], [["red"]])


def test_an_exact_match_is_with_what_most_people_said():
    metric = ExactMatch()
    metric.update(["The Red.", "blue", "red"], [["red", "Red", "blue"], ["red", "red", "blue"], ["blue", "red"]])
    assert metric.items[:, 0].tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="no answer"):
        metric.update(["red"], [[]])


def test_grounding_counts_boxes_that_overlap_by_half():
    metric = GroundingAccuracy()
    box = (0.0, 0.0, 0.5, 1.0)
    # The same; half of it, an IoU of 0.5; a third in common, (0.25, 0.75) by it; no box.
    metric.update(["{<0><0><50><100>}", "(0,0),(250,1000)", "{<25><0><75><100>}", "left"], [box] * 4)
    assert metric.items[:, 1].tolist() == pytest.approx([1, 0.5, 1 / 3, 0])
    figures = metric.compute()
    assert figures["grounding_accuracy"].item() == 0.5 and figures["box_share"].item() == 0.75
    assert figures["mean_iou"].item() == pytest.approx((1 + 0.5 + 1 / 3) / 4)


def test_storyworld_s_answers_are_right_by_what_they_mean():
    metric = AnswerAccuracy()
    metric.update(
        ["red", "blue, I think", "two of them", "{<10><10><50><50>}"],
        ["colour", "colour", "count", "ground"],
        ["The fox is red.", "The fox is red.", "Two.", "{<10><10><48><52>}"],
    )
    assert metric.items[:, 0].tolist() == [1, 0, 1, 1]
