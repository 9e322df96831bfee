r"""Make a reader of a system of the field from parts: encoders of pictures and a language model, to be trained.

    python training/compose_reader.py --system llava-1.5 --language_model lmsys/vicuna-7b-v1.5 \
        --encoders openai/clip-vit-large-patch14-336 --out runs/llava/start

What stands between the parts is new, or where it can be MiniGPT-4's; the parts' weights stay as they are. A BLIP-2 or
MiniGPT-4, also in a pipeline, may stand for its encoder, and for its language model; an InstructBLIP is made of one:

    python training/compose_reader.py --system instructblip --blip2 storyworld-mini --out runs/instructblip/start
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoModel, PreTrainedModel

from minigpt5.joining import open_reader
from minigpt5.readers.compose import compose
from minigpt5.readers.instructblip import instructblip_of
from minigpt5.readers.systems import SYSTEMS
from minigpt5.readers.vokens import with_vokens
from minigpt5.training.results import save_result
from minigpt5.utils.integrity import load_whole
from minigpt5.utils.programs import ProgramError, opening, run_program
from minigpt5.utils.settings import DTYPES, Settings, setting


@dataclass(kw_only=True)
class ComposeConfig(Settings):
    """A reader of parts."""

    system: str = setting(choices=("instructblip", *SYSTEMS), help="whose connector stands between the parts")
    language_model: str | None = setting(
        None, help="folder or hub id of a causal language model, or of a BLIP-2 with one"
    )
    encoders: tuple[str, ...] = setting((), help="folders or hub ids of the encoders of pictures, the Q-Former's apart")
    blip2: str | None = setting(None, help="BLIP-2 or MiniGPT-4 with a Q-Former, for the systems that have one")
    connector_options: dict[str, int] | None = setting(
        None, least=1, help="sizes of the connector in place of the published ones, as {queries: 16, heads: 4}"
    )
    n_vokens: int = setting(8, least=1, help="vokens of a picture, for a painter to be joined")
    out: Path = setting(help="folder of the reader", passing=True)
    dtype: str = setting("float32", choices=DTYPES, help="of the parts")
    seed: int = setting(0, least=0, most=2**32 - 1, help="of what is new")

    def __post_init__(self):
        super().__post_init__()
        if self.system == "instructblip":
            if self.blip2 is None or self.language_model or self.encoders or self.connector_options:
                raise ValueError("an InstructBLIP is made of one model alone: name it with --blip2")
        elif self.language_model is None:
            raise ValueError(f"{self.system} is made around a language model: name it with --language_model")


def open_encoder(source: str, dtype: torch.dtype) -> tuple[PreTrainedModel, Any]:
    """An encoder of pictures and its image processor: a model of its own, or CLIP's, BLIP-2's or a pipeline's."""
    try:
        model, processor = open_reader(source, dtype)
        image_processor = processor.image_processor
    except ValueError:  # no model that speaks
        model = load_whole(AutoModel, source, surplus=True, dtype=dtype)
        image_processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    return with_norm(getattr(model, "vision_model", model), image_processor), image_processor


def with_norm(encoder: Any, image_processor: Any) -> Any:
    """The encoder, which says how its pictures are normalized: beside others it is given such."""
    for name in ("image_mean", "image_std"):
        setattr(encoder.config, name, list(getattr(image_processor, name)))
    return encoder


def compose_instructblip(config: ComposeConfig) -> tuple[Any, Any]:
    """InstructBLIP of a BLIP-2 or MiniGPT-4."""
    with opening(f"the BLIP-2 {config.blip2}"):
        blip2, processor = open_reader(str(config.blip2), getattr(torch, config.dtype))
        return instructblip_of(blip2, processor.image_processor, processor.tokenizer)


def compose_system(config: ComposeConfig) -> tuple[Any, Any]:
    """A model of parts that come from several places."""
    dtype = getattr(torch, config.dtype)
    with opening(f"the language model {config.language_model}"):
        model, processor = open_reader(str(config.language_model), dtype)
        language_model: Any = getattr(model, "language_model", model)
    blip2: Any = None
    image_processor: Any = None
    encoders = []
    if config.blip2 is not None:
        with opening(f"the BLIP-2 {config.blip2}"):
            blip2, its_processor = open_reader(config.blip2, dtype)
            image_processor = its_processor.image_processor
            with_norm(blip2.vision_model, image_processor)
    for number, source in enumerate(config.encoders):
        with opening(f"the encoder {source}"):
            encoder, own = open_encoder(source, dtype)
        encoders.append(encoder)
        image_processor = own if number == 0 else image_processor
    settings = {} if config.connector_options is None else {"connector_options": config.connector_options}
    tokenizer: Any = getattr(processor, "tokenizer", processor)
    try:
        return compose(
            SYSTEMS[config.system], language_model, tokenizer, encoders, image_processor, blip2, config.seed, **settings
        )
    except ValueError as error:
        raise ProgramError(f"{config.system} cannot be composed of these parts: {error}") from error


def main(config: ComposeConfig):
    if config.system == "instructblip":
        model, processor = compose_instructblip(config)
        name, length = "InstructBLIP", model.config.num_query_tokens
    else:
        model, processor = compose_system(config)
        name, length = SYSTEMS[config.system].name, model.config.image_seq_length
    processor = with_vokens(model, processor, config.n_vokens, config.seed)
    save_result(model, config.out, processor)
    print(f"{config.out}: {name}, {length} tokens a picture")


if __name__ == "__main__":
    run_program(main, ComposeConfig, __doc__)
