"""Losses against cases worked by hand."""

from math import log

import pytest
import torch

from minigpt5.readers.processor import IGNORE_INDEX
from minigpt5.training.losses import caption_loss, drop_for_guidance, text_loss


def test_caption_loss_is_the_mean_squared_distance_in_fp32():
    mapped = torch.tensor([[[1.0, 2.0]]], dtype=torch.bfloat16)
    value = caption_loss({"prompt_embeds": mapped}, {"prompt_embeds": torch.tensor([[[3.0, 2.0]]])})
    assert value.item() == 2.0 and value.dtype == torch.float32


def test_caption_loss_adds_pooled_vectors_and_leaves_padding_out():
    told = {"prompt_embeds": torch.tensor([[[1.0], [9.0]], [[2.0], [4.0]]]), "mask": torch.tensor([[1, 0], [1, 1]])}
    mapped = {"prompt_embeds": torch.zeros(2, 2, 1)}
    assert caption_loss(mapped, told).item() == pytest.approx((1 + (4 + 16) / 2) / 2)
    mapped["pooled_prompt_embeds"], told["pooled_prompt_embeds"] = torch.zeros(2, 3), torch.full((2, 3), 2.0)
    assert caption_loss(mapped, told).item() == pytest.approx(5.5 + 4)


def test_a_caption_without_features_adds_nothing():
    told = {"prompt_embeds": torch.ones(2, 2, 1), "mask": torch.tensor([[1, 1], [0, 0]])}
    assert caption_loss({"prompt_embeds": torch.zeros(2, 2, 1)}, told).item() == 0.5


def test_processes_that_share_captions_of_unequal_length_have_the_loss_of_one():
    lengths, told = torch.tensor([2, 7, 4]), torch.randn(3, 8, 5)
    mask = (torch.arange(8) < lengths.unsqueeze(1)).long()

    def loss(rows):
        mapped = {"prompt_embeds": torch.zeros(len(told[rows]), 8, 5)}
        return caption_loss(mapped, {"prompt_embeds": told[rows], "mask": mask[rows]}).item()

    # Each counts its pictures over the mean count of both, see `share_of_batch`.
    assert loss(slice(3)) == pytest.approx((2 / 1.5 * loss(slice(2)) + 1 / 1.5 * loss(slice(2, 3))) / 2)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_guidance_dropout_drops_its_share(share):
    torch.manual_seed(0)
    dropped = drop_for_guidance(5000, share, "cpu")
    assert dropped.dtype == torch.bool and dropped.float().mean().item() == pytest.approx(share, abs=0.02)


def test_text_loss_is_the_mean_over_scored_tokens_and_asks_for_their_logits_alone():
    class Speaker:
        asked = 0

        def logits(self, hidden):
            self.asked += len(hidden)
            return hidden

    states = torch.tensor([[[0, log(2), 0], [9, 9, 0], [5, 0, 0]], [[0, 0, log(6)], [7, 7, 7], [7, 7, 7]]])
    labels = torch.tensor([[1, 1, IGNORE_INDEX], [0, 2, IGNORE_INDEX]])
    speaker = Speaker()
    # The first state of each row foretells the second label: 2 of 4, and 6 of 8.
    assert text_loss(speaker, states, labels, shared=False).item() == pytest.approx((log(2) + log(8 / 6)) / 2)
    assert speaker.asked == 2
