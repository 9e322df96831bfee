"""BLIP-2's first stage: a Q-Former learns to read a frozen ViT (arXiv 2301.12597, section 3.2).

Its queries are trained beside a text branch that shares their self-attention. Three objectives differ in who sees whom:
image-text contrast (queries and text apart), image-grounded text generation (text sees the queries and the text before
it) and image-text matching (all see all). The text branch and the heads are left behind afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import distributed, nn
from torch.nn.functional import cross_entropy, linear, normalize
from transformers import (
    BertForMaskedLM,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2VisionModel,
    PreTrainedTokenizerBase,
)
from transformers.models.bert.modeling_bert import BertPredictionHeadTransform

# The first token of a text that is to be generated (BLIP-2, section 3.2).
DECODE = "[DEC]"


def self_attention_mask(attention_mask: torch.Tensor, num_queries: int, causal: bool) -> torch.Tensor:
    """Who sees whom among queries and the text behind them, to be added to attention scores.

    Args:
        attention_mask: of the text, `(batch, length)`, 0 where it is padding.
        causal: text sees the queries and the text up to itself, queries see queries alone; otherwise all see all.

    Returns:
        `(batch, 1, num_queries + length, num_queries + length)` of 0 and the lowest number.
    """
    batch, length = attention_mask.shape
    there = torch.cat([attention_mask.new_ones(batch, num_queries), attention_mask], dim=1).bool()
    sees = there.view(batch, 1, 1, -1).expand(-1, -1, num_queries + length, -1)
    if causal:
        earlier = torch.ones(sees.shape[-2:], dtype=torch.bool, device=sees.device).tril()
        earlier[:num_queries, :num_queries] = True
        sees = sees & earlier
    return torch.zeros(sees.shape, device=sees.device).masked_fill(~sees, torch.finfo(torch.float).min)


def highest_similarity(images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Cosine `(images, texts)` of each text with the query that is closest to it.

    Args:
        images: unit features `(images, queries, dim)`.
        texts: unit features `(texts, dim)`.
    """
    return torch.einsum("iqd,td->itq", images, texts).amax(dim=-1)


def contrastive_loss(
    image_to_text: torch.Tensor, text_to_image: torch.Tensor, own: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Mean of both directions' cross-entropies of finding one's own partner.

    Args:
        image_to_text: scores of images with all texts, `(batch, all)`.
        text_to_image: scores of texts with all images, `(batch, all)`.
        own: which of all is the partner, `(batch,)`.
    """
    return (
        cross_entropy(image_to_text, own, label_smoothing=label_smoothing)
        + cross_entropy(text_to_image, own, label_smoothing=label_smoothing)
    ) / 2


def sample_negatives(scores: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """For each row one partner that is not its own, likelier the higher its score: `(batch,)`.

    Args:
        scores: `(batch, all)`.
        own: which of all is the partner, `(batch,)`.

    Raises:
        ValueError: if there is no other.
    """
    if scores.shape[1] < 2:
        raise ValueError("image-text matching needs another pair to tell a pair from; take a batch of two or more")
    return torch.multinomial(scores.scatter(1, own.unsqueeze(1), -torch.inf).softmax(dim=1), 1).squeeze(1)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient.chunk(distributed.get_world_size())[distributed.get_rank()]


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """All processes' tensors, of one shape, in the order of their ranks; gradients flow back to each process.

    BLIP-2's code gathers contrast features without gradients. With them several processes learn exactly as one with
    all their batches would.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return tensor
    return _Gather.apply(tensor)


def add_decode_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Add `[DEC]` to a tokenizer; returns its id."""
    tokenizer.add_special_tokens({"additional_special_tokens": [DECODE]}, replace_extra_special_tokens=False)
    return cast(int, tokenizer.convert_tokens_to_ids(DECODE))


def build_retrieval_model(
    vision_model: Blip2VisionModel, config: Blip2Config, vocab_size: int, pad_token_id: int, dropout: float = 0.1
) -> Blip2ForImageTextRetrieval:
    """A new Q-Former of a comprehension stack's shape, with text branch and heads, around its ViT.

    Args:
        vision_model: the ViT, shared with the new model; the norm behind it gets the stack's epsilon.
        config: of the comprehension stack.
        vocab_size: of the text branch, `[DEC]` included.
        dropout: of the Q-Former. Published: 0.1.
    """
    branch = {
        "use_qformer_text_input": True,
        "vocab_size": vocab_size,
        "pad_token_id": pad_token_id,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }
    vision_config, qformer_config = cast(Any, config.vision_config), cast(Any, config.qformer_config)
    own = Blip2Config(
        vision_config=vision_config.to_dict(),
        qformer_config=qformer_config.to_dict() | branch,
        num_query_tokens=config.num_query_tokens,
    )
    model = Blip2ForImageTextRetrieval(own)
    vision_model.post_layernorm.eps = getattr(vision_config, "post_layernorm_eps", vision_config.layer_norm_eps)
    model.vision_model = vision_model
    # Queries that begin alike would stay alike.
    nn.init.normal_(model.query_tokens, std=qformer_config.initializer_range)
    return model


class QFormerPretraining(nn.Module):
    """The three losses of image-text pairs. The ViT is frozen, but for the norm behind it (published code).

    Args:
        model: ViT, Q-Former with text branch, projections and matching head.
        decode_token_id: of `[DEC]`.
        label_smoothing: of contrast and generation. Published code: 0.1.
    """

    def __init__(self, model: Blip2ForImageTextRetrieval, decode_token_id: int, label_smoothing: float = 0.1):
        super().__init__()
        self.model, self.decode_token_id, self.label_smoothing = model, decode_token_id, label_smoothing
        config = cast(Any, model.config.qformer_config)
        self.head = BertPredictionHeadTransform(config)
        self.head_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.temperature = nn.Parameter(torch.tensor(0.07))
        model.vision_model.requires_grad_(False)
        model.vision_model.post_layernorm.requires_grad_(True)

    def train(self, mode: bool = True) -> QFormerPretraining:
        """The ViT stays in evaluation mode."""
        super().train(mode)
        self.model.vision_model.eval()
        return self

    def initialise_from(self, bert: BertForMaskedLM) -> None:
        """Take over BERT's text branch, self-attention and head; the queries' feed-forward begins as the text's.

        What BERT lacks, the cross-attention and the queries, stays as it is. BERT's token types are not used.

        Raises:
            ValueError: if BERT's sizes are not the Q-Former's.
        """
        theirs, own = bert.config, self.model.config.qformer_config
        for size in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
            if getattr(theirs, size) != getattr(own, size):
                raise ValueError(
                    f"BERT's {size} is {getattr(theirs, size)}, the Q-Former's {getattr(own, size)}: "
                    "its weights do not fit; leave it out to begin with random ones"
                )
        weights = dict(bert.bert.encoder.named_parameters())
        layers = {}
        for name, weight in weights.items():
            layers[name.replace("attention.self.", "attention.attention.")] = weight
            _, number, part, rest = name.split(".", 3)
            if part in ("intermediate", "output"):
                layers[f"layer.{number}.{part}_query.{rest}"] = weight
        self.model.qformer.encoder.load_state_dict(layers, strict=False)
        embeddings = bert.bert.embeddings
        self.model.qformer.layernorm.load_state_dict(embeddings.LayerNorm.state_dict())
        with torch.no_grad():
            for mine, weight in (
                (self.model.embeddings.word_embeddings.weight, embeddings.word_embeddings.weight),
                (self.model.embeddings.position_embeddings.weight, embeddings.position_embeddings.weight),
                (self.head_bias, bert.cls.predictions.bias),
            ):
                mine[: len(weight)] = weight
        self.head.load_state_dict(bert.cls.predictions.transform.state_dict())

    def see(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The ViT's features `(pictures, patches, width)`."""
        return self.model.vision_model(pixel_values).last_hidden_state

    def read(
        self, patches: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor, causal: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States of the queries `(pairs, queries, hidden)` and of the text `(pairs, length, hidden)`, read together."""
        queries = self.model.query_tokens.expand(len(patches), -1, -1)
        states = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=input_ids, query_embeds=queries),
            query_length=queries.shape[1],
            attention_mask=self_attention_mask(attention_mask, queries.shape[1], causal),
            encoder_hidden_states=patches,
        ).last_hidden_state
        return states[:, : queries.shape[1]], states[:, queries.shape[1] :]

    def next_word_logits(self, words: torch.Tensor) -> torch.Tensor:
        """Vocabulary logits of the text's states, by the embedding table itself as in BERT."""
        return linear(self.head(words), self.model.embeddings.word_embeddings.weight, self.head_bias)

    def image_features(self, queries: torch.Tensor) -> torch.Tensor:
        """Unit features `(pictures, queries, dim)` of the queries' states."""
        return normalize(self.model.vision_projection(queries), dim=-1)

    def text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Unit features `(texts, dim)` of texts on their own, from the first token."""
        states = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=input_ids), query_length=0, attention_mask=attention_mask
        ).last_hidden_state
        return normalize(self.model.text_projection(states[:, 0]), dim=-1)

    @torch.no_grad()
    def similarity(
        self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Cosines `(pictures, texts)`, by which pictures and texts find each other."""
        queries = self.model.qformer(
            query_embeds=self.model.query_tokens.expand(len(pixel_values), -1, -1),
            encoder_hidden_states=self.see(pixel_values),
        ).last_hidden_state
        return highest_similarity(self.image_features(queries), self.text_features(input_ids, attention_mask))

    def forward(
        self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Losses of a batch of pairs; negatives come from all processes' batches.

        Args:
            pixel_values: `(batch, 3, height, width)`.
            input_ids, attention_mask: `(batch, length)`, the first token the one that stands for the whole text. All
                processes need the same shapes.

        Returns:
            "loss", the sum of "contrast", "matching" and "generation".
        """
        patches = self.see(pixel_values)
        told = input_ids.clone()
        told[:, 0] = self.decode_token_id
        # In this mask queries see queries alone, so that their states here serve the contrast too.
        queries, words = self.read(patches, told, attention_mask, causal=True)
        targets = told[:, 1:].masked_fill(attention_mask[:, 1:] == 0, -100)
        generation = cross_entropy(
            self.next_word_logits(words[:, :-1]).flatten(0, 1), targets.flatten(), label_smoothing=self.label_smoothing
        )

        images, texts = self.image_features(queries), self.text_features(input_ids, attention_mask)
        image_to_text = highest_similarity(images, gather(texts)) / self.temperature
        text_to_image = highest_similarity(gather(images), texts).T / self.temperature
        rank = distributed.get_rank() if distributed.is_initialized() else 0
        own = rank * len(patches) + torch.arange(len(patches), device=patches.device)
        contrast = contrastive_loss(image_to_text, text_to_image, own, self.label_smoothing)

        other_text = sample_negatives(image_to_text.detach(), own)
        other_image = sample_negatives(text_to_image.detach(), own)
        matching = self.matching_loss(
            torch.cat([patches, patches, gather(patches)[other_image]]),
            torch.cat([input_ids, gather(input_ids)[other_text], input_ids]),
            torch.cat([attention_mask, gather(attention_mask)[other_text], attention_mask]),
            torch.arange(3 * len(patches), device=patches.device) < len(patches),
        )
        return {
            "loss": contrast + matching + generation,
            "contrast": contrast,
            "matching": matching,
            "generation": generation,
        }

    def matching_loss(
        self, patches: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor, match: torch.Tensor
    ) -> torch.Tensor:
        """Cross-entropy of telling whether picture and text belong together, the logits averaged over queries.

        Args:
            match: `(pairs,)`, true where they do.
        """
        queries, _ = self.read(patches, input_ids, attention_mask, causal=False)
        return cross_entropy(self.model.itm_head(queries).mean(dim=1), match.long())

    @torch.no_grad()
    def copy_to(self, comprehension: Blip2ForConditionalGeneration) -> None:
        """Put queries, Q-Former and the norm behind the ViT into a comprehension stack, without the text branch."""
        comprehension.query_tokens.copy_(self.model.query_tokens)
        weights = self.model.qformer.state_dict()
        comprehension.qformer.load_state_dict({name: weights[name] for name in comprehension.qformer.state_dict()})
        comprehension.vision_model.post_layernorm.load_state_dict(self.model.vision_model.post_layernorm.state_dict())


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask `(texts, max_length)`: first the tokenizer's own token for the start of a text.

    Raises:
        ValueError: if the tokenizer puts no special token in front, such as BERT's `[CLS]`.
    """
    batch = tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=max_length,
        return_tensors="pt",
        padding_side="right",
    )
    if int(batch["input_ids"][0, 0]) not in tokenizer.all_special_ids:
        raise ValueError("the tokenizer puts no special token in front of a text; take BERT's or another that does")
    return batch["input_ids"], batch["attention_mask"]
