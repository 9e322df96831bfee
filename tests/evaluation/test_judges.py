"""Judges: scripted, StoryWorld's, and a tiny random model."""

import pytest
from families import Families
from PIL import Image

from minigpt5.evaluation.interleaved_items import OPENING_CRITERIA
from minigpt5.evaluation.items import Criterion, Item, text_part, user_message
from minigpt5.evaluation.judges import ModelJudge, judge_replies, parse_mark
from minigpt5.evaluation.measure import Measurements, Weights
from minigpt5.evaluation.replies import Reply, ReplyFolder
from minigpt5.evaluation.speaker import Speaker
from minigpt5.evaluation.storyworld import StoryWorldJudge
from minigpt5.output import MiniGPT5PipelineOutput
from minigpt5.readers import add_vokens, reader_of
from minigpt5.storyworld.changes import changed
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.scene import Character, Scene
from minigpt5.storyworld.tasks import fresh_items


def item(number=0, criteria=(), picture=None):
    prompt = user_message([text_part("Draw a fox.")])
    return Item(f"{number}", f"{number}", "reply", (), None, None, picture, "auto", prompt, criteria=criteria)


@pytest.fixture
def shown(tmp_path, pictures):
    """A reply of a text and a picture."""
    pictures[0].save(tmp_path / "fox.png")
    return Reply(("Here it is.", tmp_path / "fox.png"))


class Scripted:
    """Replies with what it is told to, and notes what it was asked."""

    def __init__(self, *said):
        self.said, self.asked = said, []

    def __call__(self, prompts, **options):
        self.asked += prompts
        return MiniGPT5PipelineOutput(text=list(self.said), images=[], segments=[])


@pytest.mark.parametrize(
    ("text", "most", "mark"),
    [
        *(("7", 10, 7), ("Score: 7/10", 10, 7), ("8.5 of 10", 10, 8.5), ("1", 1, 1), ("0", 10, 0)),
        *(("11", 10, None), ("-1", 10, None), ("2", 1, None), ("good", 10, None), ("", 1, None)),
        *(("On a scale of 0 to 10: 8", 10, 8), ("Score (0-10): 9", 10, 9), ("0–10", 10, None), (".5", 10, 0.5)),
        *(("Criterion 1: 9", 10, 9), ("8. There are 2 foxes.", 10, 8), ("I give 3 out of 10, for 2 errors.", 10, 3)),
        *(("**7**", 10, 7), ("10/10", 10, 10), ("0.5 to 10", 10, 0.5), ("Score: -3", 10, None)),
        *(("On a scale of 1 to 10, I would rate this", 10, None), ("I rate it on a scale of 0 to 10.", 10, None)),
        *(("8 on a scale of 1-10.", 10, 8), ("9. 2 of 10 details are missing", 10, 9), ("1. Style: 8/10", 10, 8)),
        *(("I say 7 of 10, for 2 errors.", 10, 7), ("No problems. 1", 1, 1), ("Yes, all 2 foxes are there", 1, 1)),
        *(("No, it shows 2 foxes instead of 1.", 1, 0), ("Yes, the number of errors is 0.", 1, 1), ("No: 0", 1, 0)),
        *(("I rate it 7 on a scale from 0, bad, to 10, perfect.", 10, 7), ("From 0 (bad) to 10 (best), a 7", 10, 7)),
        *(("On a scale between 0 and 10, I would", 10, None), ("I give it 7 out of a possible 10.", 10, 7)),
        *(("Score: 7 (10 is perfect)", 10, 7), ("Score: 7. There are 3 foxes.", 10, 7), ("My rating is 6.5.", 10, 6.5)),
        *(("4/5", 10, None), ("Score: 4 out of 5", 10, None), ("2 out of 3 foxes are there. Score: 7", 10, 7)),
        *(("8,5/10", 10, 8.5), ("1/10", 1, None), ("1 if it is so, 0 if not: 0", 1, 0), ("7, for 2 errors", 10, 7)),
        *(("1. The fox is red. Score: 9", 10, 9), ("Mark -1", 10, None)),
        *(("Yes", 1, 1), ("No, it is not.", 1, 0), ("yes", 10, None), ("not 1", 1, 1), ("3.10", 10, 3.1)),
    ],
)
def test_the_mark_is_what_a_reply_says_to_be_one(text, most, mark):
    assert parse_mark(text, most) == mark


def test_a_model_is_asked_by_each_criterion_with_input_and_output(shown):
    system = Scripted("10", "a 4, I think", "no idea")
    judge = ModelJudge("scripted", system)
    criteria = (Criterion("Correctness", "It is true.", 10), Criterion("Style", "It is one.", 10))
    criteria = (*criteria, Criterion("Completeness", "All is there.", 10))
    assert judge.score(item(criteria=criteria), shown) == {"Correctness": 1.0, "Style": 0.4}
    for prompt, criterion in zip(system.asked, criteria, strict=True):
        (message,) = prompt
        told = [part.get("text", "PICTURE") for part in message["content"]]
        assert told[:-1] == ["INPUT:", "Draw a fox.", "OUTPUT:", "Here it is.", "PICTURE"]
        assert criterion.statement in told[-1] and "from 0, bad, to 10" in told[-1]


def test_criteria_of_one_name_are_averaged(shown):
    criteria = [Criterion(name, "It is so.", 1) for name in ("text", "image", "image", "image")]
    system = Scripted("0", "1", "1", "0")
    assert ModelJudge("scripted", system).score(item(criteria=criteria), shown) == {"text": 0, "image": 2 / 3}
    assert "1 if it is so, 0 if not" in system.asked[0][0]["content"][-1]["text"]
    assert ModelJudge("scripted", Scripted()).score(item(), shown) == {}


def test_a_random_model_judges_within_the_scale(shown, texts):
    model, processor = Families(texts)("llava")
    processor = add_vokens(model, processor, 1)
    scores = ModelJudge("random", Speaker(reader_of(model, processor))).score(item(criteria=OPENING_CRITERIA), shown)
    assert scores.keys() <= {criterion.name for criterion in OPENING_CRITERIA}
    assert all(0 <= value <= 1 for value in scores.values())


def test_storyworld_s_judge_sees_what_is_right(tmp_path):
    scene = Scene(Character("fox", "red"), "left", "meadow", "day")
    other = Scene(Character("fox", "red"), "left", "meadow", "night")
    for name, one in (("day", scene), ("night", other)):
        draw(one).save(tmp_path / f"{name}.png")
    judge, wanted = StoryWorldJudge({"true.png": scene}), item(picture="true.png")
    right = judge.score(wanted, Reply(("A red fox in a meadow.", tmp_path / "day.png")))
    assert right == {"Picture": 1, "Attributes": 1, "Image-Text Coherency": 1}
    wrong = judge.score(wanted, Reply(("A red fox by day.", tmp_path / "night.png")))
    assert wrong == {"Picture": 0, "Attributes": pytest.approx(0.8), "Image-Text Coherency": 0}
    assert judge.score(wanted, Reply(("A red fox.",))) == {"Picture": 0, "Attributes": 0}
    assert judge.score(item(), Reply(("Hello.", tmp_path / "day.png"))) == {}


def test_storyworld_s_judge_goes_by_what_a_reply_concludes_with(tmp_path):
    """A change is told behind a comparison that names what was there before."""
    judge, kinds = StoryWorldJudge({}), set()
    for one in fresh_items(changed, 40):
        draw(one.scene).save(tmp_path / "new.png")
        scores = judge.score(item(), Reply((one.text, tmp_path / "new.png")))
        assert scores == {"Image-Text Coherency": 1}, one.text
        kinds.add(one.kind)
    assert len(kinds) == 6


def test_scores_become_figures_with_intervals_and_gaps_are_told(tmp_path):
    class Half:
        name = "half"

        def score(self, item, reply):
            if item.id == "3":
                raise ValueError("too long")
            marks = {"0": {"Style": 0.0, "Truth": 1.0}, "1": {"Style": 1.0}, "2": {}}
            return marks[item.id]

    folder = ReplyFolder(tmp_path)
    folder.claim({})
    items = [item(number) for number in range(4)]
    for one in items:
        folder.write(one.id, ["Hello.", Image.new("RGB", (8, 8))])
    measurements = Measurements(items, folder, Weights())
    judge_replies(measurements, Half())
    figures = measurements.tasks["reply"].figures
    assert figures["judge: Style"].estimate == 0.5 and figures["judge: Truth"].estimate == 1
    assert (figures["judge: Style"].low, figures["judge: Style"].high) == (0, 1)
    assert measurements.notes == [
        "reply: the judge refused 1 of 4; 3: too long.",
        "reply: the judge said nothing that counts of 1 of 4.",
        "Figures that begin with “judge” are by half.",
    ]
