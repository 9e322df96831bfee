"""Boxes as text, and their overlap."""

import pytest

from minigpt5.utils.boxes import format_box, iou, parse_box, same_thing


def test_overlap_of_boxes_by_hand():
    assert iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1
    assert iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0 == iou((1, 1, 0, 0), (0, 0, 1, 1))


def test_an_overlap_of_a_half_counts_whatever_rounding_makes_of_it():
    halves = [((67, 77, 74, 83), (67, 77, 74, 89)), ((0, 0, 50, 30), (0, 0, 100, 30)), ((3, 7, 10, 9), (3, 7, 10, 11))]
    for pair in halves:
        one, other = (tuple(value / 100 for value in box) for box in pair)
        assert same_thing(one, other) and iou(one, other) == pytest.approx(0.5)
    assert not same_thing((0, 0, 0.499, 1), (0, 0, 1, 1))


def test_a_box_is_written_in_hundredths():
    assert format_box((-0.01, 0, 1.2, 1)) == "{<0><0><100><100>}"
    assert format_box((0.014, 0.2, 1, 0.456)) == "{<1><20><100><46>}"
    assert parse_box(format_box((0.01, 0.2, 1, 0.45))) == (0.01, 0.2, 1.0, 0.45)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("It is at {<1><20><100><45>}.", (0.01, 0.2, 1.0, 0.45)),
        ("{ <1> <20> <100> <45> }", (0.01, 0.2, 1.0, 0.45)),
        ("<ref>the fox</ref><box>(10,200),(1000,450)</box>", (0.01, 0.2, 1.0, 0.45)),
        ("(10, 200), (1000, 450)", (0.01, 0.2, 1.0, 0.45)),
        ("{<1><2><3><4>} or (500,600),(700,800)", (0.01, 0.02, 0.03, 0.04)),
        ("It is at [0.01, 0.20, 1.00, 0.45].", (0.01, 0.2, 1.0, 0.45)),
        ("[[010,200,1000,450]]", (0.01, 0.2, 1.0, 0.45)),
        ("<box>(10,200)(1000,450)</box>", (0.01, 0.2, 1.0, 0.45)),
        ("{<1.5><20><100><45>}", (0.015, 0.2, 1.0, 0.45)),
        ("{<-1><20><105><45>}", (0.0, 0.2, 1.0, 0.45)),
        ("He reigned (1990, 2000), (2001, 2002).", None),
        ("(500,200),(100,450)", None),
        ("[1, 2, 3, 4]", None),
        ("[0, 0, 1, 1]", None),
        ("[1.5, 2.5, 3.5, 4.5] and [0.1, 0.2, 0.3, 0.4]", (0.1, 0.2, 0.3, 0.4)),
        ("[[0, 1, 1, 2000]]", None),
        ("{<1><20><100>}", None),
        ("(10,200)", None),
        ("", None),
    ],
)
def test_the_first_box_of_a_text_is_read_in_any_form(text, box):
    assert parse_box(text) == box
