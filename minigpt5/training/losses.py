"""What both stages of MiniGPT-5 share (arXiv 2310.02239, section 3.3); L_LDM is the painter's, `painters/family.py`."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from minigpt5.readers import Reader
from minigpt5.readers.processor import IGNORE_INDEX
from minigpt5.utils.processes import share_of_batch


def text_loss(reader: Reader, states: torch.Tensor, labels: torch.Tensor, shared: bool) -> torch.Tensor:
    """L_text: cross-entropy of the scored tokens. Of the states before others no logits are made.

    Args:
        states: the last layer's, `(batch, length, hidden)`.
        labels: `(batch, length)`, the tokens themselves or `IGNORE_INDEX`.
        shared: whether the batch is a process's share, so that the mean over the processes has to be that over all
            their tokens.
    """
    following = labels[:, 1:]
    scored = following != IGNORE_INDEX
    loss = cross_entropy(reader.logits(states[:, :-1][scored]), following[scored])
    return loss * share_of_batch(int(scored.sum())) if shared else loss


def caption_loss(mapped: dict[str, torch.Tensor], text_features: dict[str, torch.Tensor]) -> torch.Tensor:
    """L_CAP, equation 7: squared distance of mapped voken features to the text encoder's features of the caption.

    Args:
        mapped: what a connector makes: `prompt_embeds` `(pictures, text_length, text_dim)`, and pooled vectors
            `(pictures, pooled_dim)` of painters that want them; the errors of all are added.
        text_features: the same of the captions, and perhaps a `mask` `(pictures, text_length)`; where it is 0 there is
            nothing to aim at. Pictures count alike, however long their captions are.
    """
    total = torch.zeros((), device=mapped["prompt_embeds"].device)
    for name, made in mapped.items():
        error = (made.float() - text_features[name].float()).square()
        if made.ndim == 3 and "mask" in text_features:
            mask = text_features["mask"]
            total = total + ((error.mean(-1) * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()
        else:
            total = total + error.mean()
    return total


def drop_for_guidance(count: int, share: float, device: torch.device | str) -> torch.Tensor:
    """Which of `count` pictures train the unconditional half: a bool mask `(count,)`, each true with chance `share`."""
    return torch.rand(count, device=device) < share
