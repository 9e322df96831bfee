"""MiniGPT-4: a linear projection is all that is trained between a frozen Q-Former and a frozen language model."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import BatchFeature, Blip2ForConditionalGeneration

from minigpt5.readers.generic import next_token_logits
from minigpt5.readers.minigpt4 import embed_prompt, last_hidden_states
from minigpt5.readers.processor import IGNORE_INDEX
from minigpt5.utils.processes import share_of_batch


class ProjectionModel(nn.Module):
    """The text loss of a batch of conversations, with everything but the projection frozen (arXiv 2304.10592).

    The projection is kept in float32, whatever the frozen parts are in.

    Args:
        gradient_checkpointing: compute the language model's activations twice to keep fewer.
    """

    def __init__(self, comprehension: Blip2ForConditionalGeneration, gradient_checkpointing: bool = False):
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        if gradient_checkpointing:
            comprehension.language_model.gradient_checkpointing_enable()
        self.comprehension = comprehension.requires_grad_(False)
        self.projection = comprehension.language_projection.float().requires_grad_(True)
        self.projection.register_forward_pre_hook(lambda module, inputs: (inputs[0].to(module.weight.dtype),))

    def train(self, mode: bool = True) -> ProjectionModel:
        """Frozen parts stay in evaluation mode; only in training mode the language model's layers save memory."""
        super().train(mode)
        self.comprehension.eval()
        self.comprehension.language_model.train(mode and self.gradient_checkpointing)
        return self

    def forward(self, batch: BatchFeature) -> dict[str, torch.Tensor]:
        """The loss of a training batch of the processor.

        Returns:
            "loss": cross-entropy of the replies. In training it is scaled so that the mean over the processes is the
            mean over all their tokens.
        """
        embeds = embed_prompt(self.comprehension, batch["input_ids"], batch.get("pixel_values"))
        hidden = last_hidden_states(self.comprehension, embeds, batch["attention_mask"])
        labels = batch["labels"][:, 1:]
        logits = next_token_logits(self.comprehension, hidden[:, :-1])
        loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX)
        if self.training:
            loss = loss * share_of_batch(int((labels != IGNORE_INDEX).sum()))
        if "pixel_values" not in batch:
            # Chats without a picture teach the projection nothing, but the loop asks for its gradient.
            loss = loss + 0 * self.projection.weight.sum() + 0 * self.projection.bias.sum()
        return {"loss": loss}
