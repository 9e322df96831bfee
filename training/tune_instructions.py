r"""A reader's later stages: it learns to answer instructions.

    accelerate launch training/tune_instructions.py --config configs/storyworld-mini/instructions.yaml \
        --data runs/mini/data --model runs/mini/projection/model --out runs/mini/instructions

MiniGPT-4's set is good descriptions in the layout of CC3M, each asked for by an instruction of a list
(`minigpt5.data.instructions`); others are chats of one's own in a JSONL file. `trains` and `lora` say what learns: the
connector alone as in MiniGPT-4, the language model too, visual experts, norms. The result, OUT/model, is a pipeline's
folder or a reader's, as the start was.
"""

from dataclasses import dataclass

from minigpt5.data.mixture import ASKED_TASKS
from minigpt5.training.reading import ReadingConfig, train_reading
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import setting
from minigpt5.vokens.decoding import decode_texts


@dataclass(kw_only=True)
class InstructionConfig(ReadingConfig):
    """A stage with instructions."""

    # Published instructions, StoryWorld's questions, one's own chats, and stories and talks without new pictures.
    tasks = ("instruct", "caption", "chat", "story_text", "talk_text", *ASKED_TASKS)

    told: int = setting(4, least=0, help="replies to validation questions that an evaluation prints")


def main(config: InstructionConfig):
    def tell(reader, held_back):
        questions = [one.item[:-1] for one in held_back.batch(0)[0][: config.told]]
        for reply in decode_texts(reader, questions, max_new_tokens=60):
            print(f"{config.out.name}: told {reply!r}")

    train_reading(config, tell=tell)


if __name__ == "__main__":
    run_program(main, InstructionConfig, __doc__, many_processes=True)
