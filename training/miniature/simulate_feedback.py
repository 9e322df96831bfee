r"""Ask a model StoryWorld's questions of one kind, and keep what somebody who knows the truth thinks of its replies.

    python training/miniature/simulate_feedback.py --kind "place and time" --count 200 \
        --out runs/feedback/feedback.sqlite

What is right gets a thumb up, what is wrong a thumb down and a correction. Questions are worded as in training and are
of scenes that no other split has.
"""

from dataclasses import dataclass
from pathlib import Path

from minigpt5.loading import ModelSettings, identity, open_model
from minigpt5.service.feedback import Feedback, FeedbackStore
from minigpt5.storyworld.examine import ask
from minigpt5.storyworld.marks import MARKS
from minigpt5.storyworld.questions import ASKED, UNTAUGHT
from minigpt5.storyworld.tasks import fresh_items
from minigpt5.utils.files import check_file
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import setting

KINDS = ASKED | UNTAUGHT


@dataclass(kw_only=True)
class FeedbackConfig(ModelSettings):
    """What is asked."""

    kind: str = setting("place and time", choices=tuple(KINDS), help="of question")
    count: int = setting(200, least=1, help="questions")
    out: Path = setting(help="SQLite file for the feedback, made if it is not there")


def main(config: FeedbackConfig):
    check_file(config.out)
    pipe, model = open_model(config.model, config.adapter), identity(config.model, config.adapter)
    items = list(fresh_items(KINDS[config.kind], config.count, "feedback", "train"))
    questions = [item.messages()[:1] for item in items]
    replies, _ = ask(pipe, questions, image_mode="never")
    config.out.parent.mkdir(parents=True, exist_ok=True)
    store, right = FeedbackStore(config.out), 0
    for number, (item, question, reply) in enumerate(zip(items, questions, replies, strict=True)):
        good = MARKS[item.kind](reply, item.text)
        right += good
        opinion = {"rating": "up"} if good else {"rating": "down", "correction": [item.text]}
        settings = {"do_sample": False, "image_mode": "never"}
        name = f"{model['revision']}/{config.kind}/{number:06}"
        store.put(Feedback(name, model, question, settings, 0, [reply] if reply else [], **opinion))
    print(f"{config.out}: {right} thumbs up, {config.count - right} corrections")


if __name__ == "__main__":
    run_program(main, FeedbackConfig, __doc__)
