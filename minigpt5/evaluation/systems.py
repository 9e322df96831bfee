"""The arguments of the evaluation programs, and the systems that they name."""

from __future__ import annotations

import argparse
import hashlib
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from huggingface_hub import try_to_load_from_cache

from minigpt5 import MiniGPT5Pipeline, __version__
from minigpt5.cli import whole_number
from minigpt5.data.splits import choose_split
from minigpt5.evaluation.baselines import GILL, Divter, TwoStage, ZeroShotDiffusion
from minigpt5.evaluation.generation import System, check_pictures, generate
from minigpt5.evaluation.items import PROMPTS, Item
from minigpt5.evaluation.measure import Weights
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.utils.integrity import load_whole
from minigpt5.utils.processes import pick_device, process_state, shard
from minigpt5.vokens.mapper import VokenMapper
from minigpt5.weights import shipped_model

BASELINES = ("diffusion", "two-stage", "gill", "divter")
# Which baselines take which part.
_TAKES = {"unet": ("diffusion", "two-stage", "divter"), "mapper": ("gill",), "mark": ("divter",)}


def evaluation_arguments(description: str, layout: str, clip: str) -> argparse.ArgumentParser:
    """The arguments that every evaluation program has.

    Args:
        layout: of the data, one of `ITEMS`.
        clip: the CLIP model of the published figures.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.set_defaults(layout=layout)
    parser.add_argument("--data", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--split", help="default: the one whose name says it: validation, val, …")
    parser.add_argument("--count", type=whole_number(1), help="only the first captions, stories or talks of the split")
    parser.add_argument("--out", type=Path, required=True, help="folder for replies and results; what is there is kept")
    parser.add_argument("--prompts", choices=PROMPTS, default="chat", help="default: %(default)s")
    parser.add_argument("--batch-size", type=whole_number(1), default=32, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--max-bad-share",
        type=float,
        default=0.01,
        help="share of the items that may be passed over, as they cannot be asked (default: %(default)s)",
    )

    system = parser.add_argument_group("system")
    system.add_argument("--model", default="storyworld-mini", help="shipped model, pipeline folder or hub repository")
    system.add_argument("--adapter", type=Path, help="folder of what training made beside that model")
    system.add_argument("--baseline", choices=BASELINES, help="evaluate this baseline, made of the model's parts")
    system.add_argument("--unet", type=Path, help="folder of a fine-tuned UNet that paints in a baseline")
    system.add_argument("--mapper", type=Path, help="folder of GILL's mapper")
    system.add_argument("--mark", help="what Divter says before a description (default: [DST])")
    system.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    system.add_argument("--num-inference-steps", type=whole_number(1), help="default: the model's own")
    system.add_argument("--guidance-scale", type=float, help="default: the model's own")

    metrics = parser.add_argument_group("metrics")
    metrics.add_argument("--clip", default=clip, help="name, file or folder of a CLIP model (default: %(default)s)")
    metrics.add_argument("--inception", type=Path, help="file of Inception v3's weights, for FID, KID, Inception Score")
    metrics.add_argument("--sentences", type=Path, help="folder of a sentence encoder, for S-BERT similarity")
    metrics.add_argument("--hps", type=Path, help="file of HPSv2's weights, to compute it")
    metrics.add_argument("--pick-score", type=Path, help="folder of PickScore's model, to compute it")
    metrics.add_argument("--judge", choices=("storyworld",), help="add the judge's figures, for StoryWorld's own data")
    return parser


def read_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments of the command line, with a split that is there; what cannot be is one line and exit code 2."""
    arguments = parser.parse_args()
    try:
        arguments.split = choose_split(arguments.data, arguments.layout, "validation", arguments.split, "--split")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return arguments


def metric_weights(arguments: argparse.Namespace) -> Weights:
    """Where the arguments say that the metrics' weights are."""
    return Weights(arguments.clip, arguments.inception, arguments.sentences, arguments.hps, arguments.pick_score)


def open_pipeline(
    model: str | Path, adapter: Path | None = None, dtype: torch.dtype = torch.float32
) -> MiniGPT5Pipeline:
    """A pipeline, with an adapter of its own if there is one, on this process's device and without progress bars."""
    pipe = MiniGPT5Pipeline.from_pretrained(model, dtype=dtype)
    if adapter is not None:
        pipe.load_adapter(adapter)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(pick_device())


def load_system(arguments: argparse.Namespace) -> System:
    """The system that the arguments name, on this process's device."""
    dtype = getattr(torch, arguments.dtype)
    pipe = open_pipeline(arguments.model, arguments.adapter, dtype)
    if arguments.baseline is None:
        return pipe
    if arguments.baseline == "gill":
        mapper = None
        if arguments.mapper:
            mapper = load_whole(VokenMapper, arguments.mapper, torch_dtype=dtype).to(pick_device())
        return GILL.around(pipe, mapper)
    unet = None
    if arguments.unet:
        unet = load_whole(UNet2DConditionModel, arguments.unet, torch_dtype=dtype).to(pick_device())
    painter = ZeroShotDiffusion(pipe, unet)
    if arguments.baseline == "diffusion":
        return painter
    if arguments.baseline == "two-stage":
        return TwoStage(pipe, painter)
    return Divter(pipe, painter, **({"mark": arguments.mark} if arguments.mark else {}))


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """All that replies depend on.

    Raises:
        ValueError: for a part that the chosen system does not take.
    """
    for name, takers in _TAKES.items():
        if getattr(arguments, name) is not None and arguments.baseline not in takers:
            raise ValueError(f"--{name} goes with --baseline {' or '.join(takers)}, not with {arguments.baseline}")
    own = MiniGPT5Pipeline.load_config(shipped_model(arguments.model))
    steps, guidance = arguments.num_inference_steps, arguments.guidance_scale
    return {
        "model": {"name": str(arguments.model), "revision": revision(arguments.model)},
        "baseline": arguments.baseline,
        **{
            name: path and {"name": str(path), "revision": revision(path)}
            for name, path in (("adapter", arguments.adapter), ("unet", arguments.unet), ("mapper", arguments.mapper))
        },
        "mark": arguments.mark,
        "layout": arguments.layout,
        "data": str(arguments.data),
        "split": arguments.split,
        "prompts": arguments.prompts,
        "seed": arguments.seed,
        "num_inference_steps": own["num_inference_steps"] if steps is None else steps,
        "guidance_scale": own["guidance_scale"] if guidance is None else guidance,
        "dtype": arguments.dtype,
        "device": pick_device().type,
        "versions": {
            "minigpt5": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "diffusers", "transformers")},
        },
    }


def revision(name: str | Path) -> str:
    """Which model it is exactly: the first digits of a folder's SHA-256, or the commit of a hub repository.

    Raises:
        FileNotFoundError: if it is neither a folder nor in the hub's cache.
    """
    folder = Path(shipped_model(name))
    if folder.is_dir():
        digest = hashlib.sha256()
        for file in sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors", ".bin")):
            digest.update(str(file.relative_to(folder)).encode())
            with open(file, "rb") as content:
                while block := content.read(1 << 20):
                    digest.update(block)
        return f"sha256:{digest.hexdigest()[:16]}"
    cached = try_to_load_from_cache(str(name), "model_index.json")
    if not isinstance(cached, str):
        raise FileNotFoundError(f"{name} is no folder, no shipped model, and not in the cache of the Hugging Face hub")
    return f"commit:{Path(cached).parent.name}"


def answer(arguments: argparse.Namespace, items: Sequence[Item]) -> ReplyFolder:
    """Have the system that the arguments name reply to all items; returns when every process is done.

    The model is loaded only by a process that has something left to ask. The processes part in the end: one alone takes
    the figures, and its metrics must not wait for those of the others.

    Raises:
        ValueError: if the output folder holds replies that were made otherwise, or too many items are passed over.
    """
    replies = ReplyFolder(arguments.out)
    settings = settings_of(arguments)
    check_pictures(items, arguments.max_bad_share)
    with process_state().main_process_first():
        replies.claim(settings)
    left = any(item.id not in replies for item in shard(items))
    system = load_system(arguments) if left else None
    options = {"num_inference_steps": arguments.num_inference_steps, "guidance_scale": arguments.guidance_scale}
    generate(system, items, replies, arguments.batch_size, arguments.seed, arguments.max_bad_share, **options)
    process_state().destroy_process_group()
    return replies
