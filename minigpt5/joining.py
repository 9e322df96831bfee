"""Any reader joined with any painter: fresh vokens, and a connector between them that is to be trained.

    pipe = MiniGPT5Pipeline.join("Qwen/Qwen2.5-VL-3B-Instruct", "Efficient-Large-Model/Sana_600M_512px_diffusers")

What reads and what paints stay as they are; only the rows of the vokens and the connector are new.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from huggingface_hub import ModelCard
from transformers import PreTrainedModel

from minigpt5.painters import painter_of, take_apart, trainable
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.readers import Reader, add_vokens, reader_of
from minigpt5.readers.generic import check_head, context_length
from minigpt5.readers.opening import Processor, open_model
from minigpt5.readers.processor import MiniGPT5Processor
from minigpt5.readers.vokens import add_more_vokens, replace_vokens, voken_ids
from minigpt5.utils.checks import real_number, shown, whole_number
from minigpt5.utils.integrity import load_whole_pipeline, local_folder
from minigpt5.utils.json_files import read_json
from minigpt5.vokens.connector import Connector
from minigpt5.vokens.mapper import VokenMapper
from minigpt5.vokens.query_connector import CAPTIONS, QueryConnector, measure_scale
from minigpt5.weights import is_pipeline, shipped_model

Source = str | os.PathLike
CONNECTORS: dict[str, type[Connector]] = {"mapper": VokenMapper, "queries": QueryConnector}
# Tokens that a prompt needs beside the vokens of its picture.
SHORTEST_PROMPT = 32


def new_pipeline(
    comprehension: PreTrainedModel,
    processor: Processor,
    painter: DiffusionPipeline,
    n_vokens: int = 8,
    connector: str = "mapper",
    seed: int = 0,
    guidance_scale: float | None = None,
    num_inference_steps: int | None = None,
    captions: Sequence[str] = CAPTIONS,
    **sizes: Any,
) -> MiniGPT5Pipeline:
    """An untrained pipeline of a model that reads and a pipeline that paints; both are used, not copied.

    Args:
        comprehension, processor: a vision-language or causal language model of transformers, and its processor or
            tokenizer, to which vokens are added. One that has as many already keeps them; one that has fewer, and
            MiniGPT-4 also where it has more, gets new ones.
        painter: a pipeline of diffusers whose call takes embeddings.
        n_vokens: vokens that make a picture.
        connector: "mapper", the published one, or "queries", a bidirectional encoder.
        seed: of all that is new.
        guidance_scale, num_inference_steps: defaults of the pipeline's call; by default the painter's own.
        captions: at the scale of whose text features "queries" begins, if the painter has its text encoder.
        sizes: further arguments of the connector, such as `num_layers`; "queries" also takes `reader_layers`.

    Raises:
        ValueError: if the two cannot be joined; says why.
    """
    if connector not in CONNECTORS:
        raise ValueError(f"connector must be one of {', '.join(CONNECTORS)}, got {connector!r}")
    # Of unknown type, as connectors differ in what they take.
    kind: Any = CONNECTORS[connector]
    paints, (parts, settings) = painter_of(painter), take_apart(painter)
    shapes = paints.shapes()
    length, width = shapes.pop("prompt_embeds")
    there = len(voken_ids(getattr(processor, "tokenizer", processor)))
    # Before anything is changed.
    context = context_length(comprehension)
    if context < n_vokens + SHORTEST_PROMPT:
        name = type(comprehension).__name__
        raise ValueError(f"{name} reads {context} tokens, too few for {n_vokens} vokens and a prompt")
    if not there:
        processor = add_vokens(comprehension, processor, n_vokens, seed)
    elif there != n_vokens and isinstance(processor, MiniGPT5Processor):
        processor = replace_vokens(comprehension, processor, n_vokens, seed)
    elif there < n_vokens:
        add_more_vokens(comprehension, processor, n_vokens, seed)
    elif there > n_vokens:
        raise ValueError(f"the reader has {there} vokens already; join it with n_vokens={there} or more")
    reader = reader_of(comprehension, processor, sizes.get("reader_layers", (-1,)))
    check_logits(reader)
    # Without memory, where the reader is; else drawn on the CPU, so that a seed means the same everywhere.
    device = torch.device("meta" if comprehension.device.type == "meta" else "cpu")
    with torch.random.fork_rng(devices=[]), device:
        torch.manual_seed(seed)
        made = kind(
            voken_dim=reader.feature_width,
            text_dim=width,
            text_length=n_vokens if kind.one_feature_a_voken else length,
            pooled_dims={name: shape[0] for name, shape in shapes.items() if len(shape) == 1} or None,
            sequence_dims={name: shape[1] for name, shape in shapes.items() if len(shape) == 2} or None,
            **sizes,
        )
    if kind is QueryConnector and parts.get("text_encoder") is not None:
        measure_scale(made, trainable(paints), captions)
    if guidance_scale is None:
        guidance_scale = paints.default_guidance_scale
    if num_inference_steps is None:
        num_inference_steps = paints.default("num_inference_steps")
    return MiniGPT5Pipeline(
        processor,
        comprehension,
        made.to(comprehension.device),
        guidance_scale=real_number("guidance_scale", guidance_scale, 0, 100),
        num_inference_steps=whole_number("num_inference_steps", num_inference_steps, 1),
        painter_class=type(painter).__name__,
        painter_settings=settings,
        **parts,
    )


@torch.no_grad()
def check_logits(reader: Reader) -> None:
    """Compare what a reader without a way of its own makes of two tokens with what its model says itself.

    Raises:
        ValueError: if it is something else: what the model does behind its layers is not known here.
    """
    if type(reader) is not Reader or reader.model.device.type == "meta":
        return
    model, ids = reader.model, torch.tensor([[1, 2]], device=reader.model.device)
    mask = torch.ones_like(ids)
    last = reader.extend(ids, mask, None).last
    check_head(model, last, model(input_ids=ids, attention_mask=mask).logits)


def join(
    reader: Any, painter: Any, n_vokens: int = 8, dtype: torch.dtype = torch.float32, **options: Any
) -> MiniGPT5Pipeline:
    """An untrained pipeline of what is named or given; see `new_pipeline` for the other options.

    Args:
        reader: a model's folder or hub id, a pipeline's folder or shipped name, whose reader is taken, or a model with
            its processor `(model, processor)`.
        painter: a pipeline's folder, hub id or shipped name, or a pipeline of diffusers. One of MiniGPT-5 gives its
            painter and, where nothing else is said, its guidance scale and number of steps.
        dtype: of what is opened here.

    Raises:
        TypeError: if the reader is neither a name nor a model with its processor.
        ValueError: if one of them cannot be what it is to be, or the two cannot be joined.
        OSError: if one is not there.
    """
    pair = open_reader(reader, dtype) if isinstance(reader, (str, os.PathLike)) else reader
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], PreTrainedModel):
        raise TypeError(
            f"reader is a folder, a hub id or (model, processor), got {shown(reader)}; of an open pipeline give "
            "(pipe.comprehension, pipe.processor)"
        )
    model, processor = pair
    pipeline = open_painter(painter, dtype) if isinstance(painter, (str, os.PathLike)) else painter
    if isinstance(pipeline, MiniGPT5Pipeline):
        for name in ("guidance_scale", "num_inference_steps"):
            if options.get(name) is None:
                options[name] = pipeline.config[name]
        pipeline = pipeline.painter
    return new_pipeline(model, processor, pipeline, n_vokens, **options)


def open_reader(source: Source, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, Processor]:
    """A model that reads, and its processor or tokenizer.

    Raises:
        ValueError: if the model there is neither a vision-language nor a causal language model, or has no tokenizer.
        OSError: if there is none.
    """
    if is_pipeline(source):
        pipe = MiniGPT5Pipeline.from_pretrained(source, dtype=dtype)
        return pipe.comprehension, pipe.processor
    return open_model(source, dtype)


def open_painter(source: Source, dtype: torch.dtype = torch.float32) -> DiffusionPipeline:
    """A pipeline that paints, or one of MiniGPT-5, whose `painter` does.

    Raises:
        OSError: if there is nothing.
        ValueError: if it is no pipeline, or not whole.
    """
    folder = local_folder(DiffusionPipeline, shipped_model(source))
    index = read_json(folder / "model_index.json")
    if index.get("_class_name") == "MiniGPT5Pipeline":
        return MiniGPT5Pipeline.from_pretrained(source, dtype=dtype)
    # Saved without a part, a pipeline only opens if it is said again that there is none.
    absent = {name: None for name, recorded in index.items() if recorded == [None, None]}
    return load_whole_pipeline(
        lambda: DiffusionPipeline.from_pretrained(folder, dtype=dtype, trust_remote_code=False, **absent),
        folder,
        index.keys() - absent.keys(),
    )


def licence(source: Source) -> str:
    """What a model's card says of its licence."""
    try:
        card = Path(shipped_model(source), "README.md")
        data = ModelCard.load(card if card.parent.is_dir() else str(source), ignore_metadata_errors=True).data
    except (OSError, ValueError):
        return "its card is not there"
    return data.get("license_name") or data.get("license") or "its card does not say"


def describe(pipe: MiniGPT5Pipeline) -> str:
    """A table of the parts: how many parameters, how many bytes, and what of each is to be trained."""
    rows = [("part", "class", "parameters", "bytes", "trains")]
    tables = (pipe.comprehension.get_input_embeddings(), pipe.comprehension.get_output_embeddings())
    rows_of_vokens = pipe.reader.n_vokens * sum(table.weight.shape[1] for table in tables)
    for name, part in pipe.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        count = sum(parameter.numel() for parameter in part.parameters())
        size = sum(parameter.numel() * parameter.element_size() for parameter in part.parameters())
        learns = {"mapper": count, "comprehension": rows_of_vokens}.get(name, 0)
        rows.append((name, type(part).__name__, f"{count:,}", f"{size / 1e9:,.3f} GB", f"{learns:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
