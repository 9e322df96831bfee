"""MM-Relevance in both definitions, worked by hand with vectors that are known, and the decision to paint."""

import pytest
import torch
from PIL import Image
from torch import nn
from torchmetrics.classification import BinaryF1Score, BinaryPrecision, BinaryRecall

from minigpt5.metrics import ClipTextSimilarity, MMRelevanceMMDialog, MMRelevancePerTurn, PictureDecision


class Compass(nn.Module):
    """Texts name an angle in degrees; pictures have it as their red value."""

    def encode_texts(self, texts):
        angles = torch.tensor([float(text) for text in texts]).deg2rad()
        return torch.stack([angles.cos(), angles.sin()], dim=1)

    def encode_pictures(self, pictures):
        return self.encode_texts([picture.getpixel((0, 0))[0] for picture in pictures])


def picture(angle):
    return Image.new("RGB", (4, 4), (angle, 0, 0))


HALF, ROOT = 0.5, 3**0.5 / 2  # cosines of 60 and 30 degrees


def figures(metric):
    return [value.item() for value in metric.compute().values()]


def test_mmdialog_pairs_elements_in_order_across_modalities():
    metric = MMRelevanceMMDialog(Compass())
    # 0° with 60°, text with picture; the picture of 90° with the text of 60°; the reply's third element is left over.
    metric.update([["0", picture(90), "0"]], [[picture(60), "60"]])
    total = 100 * (HALF + ROOT)
    precision, recall = total / 3, total / 2
    wanted = [2 * precision * recall / (precision + recall), precision, recall]
    assert figures(metric) == pytest.approx(wanted, rel=1e-6)


def test_mmdialog_counts_an_empty_reply_as_nothing():
    metric = MMRelevanceMMDialog(Compass())
    metric.update([[], ["0"]], [["0"], ["0"]])
    assert figures(metric) == pytest.approx([50, 50, 50])
    with pytest.raises(ValueError, match="no element"):
        metric.update([["0"]], [[]])


def test_turns_are_compared_by_modality_and_misses_count():
    metric = MMRelevancePerTurn(Compass())
    dialogue = [("0", picture(30)), ("60", None), ("...", picture(0))]
    truth = [("60", picture(30)), ("60", picture(0)), ("0", None)]
    metric.update([dialogue], [truth])
    # Texts 0°/60° and 60°/60°, pictures 30°/30°; the truth's second picture and third text are missed, and the reply's
    # third picture is one too many. Three dots are no text.
    total = HALF + 1 + 1
    precision, recall = total / 4, total / 5
    wanted = [2 * precision * recall / (precision + recall), precision, recall]
    assert figures(metric) == pytest.approx(wanted, rel=1e-6)


def test_a_dialogue_without_a_pair_has_no_relevance():
    metric = MMRelevancePerTurn(Compass())
    metric.update([[("", picture(0))], [("0", None)]], [[("0", None)], [("0", None)]])
    assert figures(metric) == pytest.approx([0.5, 0.5, 0.5])


def test_the_two_definitions_differ_and_are_named_apart():
    dialog, turn = MMRelevanceMMDialog(Compass()), MMRelevancePerTurn(Compass())
    dialog.update([["0", picture(60)]], [[picture(60), "0"]])
    turn.update([[("0", picture(60))]], [[("0", picture(60))]])
    assert figures(dialog)[0] == pytest.approx(50) and figures(turn)[0] == pytest.approx(1)
    assert not set(dialog.compute()) & set(turn.compute())


def test_a_real_clip_may_be_the_encoder(clip_encoder, renders):
    metric, clip_t = MMRelevanceMMDialog(clip_encoder), ClipTextSimilarity(clip_encoder)
    metric.update([[renders[0]]], [["a fox"]])
    clip_t.update([renders[0]], ["a fox"])
    assert figures(metric)[0] == pytest.approx(100 * clip_t.compute()["clip_t"].item(), rel=1e-5)


def test_dialogues_add_up_over_batches_and_instances(accumulates):
    replies = [["0", picture(angle)] for angle in range(0, 70, 10)]
    truths = [[str(angle)] for angle in range(30, 100, 10)]
    accumulates(lambda: MMRelevanceMMDialog(Compass()), replies, truths)
    turns = [[("0", None), ("1", picture(angle))] for angle in range(0, 70, 10)]
    true_turns = [[(str(angle), None), ("", picture(angle))] for angle in range(30, 100, 10)]
    accumulates(lambda: MMRelevancePerTurn(Compass()), turns, true_turns)


def test_a_dialogue_has_as_many_turns_as_its_truth():
    with pytest.raises(ValueError, match="1 turns but 2 true turns"):
        MMRelevancePerTurn(Compass()).update([[("0", None)]], [[("0", None), ("0", None)]])


PAINTED = [True, True, True, False, False, False, False]
WANTED = [True, False, True, True, False, False, True]


def test_the_decision_to_paint_is_marked_as_torchmetrics_does(accumulates):
    done = accumulates(PictureDecision, PAINTED, WANTED).figures
    for name, theirs in (("f1", BinaryF1Score()), ("precision", BinaryPrecision()), ("recall", BinaryRecall())):
        assert done[f"picture_{name}"] == pytest.approx(theirs(torch.tensor(PAINTED), torch.tensor(WANTED)).item())
    assert done["picture_accuracy"] == 4 / 7


def test_who_never_paints_has_no_precision():
    metric = PictureDecision()
    metric.update([False, False], [True, False])
    assert figures(metric) == [0, 0, 0, 0.5]
