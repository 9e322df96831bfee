"""The command line: `minigpt5 story`, `reply`, `serve`, `studio`, `feedback`, `compare` and what makes pipelines.

Arguments and files are checked before torch is imported, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import atexit
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast
from urllib.parse import urlsplit

from minigpt5 import weights
from minigpt5.story import (
    LARGEST_SEED,
    MOST_STEPS,
    RECORD,
    STORY_MODES,
    StoryStep,
    check_folder,
    replace_folder,
    tell_story,
    write_story,
)
from minigpt5.utils.checks import some_text
from minigpt5.utils.files import check_file, check_new_folder, to_json, whole_folder, write_json
from minigpt5.utils.imports import collector_paused
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.programs import ProgramError, one_line, opening

if TYPE_CHECKING:
    from PIL import Image

MINIATURE = "storyworld-mini"
REPLY_RECORD, ADAPTER_RECORD = "reply.json", "adapter.json"
API_KEY, SERVER = "MINIGPT5_API_KEY", "MINIGPT5_SERVER"


class Parser(argparse.ArgumentParser):
    """Leaves it to `main` to show errors."""

    def error(self, message: str) -> NoReturn:
        """End with a `ProgramError`."""
        raise ProgramError(message)


@contextmanager
def as_program_error(kind: type[Exception] | tuple[type[Exception], ...], prefix: str = "") -> Iterator[None]:
    """Turn exceptions of a kind into a `ProgramError`."""
    try:
        yield
    except kind as error:
        raise ProgramError(f"{prefix}{error}") from error


def say(line: object) -> None:
    """Print a line; who stops listening is no error.

    Raises:
        ProgramError: if it cannot be printed.
    """
    try:
        print(line, flush=True)
    except OSError as error:
        # At its end Python would try once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise ProgramError(f"cannot print: {error}") from error


def prompt(text: str) -> str:
    """A prompt that says something."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the prompt is empty; say what to tell or draw")
    return text


class Once(argparse.Action):
    """An option that must not come twice."""

    def __call__(self, parser, arguments, value, option=None):
        """Keep the value."""
        if getattr(arguments, self.dest) is not None:
            raise argparse.ArgumentError(self, "is given twice, but there is one")
        setattr(arguments, self.dest, value)


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """An integer from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"not a whole number: {text!r}") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
        if most is not None and number > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}, got {number}")
        return number

    return parse


def image_file(name: str) -> Image.Image:
    """The picture in a file, its name in `filename`."""
    from minigpt5.utils.images import ImageError, open_image

    try:
        image = open_image(name)
    except ImageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    vars(image)["filename"] = name
    return image


def model_name(name: str) -> str:
    """A shipped model, a pipeline's folder or a hub repository; no name without an owner is looked up on the hub."""
    try:
        weights.check_model(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name


def adapter_folder(name: str) -> Path:
    """A folder with an adapter."""
    if not os.path.isfile(os.path.join(name, ADAPTER_RECORD)):
        raise argparse.ArgumentTypeError(f"{name!r} is not the folder of an adapter: it has no {ADAPTER_RECORD}")
    return Path(name)


def model_source(name: str) -> str:
    """A shipped model, a folder, or what may be on the hub."""
    if os.path.lexists(name) and not os.path.isdir(name):
        raise argparse.ArgumentTypeError(f"{name} is not the folder of a model")
    return name


def server_address(url: str) -> str:
    """An http or https address."""
    try:
        place = urlsplit(url)
        told = place.scheme in ("http", "https") and place.hostname and place.port != 0
    except ValueError:
        told = False
    if not told:
        raise argparse.ArgumentTypeError(f"not an address such as http://127.0.0.1:8000: {url!r}")
    return url


def output_folder(record: str) -> Callable[[str], Path]:
    """A folder that is free, or an earlier run's."""

    def parse(name: str) -> Path:
        try:
            check_folder(Path(name), record)
        except OSError as error:
            raise argparse.ArgumentTypeError(f"cannot write to {name}: {error}") from None
        return Path(name)

    return parse


def new_folder(name: str) -> Path:
    """A folder that is free."""
    try:
        check_new_folder(name)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write to {name}: {error}") from None
    return Path(name)


def free_file(name: str) -> Path:
    """A file that can be written to."""
    try:
        check_file(name)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write to {name}: {error}") from None
    return Path(name)


def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="minigpt5",
        description="MiniGPT-5 reads and makes interleaved text and pictures.",
        epilog='example: minigpt5 story "A red fox wakes up in the forest."',
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, help="what to do; see minigpt5 COMMAND --help")

    story = commands.add_parser(
        "story",
        help="tell a story in pictures",
        description="Tell a story in pictures: paint the opening, then go on with it step by step until it ends. "
        f"Writes index.html, {RECORD} and step-1.png, step-2.png, … to a folder.",
        epilog='example: minigpt5 story "A red fox wakes up in the forest." --steps 5 --seed 0 --out story/',
    )
    story.set_defaults(run=run_story)
    story.add_argument("prompt", metavar="OPENING", type=prompt, help="the story's first sentence")
    story.add_argument(
        "--image", type=image_file, action=Once, metavar="FILE", help="a picture of whom the story is about"
    )
    story.add_argument(
        "--steps", type=whole_number(1, MOST_STEPS), default=5, metavar="N", help="most sentences to tell (default: 5)"
    )
    story.add_argument(
        "--server",
        type=server_address,
        default=os.environ.get(SERVER) or None,
        metavar="URL",
        help="a running minigpt5 serve, which tells the same story without the seconds that opening the model takes "
        f"(default: what the environment variable {SERVER} says)",
    )
    story.add_argument(
        "--image-mode",
        choices=STORY_MODES,
        default="auto",
        help="auto: a sentence to which the model paints no picture ends the story; always: there are N, "
        "each with a picture (default: auto)",
    )

    reply = commands.add_parser(
        "reply",
        help="answer one prompt",
        description="Answer one prompt with text, pictures or both. Writes index.html, "
        f"{REPLY_RECORD} and image-1.png, … to a folder, then prints the text and where the pictures are.",
        epilog='example: minigpt5 reply "What do you see?" --image fox.png',
    )
    reply.set_defaults(run=run_reply)
    reply.add_argument(
        "prompt",
        metavar="PROMPT",
        type=prompt,
        help="what to answer; <ImageHere> marks where pictures stand, which otherwise come before the text",
    )
    reply.add_argument(
        "--image", type=image_file, metavar="FILE", action="append", default=[], help="a picture to read; repeatable"
    )
    reply.add_argument(
        "--image-mode",
        choices=("auto", "always", "never"),
        default="auto",
        help="whether to paint: auto leaves it to the model (default: auto)",
    )

    for command, name, record in ((story, "story", RECORD), (reply, "reply", REPLY_RECORD)):
        command.add_argument(
            "--out",
            type=output_folder(record),
            default=name,
            metavar="FOLDER",
            help=f"where to write; an earlier {name} there is replaced (default: {name}/)",
        )
        command.add_argument(
            "--seed",
            type=whole_number(0, LARGEST_SEED),
            default=0,
            metavar="N",
            help="of pictures, and with --sample of the words too (default: 0)",
        )
        command.add_argument(
            "--sample",
            action="store_true",
            help="draw words by their probability; the likeliest are taken by default, whatever the seed",
        )
        command.add_argument(
            "--model",
            type=model_name,
            default=MINIATURE,
            metavar="MODEL",
            help=f"a model shipped with the package, a pipeline's folder or a hub repository (default: {MINIATURE})",
        )
        command.add_argument(
            "--adapter", type=adapter_folder, metavar="FOLDER", help="what training made beside that model"
        )
    add_import(commands)
    add_join(commands)
    add_serve(commands)
    add_studio(commands)
    add_feedback(commands)
    add_compare(commands)
    return parser


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
    joining.set_defaults(run=run_join, model=None)
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
        help="the published mapper, or a bidirectional encoder of 64 to 256 vokens (default: mapper)",
    )
    joining.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of all weights (default: float32)",
    )
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


def add_server_options(command: argparse.ArgumentParser, port: int) -> None:
    """What every command that opens a model and listens is told."""
    command.add_argument(
        "--adapter", type=adapter_folder, metavar="FOLDER", help="what training made beside that model"
    )
    command.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of all weights (default: float32)",
    )
    command.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen at (default: 127.0.0.1)")
    command.add_argument(
        "--port", type=whole_number(0, 65535), default=port, metavar="N", help=f"to listen at (default: {port})"
    )


@contextmanager
def listening_at(arguments: argparse.Namespace, extra: str, packages: Sequence[str]) -> Iterator[tuple[Any, str]]:
    """A socket that is bound, and its address for browsers; before the model is opened, which takes longer.

    Args:
        extra, packages: what is needed besides, and the extra that brings it.

    Raises:
        ProgramError: if it is not there, or the address cannot be listened at.
    """
    import socket

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ProgramError(f"this needs {', '.join(missing)}: pip install 'minigpt5[{extra}]'")
    address = (arguments.host, arguments.port)
    with as_program_error(OSError, f"cannot listen at {arguments.host}, port {arguments.port}: "):
        family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server(address, family=family, backlog=2048)
    with listening:
        host, port = listening.getsockname()[:2]
        yield listening, f"http://{f'[{host}]' if ':' in host else host}:{port}"


def add_serve(commands) -> None:
    """`minigpt5 serve`."""
    serving = commands.add_parser(
        "serve",
        help="answer requests over HTTP",
        description="Answer requests over HTTP in OpenAI's shapes: /v1/chat/completions, /v1/responses, "
        "/v1/images/generations. Requests that come together are answered together. The environment variable "
        f"{API_KEY} sets a key that they must show. SIGTERM ends it once all are answered.",
        epilog="example: minigpt5 serve storyworld-mini --port 8000",
    )
    serving.set_defaults(run=run_serve)
    serving.add_argument(
        "model", metavar="MODEL", type=model_name, help="a shipped model, a pipeline's folder or a hub repository"
    )
    add_server_options(serving, port=8000)
    limits = {
        "batch-size": (1, 8, "replies that are decoded together, and pictures that are painted together"),
        "queue-size": (1, 64, "requests that may wait; more are told to come again"),
        "timeout": (1, 300, "seconds that a reply may take"),
        "max-new-tokens": (1, None, "tokens of a reply"),
        "max-images": (0, 4, "pictures of a reply"),
        "cache-mb": (0, 256, "memory for what was read before"),
    }
    for name, (least, value, text) in limits.items():
        told = "what the model holds" if value is None else value
        serving.add_argument(
            f"--{name}", type=whole_number(least), default=value, metavar="N", help=f"{text} (default: {told})"
        )
    serving.add_argument(
        "--allow-urls", action="store_true", help="fetch pictures from public http and https addresses"
    )
    serving.add_argument("--log-prompts", action="store_true", help="write what is asked and answered to the log")
    serving.add_argument(
        "--feedback", type=free_file, metavar="FILE", help="take ratings at /v1/feedback and keep them in this file"
    )


def run_serve(arguments: argparse.Namespace) -> None:
    """Open the model and answer requests until SIGTERM."""
    names = ("batch_size", "queue_size", "timeout", "max_new_tokens", "max_images", "cache_mb")
    with listening_at(arguments, "service", ("fastapi", "uvicorn", "prometheus_client")) as (listening, address):
        with collector_paused():
            import torch

            from minigpt5.loading import identity, open_model
            from minigpt5.service.app import ServiceSettings, serve
            from minigpt5.service.engine import Limits
            from minigpt5.service.feedback import FeedbackStore
            from minigpt5.service.pictures import PictureLimits

        quiet_libraries()
        store = None
        if arguments.feedback:
            with feedback_errors(arguments.feedback):
                store = FeedbackStore(arguments.feedback)
        pipe = open_model(arguments.model, arguments.adapter, getattr(torch, arguments.dtype))
        settings = ServiceSettings(
            model=Path(arguments.model).absolute().name,
            api_key=os.environ.get(API_KEY) or None,
            pictures=PictureLimits(allow_urls=arguments.allow_urls),
            log_prompts=arguments.log_prompts,
            feedback=store,
            identity=identity(arguments.model, arguments.adapter) if store else {},
        )
        say(address)
        serve(pipe, listening, Limits(**{name: getattr(arguments, name) for name in names}), settings)


def add_studio(commands) -> None:
    """`minigpt5 studio`."""
    studio = commands.add_parser(
        "studio",
        help="open a page to chat on",
        description="Open the Studio in this machine's browser: a page to chat with a model in text and pictures. "
        "Ctrl-C or SIGTERM ends it.",
        epilog="example: minigpt5 studio storyworld-mini",
    )
    studio.set_defaults(run=run_studio)
    studio.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        default=MINIATURE,
        type=model_name,
        help=f"a shipped model, a pipeline's folder or a hub repository (default: {MINIATURE})",
    )
    add_server_options(studio, port=7860)
    studio.add_argument(
        "--feedback",
        type=free_file,
        default="feedback.sqlite",
        metavar="FILE",
        help="where thumbs and corrections go, made with the first (default: feedback.sqlite)",
    )
    studio.add_argument("--no-browser", action="store_true", help="open no browser, only print the address")


def run_studio(arguments: argparse.Namespace) -> None:
    """Open the model and show the Studio until SIGTERM."""
    with listening_at(arguments, "studio", ("gradio",)) as (listening, address):
        with collector_paused():
            import torch

            from minigpt5.loading import identity, open_model
            from minigpt5.service.feedback import FeedbackStore
            from minigpt5.studio.app import serve

        quiet_libraries()
        with feedback_errors(arguments.feedback):
            store = FeedbackStore(arguments.feedback)
        pipe = open_model(arguments.model, arguments.adapter, getattr(torch, arguments.dtype))
        model = identity(arguments.model, arguments.adapter)
        say(address)
        serve(pipe, listening, model, store, None if arguments.no_browser else address)


@contextmanager
def feedback_errors(store: Path) -> Iterator[None]:
    """Turn what is wrong with a file of feedback into a `ProgramError`."""
    import sqlite3

    with as_program_error((OSError, ValueError)), as_program_error(sqlite3.Error, f"{store}: "):
        yield


def add_feedback(commands) -> None:
    """`minigpt5 feedback`."""
    feedback = commands.add_parser(
        "feedback", help="make data of what people think of replies", description="What people think of replies."
    )
    verbs = feedback.add_subparsers(metavar="VERB", required=True, help="see minigpt5 feedback VERB --help")
    exporting = verbs.add_parser(
        "export",
        help="write data to train on",
        description="Write corrections and thumbs up as conversations in the layout chat, and preferences beside them. "
        "Prints how many there are.",
        epilog="example: minigpt5 feedback export feedback.sqlite --out data/chat/",
    )
    exporting.set_defaults(run=run_export_feedback, model=None)
    exporting.add_argument("store", metavar="STORE", type=Path, help="file of feedback, as the Studio makes it")
    exporting.add_argument(
        "--out", type=Path, metavar="DIR", required=True, help="where to write; an earlier export there is replaced"
    )


def run_export_feedback(arguments: argparse.Namespace) -> None:
    """Export, and say what there is."""
    from minigpt5.service.export import export_feedback

    with feedback_errors(arguments.store):
        counts = export_feedback(arguments.store, arguments.out)
    for kind, splits in counts.items():
        say(f"{kind}: " + ", ".join(f"{count} {split}" for split, count in splits.items()))
    say(arguments.out)


def add_compare(commands) -> None:
    """`minigpt5 compare`."""
    comparing = commands.add_parser(
        "compare",
        help="say whether one model should replace another",
        description="Ask two models the same and print what both reach, what the second gains with its interval, and "
        "a verdict: replace the first, keep it, or undecided. Asked are the conversations of a folder that are kept to "
        "judge by, or StoryWorld's interview.",
        epilog="example: minigpt5 compare storyworld-mini runs/feedback/taught/model --data runs/feedback/data/chat",
    )
    comparing.set_defaults(run=run_compare, model=None)
    for name in ("a", "b"):
        told = "shipped model, pipeline's folder or hub repository"
        comparing.add_argument(name, metavar=name.upper(), type=model_name, help=told)
    comparing.add_argument(
        "--data", type=Path, metavar="DIR", help="folder in the layout chat (default: StoryWorld's interview)"
    )
    comparing.add_argument(
        "--count",
        type=whole_number(1),
        metavar="N",
        help="items to ask (default: all of DIR; in the interview 50 a figure)",
    )
    comparing.add_argument("--out", type=free_file, metavar="FILE", help="JSON file for the figures")


def run_compare(arguments: argparse.Namespace) -> None:
    """Ask both models, and tell what follows."""
    with collector_paused():
        from minigpt5.evaluation.compare import chat_items, chat_marks, compare
        from minigpt5.loading import identity, open_model
        from minigpt5.storyworld.interview import answerer, interview

    quiet_libraries()
    with as_program_error((OSError, ValueError)):
        items = None if arguments.data is None else chat_items(arguments.data, arguments.count)
        marks = []
        for name in (arguments.a, arguments.b):
            pipe = open_model(name)
            count = arguments.count or 50
            marks.append(interview(answerer(pipe), count) if items is None else chat_marks(pipe, items))
        comparison = compare(*marks)
        if arguments.out:
            asked = {
                "a": identity(arguments.a),
                "b": identity(arguments.b),
                "data": arguments.data and str(arguments.data),
            }
            write_json(arguments.out, asked | comparison.record())
    width = max(map(len, comparison.figures))
    for name, one in comparison.figures.items():
        gain, low, high = one.difference
        say(f"{name:{width}}  A {one.a:.3f}  B {one.b:.3f}  B - A {gain:+.3f} [{low:+.3f}, {high:+.3f}]")
    say(comparison.verdict)


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
    importing.set_defaults(run=run_import, model=None)
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
    importing.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of all weights (default: float32)",
    )
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


def recorded(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a record tells of the settings beside prompt, model and seed: those that are not the usual ones."""
    told = {"adapter": arguments.adapter and str(arguments.adapter), "sample": arguments.sample}
    told["image_mode"] = arguments.image_mode if arguments.image_mode != "auto" else None
    return {name: value for name, value in told.items() if value}


def told_here(arguments: argparse.Namespace, options: dict[str, Any]) -> Iterator[StoryStep]:
    """A story of a model that is opened for it."""
    with collector_paused():
        from minigpt5.loading import open_model

    quiet_libraries()
    pipe = open_model(arguments.model, arguments.adapter)
    with as_program_error(ValueError):
        yield from tell_story(pipe, arguments.prompt, **options)


def told_there(arguments: argparse.Namespace, options: dict[str, Any]) -> Iterator[StoryStep]:
    """A story of a running service: nothing of torch is imported here."""
    from minigpt5.service.client import ServiceError, tell_story_at

    if arguments.adapter:
        raise ProgramError("--adapter is of a model that is opened here: give it to minigpt5 serve, or no --server")
    model, key = Path(arguments.model).absolute().name, os.environ.get(API_KEY)
    with as_program_error(ServiceError):
        yield from tell_story_at(arguments.server, arguments.prompt, model=model, key=key, **options)


def run_story(arguments: argparse.Namespace) -> None:
    """Tell a story and write its folder."""
    from tqdm import tqdm

    options: dict[str, Any] = {name: getattr(arguments, name) for name in ("image", "steps", "seed", "image_mode")}
    if arguments.sample:
        options["do_sample"] = True
    told = told_there(arguments, options) if arguments.server else told_here(arguments, options)
    # Silent where stderr is no terminal, and gone when done, so that errors and logs stay one line each.
    steps = list(tqdm(told, "story", arguments.steps, leave=False, unit="step", disable=None))
    with as_program_error(OSError, f"cannot write to {arguments.out}: "):
        write_story(arguments.out, arguments.prompt, arguments.model, arguments.seed, steps, recorded(arguments))
    if len(steps) < arguments.steps:
        print(f"minigpt5: the story ended by itself after {len(steps)} of {arguments.steps} steps", file=sys.stderr)
    say(arguments.out / "index.html")


def run_reply(arguments: argparse.Namespace) -> None:
    """Answer a prompt, write the reply's folder, and print the text and where the pictures are."""
    with collector_paused():
        import torch

        from minigpt5.loading import open_model
        from minigpt5.utils.html import reply_html

    quiet_libraries()
    pipe = open_model(arguments.model, arguments.adapter)
    options: dict[str, Any] = {"do_sample": True} if arguments.sample else {}
    generator = torch.Generator().manual_seed(arguments.seed)
    with as_program_error(ValueError):
        output = pipe(
            arguments.prompt, arguments.image, image_mode=arguments.image_mode, generator=generator, **options
        )
    parts, pictures = [], {}
    for part in output.segments[0]:
        if isinstance(part, str):
            parts.append({"text": part})
        else:
            name = f"image-{len(pictures) + 1}.png"
            pictures[name] = part
            parts.append({"image": name})
    record = {
        "prompt": arguments.prompt,
        "images": [image.filename for image in arguments.image],
        "model": arguments.model,
        "seed": arguments.seed,
        **recorded(arguments),
        "reply": parts,
    }
    footer = f"{arguments.model}, seed {arguments.seed}"
    page = reply_html(arguments.prompt, arguments.image, output.segments[0], footer)
    with as_program_error(OSError, f"cannot write to {arguments.out}: "):
        replace_folder(arguments.out, REPLY_RECORD, {"index.html": page, REPLY_RECORD: to_json(record), **pictures})
    for part in parts:
        say(part["text"] if "text" in part else arguments.out / part["image"])


def warn_of_unknown_prompt(arguments: argparse.Namespace) -> None:
    """Say what the shipped miniature knows, where a prompt names nothing of it."""
    from minigpt5.storyworld.prompts import unknown_prompt_warning

    warning = unknown_prompt_warning(arguments.prompt)
    if warning:
        print(f"minigpt5: warning: {warning}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for what the user can put right, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        # What a terminal cannot show is no reason to fail.
        cast(Any, stream).reconfigure(errors="replace")
    try:
        argv = list(sys.argv[1:] if argv is None else argv)
        with as_program_error(ValueError):
            for number, argument in enumerate(argv, 1):
                some_text(f"argument {number}", argument)
        arguments = build_parser().parse_args(argv)
        # A question about a picture need not name anything itself.
        if (
            "prompt" in arguments
            and arguments.model == MINIATURE
            and not arguments.adapter
            and (arguments.run is run_story or not arguments.image)
        ):
            warn_of_unknown_prompt(arguments)
        arguments.run(arguments)
    except ProgramError as error:
        print(f"minigpt5: error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def program() -> NoReturn:
    """`main` as a process, which ends with it.

    Python would take half a million objects of libraries apart first, which takes two seconds and more.
    """
    code = main()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)
