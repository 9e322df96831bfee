"""Boxes as text, and their overlap."""

import pytest

from minigpt5.utils.boxes import format_box, iou, parse_box


def test_overlap_of_boxes_by_hand():
    assert iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1
    assert iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0 == iou((1, 1, 0, 0), (0, 0, 1, 1))


def test_a_box_is_written_in_hundredths():
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
        ("{<1><20><100>}", None),
        ("(10,200)", None),
        ("", None),
    ],
)
def test_the_first_box_of_a_text_is_read_in_either_form(text, box):
    assert parse_box(text) == box
