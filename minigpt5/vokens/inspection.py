"""What a model chose while it replied, and how sure it was of each choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import BatchFeature

from minigpt5.readers import Reader
from minigpt5.vokens.decoding import DecodingConfig, InterleavedDecoder, VokenEvent


@dataclass(frozen=True)
class Choice:
    """A token that was chosen, and its probability beside those of the likeliest others.

    Args:
        paints: whether it begins a picture.
    """

    token: str
    probability: float
    others: Sequence[tuple[str, float]]
    paints: bool


@dataclass(frozen=True)
class Inspection:
    """A reply as it was chosen.

    Args:
        choices: in order.
        vokens: for each picture the names of its vokens, and how probable the model held each behind those before it.
            Where what paints listens to other layers than the last, the probabilities are missing.
    """

    choices: Sequence[Choice]
    vokens: Sequence[Sequence[tuple[str, float | None]]]


def inspect_reply(reader: Reader, inputs: BatchFeature, config: DecodingConfig, others: int = 3) -> Inspection:
    """Reply to one prompt by the likeliest words, and note what was chosen.

    Args:
        inputs: of `Reader.encode`.
        config: how the reply is decoded; whether and how words are sampled is of no account.
        others: how many likely tokens are told beside each that was chosen.
    """
    # Probabilities are those of the model itself: nothing is filtered out.
    config = replace(config, do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
    chosen: list[Choice] = []

    def choose(shares: torch.Tensor) -> torch.Tensor:
        (row,) = shares.float().cpu()
        (likeliest, *rest), (share, *shared) = (part.tolist() for part in row.topk(others + 1)[::-1])
        spelt = [reader.tokenizer.decode([token]) for token in (likeliest, *rest)]
        told = list(zip(spelt[1:], shared, strict=True))
        chosen.append(Choice(spelt[0], share, told, likeliest == reader.voken_ids[0]))
        return shares.argmax(-1)

    events = list(InterleavedDecoder(reader, config, choose=choose).events(inputs))
    names = reader.tokenizer.convert_ids_to_tokens(list(reader.voken_ids))
    blocks = [
        list(zip(names, _voken_probabilities(reader, event.features), strict=True))
        for event in events
        if isinstance(event, VokenEvent)
    ]
    return Inspection(chosen, blocks)


@torch.no_grad()
def _voken_probabilities(reader: Reader, features: torch.Tensor) -> list[float] | list[None]:
    """Of each voken behind what was before it: `(n_vokens,)`."""
    if tuple(reader.layers) != (-1,):
        return [None] * len(features)
    shares = reader.logits(features).float().softmax(-1)
    return [float(share[token]) for share, token in zip(shares, reader.voken_ids, strict=True)]
