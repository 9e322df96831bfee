r"""Train the miniature's comprehension stack (ViT, Q-Former, projection, Llama) on captions, stories, talks, questions.

    python training/miniature/pretrain_comprehension.py --config configs/storyworld-mini/comprehension.yaml \
        --data runs/mini/data --out runs/mini/comprehension
"""

import random
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from torch import nn

from minigpt5.data.layouts import chat_rows
from minigpt5.data.mixture import ASKED_TASKS
from minigpt5.data.readers import read_cc3m, read_chat, read_mmdialog, read_vist
from minigpt5.data.tasks import caption_task, dialogue_task, story_tasks
from minigpt5.readers import reader_of
from minigpt5.readers.processor import MiniGPT5Processor
from minigpt5.storyworld.judge import NamingHead
from minigpt5.storyworld.language import describes, imagine
from minigpt5.storyworld.miniature import (
    ASKED_VOCAB_SIZE,
    CONTEXT_LENGTH,
    VOCAB_SIZE,
    build_comprehension,
    build_image_processor,
    build_tokenizer,
)
from minigpt5.training.fit import FitConfig, best_of, fit
from minigpt5.training.losses import text_loss
from minigpt5.training.results import save_result
from minigpt5.utils.processes import pick_device
from minigpt5.utils.programs import opening, run_program
from minigpt5.utils.settings import setting
from minigpt5.vokens.decoding import decode_texts

TASKS = ("caption", "story", "talk", "change", "turns", *ASKED_TASKS)


def spoken(rows, rng):
    """Conversations drawn from rows without end, of each reply its words alone; those without words are passed over."""
    while True:
        *before, reply = rows[rng.randrange(len(rows))]["messages"]
        words = [part for part in reply["content"] if part["type"] == "text"]
        if words:
            yield [*before, {**reply, "content": words}]


def build_processor(captions, stories, talks, chats):
    """The processor, with a tokenizer made from the texts it will see; `chats` are folders of them."""
    rng = random.Random(0)
    rows = [caption_task(row, None, rng) for row in captions["caption"][:20000]]
    rows += [story_tasks(texts, [None] * len(texts), rng) for texts in stories["texts"][:5000]]
    rows += [dialogue_task(texts, [None] * len(texts), rng) for texts in talks["texts"][:5000]]
    rows += [row for chat in chats for row in islice(chat_rows(chat, "train"), 5000)]
    renderer = MiniGPT5Processor(build_image_processor(), build_tokenizer([], False, CONTEXT_LENGTH))
    texts = (piece.strip() for row in rows for piece in [*renderer.render(row)[0], "###"] if isinstance(piece, str))
    vocab_size = ASKED_VOCAB_SIZE if chats else VOCAB_SIZE
    tokenizer = build_tokenizer(texts, lowercase=False, max_length=CONTEXT_LENGTH, vocab_size=vocab_size)
    return MiniGPT5Processor(build_image_processor(), tokenizer, num_query_tokens=8, n_vokens=8)


@dataclass(kw_only=True)
class ComprehensionConfig(FitConfig):
    """The comprehension stack."""

    data: Path = setting(help="folder of the exported data sets")
    out: Path = setting(help="folder for checkpoints and the result", passing=True)
    captions_only_steps: int = setting(least=0, help="of captions alone, before stories and talks come in")
    captions_only_batch_size: int = setting(least=1, help="captions of such a step")
    mix: dict[str, int] = setting(
        least=1,
        help=f"conversations a batch after those steps, by task: {', '.join(TASKS)}; batch_size is their sum",
    )
    naming_weight: float = setting(least=0, help="of the head that names what a picture shows")
    best: str = best_of("captions_one", "captions_two")

    def __post_init__(self):
        super().__post_init__()
        others = [task for task in self.mix if task not in TASKS]
        if others or "caption" not in self.mix:
            told = ", ".join(TASKS[1:])
            raise ValueError(f"mix is of caption, with or without {told}; got {', '.join(self.mix)}")
        if sum(self.mix.values()) != self.batch_size:
            raise ValueError(f"mix adds up to {sum(self.mix.values())} conversations, batch_size is {self.batch_size}")


class Stack(nn.Module):
    """The comprehension stack, and a head on its Q-Former that has to name what a picture shows.

    The head gives the queries something to look for long before the language model can; it is thrown away afterwards.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.namer = NamingHead(model.config.num_query_tokens * model.config.qformer_config.hidden_size)


def main(config: ComprehensionConfig):
    device = pick_device()
    captions, stories, talks = (
        reader(config.data / name, "train")
        for name, reader in (("cc3m", read_cc3m), ("vist", read_vist), ("mmdialog", read_mmdialog))
    )
    # There is nothing to learn from a story of one step or a talk of one turn.
    stories, talks = (
        rows.select([row for row, texts in enumerate(rows["texts"]) if len(texts) > 1]) for rows in (stories, talks)
    )
    asked = [task for task in config.mix if task not in ("caption", "story", "talk")]
    chats = {task: read_chat(config.data / task, "train") for task in asked}
    folder = config.out / "processor"
    if not folder.exists():
        save_result(build_processor(captions, stories, talks, [config.data / task for task in asked]), folder)
    with opening(f"the processor {folder}"):
        processor = MiniGPT5Processor.from_pretrained(folder)
    model = build_comprehension(len(processor.tokenizer), processor.image_token_id, processor.tokenizer)
    stack, reader = Stack(model).to(device), reader_of(model, processor)

    def batches(step):
        rng = random.Random(f"comprehension/{config.seed}/{step}")
        captions_only = step < config.captions_only_steps
        counts = {"caption": config.captions_only_batch_size} if captions_only else config.mix
        # Captions come first: the naming head reads the pictures in front.
        conversations, scenes = [], []
        for _ in range(counts["caption"]):
            row = captions[rng.randrange(len(captions))]
            conversations.append(caption_task(row["caption"], row["image"], rng))
            scenes.append(imagine(row["caption"]))
        for rows, make, count in (
            (stories, story_tasks, counts.get("story", 0)),
            (talks, dialogue_task, counts.get("talk", 0)),
        ):
            for _ in range(count):
                row = rows[rng.randrange(len(rows))]
                conversations.append(make(row["texts"], row["images"], rng, paint=False))
        for task, rows in chats.items():
            conversations += islice(spoken(rows, rng), counts.get(task, 0))
        return processor.training_batch(conversations).to(device), scenes

    def losses(batch, step):
        inputs, scenes = batch
        seen = model.get_image_features(inputs["pixel_values"], return_dict=True)
        states = reader.prefill(inputs, features=seen.pooler_output)
        text = text_loss(reader, states.last, inputs["labels"], shared=False)
        naming = stack.namer.loss(seen.qformer_outputs.last_hidden_state[: len(scenes)], scenes)
        return {"loss": text + config.naming_weight * naming, "text": text, "naming": naming}

    held_back = read_cc3m(config.data / "cc3m", "validation")
    held_back = held_back.select(range(min(200, len(held_back))))

    def evaluate():
        questions = [caption_task("", image, random.Random(0))[:1] for image in held_back["image"]]
        replies = decode_texts(reader, questions)
        truths = [imagine(caption) for caption in held_back["caption"]]
        right = [describes(reply, truth) for reply, truth in zip(replies, truths, strict=True)]
        lone = [ok for ok, truth in zip(right, truths, strict=True) if truth.companion is None]
        pairs = [ok for ok, truth in zip(right, truths, strict=True) if truth.companion]
        return {"captions_one": sum(lone) / len(lone), "captions_two": sum(pairs) / len(pairs)}

    fit(stack, batches, losses, config, config.out, evaluate)
    save_result(model, config.out / "model")


if __name__ == "__main__":
    run_program(main, ComprehensionConfig, __doc__)
