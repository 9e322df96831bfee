r"""MiniGPT-4's second stage: the projection learns to answer instructions, from a small curated set.

    accelerate launch training/tune_instructions.py --config configs/storyworld-mini/instructions.yaml \
        --data runs/mini/data --model runs/mini/projection/model --out runs/mini/instructions

The set is good descriptions in the layout of CC3M, each asked for by an instruction of a list
(`minigpt5.data.instructions`), or chats of one's own in a JSONL file. Everything but the projection is frozen. The
result is a pipeline folder, OUT/model.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from minigpt5 import MiniGPT5Pipeline
from minigpt5.data.mixture import ASKED_TASKS
from minigpt5.training.fit import best_of, end_dry_run, fit
from minigpt5.training.mixture import MixtureConfig, check_splits, open_mixture
from minigpt5.training.objective import validation_loss
from minigpt5.training.projection import ProjectionModel
from minigpt5.training.results import save_result
from minigpt5.utils.processes import is_main_process, pick_device
from minigpt5.utils.programs import opening, run_program
from minigpt5.utils.settings import DTYPES, setting
from minigpt5.vokens.decoding import decode_texts


@dataclass(kw_only=True)
class InstructionConfig(MixtureConfig):
    """The projection's second stage."""

    # Published instructions, StoryWorld's questions, one's own chats, and stories and talks without new pictures.
    tasks = ("instruct", "caption", "chat", "story_text", "talk_text", *ASKED_TASKS)

    model: Path = setting(help="pipeline to start from")
    out: Path = setting(help="folder for checkpoints and the result", passing=True)
    dtype: str = setting("float32", choices=DTYPES, help="of the frozen weights; the projection is float32")
    gradient_checkpointing: bool = setting(False, help="compute the language model's activations twice to keep fewer")
    judged: int = setting(4, least=1, help="validation batches of an evaluation", rejudge=True)
    told: int = setting(4, least=0, help="replies to validation questions that an evaluation prints")
    best: str = best_of("minus_loss")


def main(config: InstructionConfig):
    check_splits(config)
    with opening(f"the model {config.model}"):
        pipe = MiniGPT5Pipeline.from_pretrained(config.model, dtype=getattr(torch, config.dtype))
    model = ProjectionModel(pipe.comprehension, config.gradient_checkpointing).to(pick_device())
    end_dry_run(model, config)
    draw, held_back = (open_mixture(config, role, pipe.reader) for role in ("train", "validation"))

    def batches(index, source=draw):
        return source.batch(index)[1]

    def losses(batch, step):
        return model(batch)

    def evaluate():
        questions = [one.item[:-1] for one in held_back.batch(0)[0][: config.told]]
        for reply in decode_texts(pipe.reader, questions, max_new_tokens=60):
            print(f"{config.out.name}: told {reply!r}")
        return {
            "minus_loss": -validation_loss(losses, lambda index: batches(index, held_back), config.judged, config.steps)
        }

    fit(model, batches, losses, config, config.out, evaluate, rows=draw.sizes)
    if is_main_process():
        save_result(pipe, config.out / "model")


if __name__ == "__main__":
    run_program(main, InstructionConfig, __doc__, many_processes=True)
