r"""Train a vision-language model of transformers from nothing: all of it, on captions, stories and talks.

    python training/miniature/pretrain_reader.py --config configs/storyworld-others/reader.yaml \
        --data runs/mini/data --model runs/others/reader --out runs/others/reading

The untrained model is made by `training/miniature/new_parts.py reader`. The result, OUT/model, has vokens, which say
nothing yet: join it with a painter and align them.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from minigpt5.data.mixture import ASKED_TASKS
from minigpt5.joining import open_reader
from minigpt5.readers import Reader, add_vokens, reader_of
from minigpt5.storyworld.examine import examine_captions, sample_scenes
from minigpt5.training.fit import best_of, end_dry_run, fit
from minigpt5.training.losses import text_loss
from minigpt5.training.mixture import MixtureConfig, check_splits, open_mixture
from minigpt5.training.results import save_result
from minigpt5.utils.processes import is_main_process, pick_device
from minigpt5.utils.programs import opening, run_program
from minigpt5.utils.settings import setting
from minigpt5.vokens.decoding import decode_texts


@dataclass(kw_only=True)
class ReaderConfig(MixtureConfig):
    """The reader."""

    tasks = ("caption", "story_text", "talk_text", *ASKED_TASKS)

    model: Path = setting(help="the untrained model's folder, with its processor")
    out: Path = setting(help="folder for checkpoints and the result", passing=True)
    n_vokens: int = setting(8, least=1, help="vokens that make a picture")
    judged: int = setting(100, least=1, help="pictures to describe in an evaluation, of each kind", rejudge=True)
    told: int = setting(2, least=0, help="replies to validation questions that an evaluation prints")
    best: str = best_of("captions_one", "captions_two")


class ReaderModel(nn.Module):
    """The text loss of a batch of conversations, in which everything trains."""

    def __init__(self, reader: Reader):
        super().__init__()
        self.reader, self.model = reader, reader.model.requires_grad_(True)

    def forward(self, batch):
        """The cross-entropy of the replies; in training its mean over the processes is that over all their tokens."""
        states = self.reader.prefill(batch).last
        return {"loss": text_loss(self.reader, states, batch["labels"], shared=self.training)}


def main(config: ReaderConfig):
    check_splits(config)
    with opening(f"the model {config.model}"):
        comprehension, processor = open_reader(config.model)
    reader = reader_of(comprehension, add_vokens(comprehension, processor, config.n_vokens, config.seed))
    model = ReaderModel(reader).to(pick_device())
    end_dry_run(model, config)
    draw, held_back = (open_mixture(config, role, reader) for role in ("train", "validation"))
    kinds = {"captions_one": False, "captions_two": True}
    scenes = {name: sample_scenes(config.judged, "validation", companion=kind) for name, kind in kinds.items()}

    def batches(index):
        return draw.batch(index)[1]

    def losses(batch, step):
        return model(batch)

    def evaluate():
        questions = [one.item[:-1] for one in held_back.batch(0)[0][: config.told]]
        for reply in decode_texts(reader, questions, max_new_tokens=60):
            print(f"{config.out.name}: told {reply!r}")
        return {name: examine_captions(reader, these) for name, these in scenes.items()}

    fit(model, batches, losses, config, config.out, evaluate, rows=draw.sizes)
    if is_main_process():
        save_result(comprehension, config.out / "model", reader.processor)


if __name__ == "__main__":
    run_program(main, ReaderConfig, __doc__, many_processes=True)
