"""Whether the parts of a pipeline belong together: a count or width that two of them hold must be one number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def disagreements(parts: Mapping[str, Any]) -> list[str]:
    """Where parts contradict each other, as sentences; a part that is `None` says nothing.

    Args:
        parts: the components of a pipeline by their names.
    """
    found = []
    for one, here, other, there in _told_twice(parts):
        if here is not None and there is not None and here != there:
            found.append(f"{one} is {here}, but {other} is {there}")
    for one, here, other, there in _bounded(parts):
        if here is not None and there is not None and here > there:
            found.append(f"{one} is {here}, more than {other}, {there}")
    return found


def _get(part: Any, *path: str) -> Any:
    """What stands at the end of a path of attributes or keys, `None` where it ends before."""
    for name in path:
        part = part.get(name) if isinstance(part, Mapping) else getattr(part, name, None)
    return part


def _told_twice(parts: Mapping[str, Any]) -> Iterator[tuple[str, Any, str, Any]]:
    processor, mapper, unet, vae = (parts.get(name) for name in ("processor", "mapper", "unet", "vae"))
    reader, text_encoder = (_get(parts.get(name), "config") for name in ("comprehension", "text_encoder"))

    queries = _get(reader, "num_query_tokens")
    yield "the processor's num_query_tokens", _get(processor, "num_query_tokens"), "comprehension's", queries
    if _get(processor, "n_vokens") is not None:
        # Other processors name by it what stands for a picture in a text, and models what stands for its features.
        mark = _get(reader, "image_token_id")
        yield "the processor's image_token_id", _get(processor, "image_token_id"), "comprehension's", mark
    vokens = _vokens(_get(processor, "tokenizer"))
    yield "the processor's n_vokens", _get(processor, "n_vokens"), "the number of vokens in its tokenizer", vokens
    if _get(reader, "qformer_config") is not None:
        # This ViT's positions fit pictures of one size.
        sides = _picture_size(_get(processor, "image_processor"))
        side = _get(reader, "vision_config", "image_size")
        side = (side, side) if isinstance(side, int) else side
        yield "the size of the processor's pictures", sides, "comprehension's image_size", side and tuple(side)

    width, length = _get(mapper, "config", "text_dim"), _get(mapper, "config", "text_length")
    states = _width(parts.get("comprehension"))
    states = states and states * len(_get(mapper, "config", "reader_layers") or (-1,))
    if _get(mapper, "one_feature_a_voken"):
        yield "the mapper's text_length", length, "the number of vokens", vokens
        length = None
    yield "the mapper's voken_dim", _get(mapper, "config", "voken_dim"), "the width of comprehension's states", states
    wanted = _get(unet, "config", "encoder_hid_dim") or _get(unet, "config", "cross_attention_dim")
    for each in {wanted} if isinstance(wanted, int) else set(wanted or ()):
        yield "the mapper's text_dim", width, "the UNet's cross_attention_dim", each
    # Painters with a transformer or a second text encoder join the widths and lengths of several.
    if parts.get("transformer") is None and parts.get("text_encoder_2") is None:
        yield "the mapper's text_dim", width, "the text encoder's hidden_size", _get(text_encoder, "hidden_size")
        positions = _get(text_encoder, "max_position_embeddings")
        yield "the mapper's text_length", length, "the text encoder's max_position_embeddings", positions
        longest = _get(parts.get("tokenizer"), "model_max_length")
        yield "the mapper's text_length", length, "the tokenizer's model_max_length", longest

    levels = _get(parts.get("scheduler"), "alphas_cumprod")
    if levels is not None:
        steps = _get(parts.get("scheduler"), "config", "num_train_timesteps")
        yield "the shape of the scheduler's noise levels", tuple(levels.shape), "its num_train_timesteps", (steps,)
    channels = _get(vae, "config", "latent_channels")
    for name in ("in_channels", "out_channels"):
        yield f"the UNet's {name}", _get(unet, "config", name), "the VAE's latent_channels", channels


def _bounded(parts: Mapping[str, Any]) -> Iterator[tuple[str, int | None, str, int | None]]:
    processor, tokenizer = parts.get("processor"), parts.get("tokenizer")
    model, text_encoder = parts.get("comprehension"), parts.get("text_encoder")

    words = _get(processor, "tokenizer") or processor
    table = None if model is None else len(model.get_input_embeddings().weight)
    yield "the vocabulary of the processor", _size(words), "the rows of comprehension's embedding table", table
    rows = _get(text_encoder, "config", "vocab_size")
    yield "the vocabulary of the tokenizer", _size(tokenizer), "the text encoder's vocab_size", rows
    counts = _get(processor, "num_query_tokens"), _get(processor, "n_vokens")
    context = _get(model, "config", "text_config", "max_position_embeddings")
    yield (
        "what a picture that is read and one that is painted take",
        sum(c or 0 for c in counts),
        "the context",
        context,
    )


def _vokens(tokenizer: Any) -> int | None:
    if tokenizer is None:
        return None
    added, count = tokenizer.get_added_vocab(), 0
    while f"[IMG{count}]" in added:
        count += 1
    return count


def _picture_size(image_processor: Any) -> tuple[int, int] | None:
    size = _get(image_processor, "crop_size" if _get(image_processor, "do_center_crop") else "size")
    height, width = _get(size, "height"), _get(size, "width")
    return None if height is None or width is None else (height, width)


def _width(model: Any) -> int | None:
    return None if model is None else model.get_input_embeddings().weight.shape[-1]


def _size(tokenizer: Any) -> int | None:
    return None if tokenizer is None else len(tokenizer)
