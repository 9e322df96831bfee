"""What makes pipelines: `minigpt5 join` and `minigpt5 import-official`."""

from __future__ import annotations

import argparse
import sys

from minigpt5.commands.arguments import add_dtype, as_program_error, model_source, new_folder, say, whole_number
from minigpt5.story import LARGEST_SEED
from minigpt5.utils.files import whole_folder
from minigpt5.utils.imports import collector_paused
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.programs import ProgramError, opening


def add_join(commands) -> None:
    """`minigpt5 join`."""
    joining = commands.add_parser(
        "join",
        help="join a model that reads with one that paints",
        description="Make an untrained pipeline folder of any model of transformers that reads and any pipeline of "
        "diffusers that takes embeddings. Prints the parts, their sizes, what trains, and the licences.",
        epilog="example: minigpt5 join Qwen/Qwen2.5-VL-3B-Instruct Efficient-Large-Model/Sana_600M_512px_diffusers "
        "--n-vokens 64 --out joined/",
    )
    joining.set_defaults(run=run_join)
    joining.add_argument(
        "reader", metavar="READER", type=model_source, help="a model's or pipeline's folder, hub id or shipped name"
    )
    joining.add_argument(
        "painter", metavar="PAINTER", type=model_source, help="a pipeline's folder, hub id or shipped name"
    )
    joining.add_argument("--n-vokens", type=whole_number(1), default=8, metavar="N", help="a picture's (default: 8)")
    joining.add_argument(
        "--connector",
        choices=("mapper", "queries"),
        default="mapper",
        help="the published mapper, or a bidirectional encoder, a feature a voken (default: mapper)",
    )
    add_dtype(joining)
    joining.add_argument("--seed", type=whole_number(0, LARGEST_SEED), default=0, help="of what is new (default: 0)")
    joining.add_argument(
        "--num-inference-steps", type=whole_number(1), metavar="N", help="a picture's (default: the painter's own)"
    )
    joining.add_argument(
        "--guidance-scale", type=float, metavar="SCALE", help="a picture's (default: the painter's own)"
    )
    joining.add_argument("--out", type=new_folder, metavar="DIR", required=True, help="the new pipeline folder")


def run_join(arguments: argparse.Namespace) -> None:
    """Join, write and report."""
    with collector_paused():
        import torch

        from minigpt5.joining import describe, join, licence, open_painter, open_reader

    quiet_libraries()
    with as_program_error((OSError, ValueError)):
        dtype = getattr(torch, arguments.dtype)
        with opening(f"the reader {arguments.reader}"):
            reader = open_reader(arguments.reader, dtype)
        with opening(f"the painter {arguments.painter}"):
            painter = open_painter(arguments.painter, dtype)
        names = ("connector", "seed", "guidance_scale", "num_inference_steps")
        pipe = join(reader, painter, arguments.n_vokens, **{name: getattr(arguments, name) for name in names})
        with whole_folder(arguments.out, "model_index.json") as folder:
            pipe.save_pretrained(folder)
    say(describe(pipe))
    for kind in ("reader", "painter"):
        source = getattr(arguments, kind)
        say(f"licence of {source}: {licence(source)}")
    say(arguments.out)


def add_import(commands) -> None:
    """`minigpt5 import-official`."""
    importing = commands.add_parser(
        "import-official",
        help="make a pipeline folder of the published checkpoints",
        description="Make an ordinary pipeline folder of the published MiniGPT-5 checkpoints and what they stand on. "
        "Prints which tensor of which file went where.",
        epilog="example: minigpt5 import-official --llm vicuna-7b/ --proj pretrained_minigpt4_7b.pth "
        "--stage1 stage1_cc3m.ckpt --stage2 stage2_vist.ckpt --out minigpt5-vist/",
    )
    importing.set_defaults(run=run_import)
    parts = {
        "llm": "folder or hub id of the language model, Vicuna-7B v0",
        "vit": "eva_vit_g.pth, or a folder or hub id with BLIP-2 in the layout of transformers",
        "qformer": "BLIP-2's file with the Q-Former, or a folder or hub id as for --vit",
        "sd": "folder or hub id of Stable Diffusion 2.1-base",
    }
    for name, text in parts.items():
        importing.add_argument(f"--{name}", metavar="DIR_OR_ID", help=f"{text} (default: its home on the hub)")
    importing.add_argument("--proj", metavar="FILE", required=True, help="MiniGPT-4's file with the projection")
    importing.add_argument("--stage1", metavar="FILE", required=True, help="checkpoint of the first stage")
    importing.add_argument("--stage2", metavar="FILE", help="checkpoint of the second stage, put on top of the first")
    importing.add_argument("--merge", action="store_true", help="fold LoRA into the weights; kept apart by default")
    add_dtype(importing)
    importing.add_argument(
        "--revision",
        action="append",
        default=[],
        metavar="PART=REVISION",
        help="pin the hub revision of llm, vit, qformer or sd; repeatable",
    )
    for name, value in (("vit-heads", 16), ("qformer-heads", 12)):
        importing.add_argument(
            f"--{name}",
            type=whole_number(1),
            metavar="N",
            help=f"default: what the part's config.json says, or else {value}, as published",
        )
    for name, value in (("lora-rank", 8), ("lora-alpha", 16)):
        importing.add_argument(
            f"--{name}", type=whole_number(1), default=value, metavar="N", help=f"default: {value}, as published"
        )
    importing.add_argument(
        "--num-inference-steps",
        type=whole_number(1, 1000),
        default=50,
        metavar="N",
        help="a picture's (default: 50; 1 for SD-Turbo)",
    )
    importing.add_argument(
        "--guidance-scale",
        type=float,
        default=7.5,
        metavar="SCALE",
        help="a picture's (default: 7.5; 0, none at all, for SD-Turbo)",
    )
    importing.add_argument("--out", type=new_folder, metavar="DIR", required=True, help="the new pipeline folder")


def run_import(arguments: argparse.Namespace) -> None:
    """Import the published checkpoints and report."""
    with collector_paused():
        import torch

        from minigpt5.published.checkpoints import import_official

    quiet_libraries()
    given = {name: getattr(arguments, name) for name in ("llm", "vit", "qformer", "sd", "proj", "stage1", "stage2")}
    pinned = [text.partition("=") for text in arguments.revision]
    for part, equals, revision in pinned:
        if part not in ("llm", "vit", "qformer", "sd") or not equals or not revision:
            raise ProgramError(
                f"--revision is PART=REVISION with part llm, vit, qformer or sd, got {part}{equals}{revision}"
            )
    with as_program_error((OSError, ValueError)):
        report = import_official(
            arguments.out,
            **{name: value for name, value in given.items() if value is not None},
            merge=arguments.merge,
            dtype=getattr(torch, arguments.dtype),
            vit_heads=arguments.vit_heads,
            qformer_heads=arguments.qformer_heads,
            lora_rank=arguments.lora_rank,
            lora_alpha=arguments.lora_alpha,
            guidance_scale=arguments.guidance_scale,
            num_inference_steps=arguments.num_inference_steps,
            revisions={part: revision for part, _, revision in pinned},
        )
    for warning in report.warnings:
        print(f"minigpt5: warning: {warning}", file=sys.stderr)
    say(report)
    say(arguments.out)
