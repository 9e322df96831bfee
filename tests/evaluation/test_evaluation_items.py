"""What systems are asked."""

import json
import shutil

import pytest
from PIL import Image

from minigpt5.data.published import COMMAND, DIALOGUE, STORY, cc3m_examples, mmdialog_examples, vist_examples
from minigpt5.data.readers import read_cc3m, read_mmdialog, read_vist
from minigpt5.evaluation.items import alignment_items, dialogue_items, story_items
from minigpt5.readers.prompts import Mark


def parts(message):
    """A message's content: texts as they are, pictures as "PICTURE"."""
    return [part["text"] if part["type"] == "text" else "PICTURE" for part in message["content"]]


def spell(pieces):
    return "".join("<P>" if piece is Mark.IMAGE else piece for piece in pieces).strip()


def test_a_caption_is_asked_for_as_a_picture(data):
    items = alignment_items(data / "cc3m", "validation", count=3)
    captions = read_cc3m(data / "cc3m", "validation")["caption"]
    assert [item.id for item in items] == ["000000", "000001", "000002"]
    assert parts(items[0].prompt()[0]) == ["Draw this:", captions[0]]
    assert items[0].image_mode == "always" and Image.open(items[0].picture).size == (64, 64)


def test_the_final_step_is_asked_for_under_four_contexts(data):
    items = {item.task: item for item in story_items(data / "vist", "validation", 1) if item.task.startswith("final")}
    row = read_vist(data / "vist", "validation")[0]
    *texts, last = row["texts"]
    asked = ["Draw this:", last]
    assert parts(items["final, no context"].prompt()[0]) == asked
    assert parts(items["final, text context"].prompt()[0]) == texts + asked
    assert parts(items["final, image context"].prompt()[0]) == ["PICTURE"] * 4 + asked
    both = [part for text in texts for part in (text, "PICTURE")]
    assert parts(items["final, image-text context"].prompt()[0]) == both + asked
    assert {item.picture for item in items.values()} == {items["final, no context"].picture}


def test_of_a_story_without_a_step_nothing_is_asked(data, tmp_path):
    whole = {item.id: item.text for item in story_items(data / "vist", "validation", 1)}
    stories = json.loads((data / "vist/validation_cleaned.json").read_text())
    (tmp_path / "validation_cleaned.json").write_text(json.dumps(dict(list(stories.items())[:1]) | {"empty": []}))
    shutil.copy(data / "vist/validation_image_mapping.json", tmp_path)
    assert {item.id: item.text for item in story_items(tmp_path, "validation")} == whole


def test_of_a_caption_or_a_step_without_a_word_no_picture_is_asked(data, tmp_path):
    (tmp_path / "cc3m_validation.tsv").write_text("caption\timage_path\n \ta.png\nA fox.\tb.png\n\tc.png\n")
    for prompts in ("chat", "published"):
        assert [item.id for item in alignment_items(tmp_path, "validation", prompts=prompts)] == ["000001"]
    steps = [
        {"caption": text, "image_id": str(number), "sequence_index": number}
        for number, text in enumerate(("It rains.", "", " "))
    ]
    (tmp_path / "validation_cleaned.json").write_text(json.dumps({"story": steps}))
    (tmp_path / "validation_image_mapping.json").write_text(json.dumps({str(number): "a.png" for number in range(3)}))
    assert [item.id for item in story_items(tmp_path, "validation")] == [
        "000000-every-step-1",
        "000000-next-step-2",
        "000000-next-step-3",
    ]


def test_every_step_and_every_next_step_follow_the_true_steps(data):
    items = story_items(data / "vist", "validation", 2, tasks=("every step", "next step"))
    row = read_vist(data / "vist", "validation")[1]
    steps = [item for item in items if item.task == "every step" and item.group == "000001"]
    told = [item for item in items if item.task == "next step" and item.group == "000001"]
    assert [item.sentence for item in steps] == row["texts"] and [item.sentence for item in told] == [None] * 4
    assert parts(steps[2].prompt()[0])[:4] == [row["texts"][0], "PICTURE", row["texts"][1], "PICTURE"]
    assert parts(told[0].prompt()[0]) == [row["texts"][0], "PICTURE", "What happens next?"]
    assert [item.text for item in told] == row["texts"][1:]
    shown = told[3].prompt()[0]["content"][-2]["image"]
    assert shown.tobytes() == row["images"][3].convert("RGB").tobytes()


def test_the_second_speaker_s_turns_are_asked_for(data):
    items = dialogue_items(data / "mmdialog", "validation", 1)
    row = read_mmdialog(data / "mmdialog", "validation")[0]
    assert [item.text for item in items] == row["texts"][1::2]
    assert [item.picture is None for item in items] == [image is None for image in row["images"][1::2]]
    prompt = items[1].prompt()
    assert [message["role"] for message in prompt] == ["user", "assistant", "user"]
    assert [text for message in prompt for text in parts(message) if text != "PICTURE"] == row["texts"][:3]
    assert all(item.image_mode == "auto" for item in items)


def test_a_talk_ends_before_a_picture_that_is_missing(data, tmp_path):
    shutil.copytree(data / "mmdialog", tmp_path / "talks")
    items = dialogue_items(tmp_path / "talks", "validation", 1)
    shown = next(item for item in items if item.picture)
    (tmp_path / shown.picture).unlink()
    assert dialogue_items(tmp_path / "talks", "validation", 1) == items[: items.index(shown)]


def test_published_prompts_are_those_of_the_published_code(data):
    class First:
        """Draws the first of everything."""

        choice = staticmethod(lambda words: words[0])

    pairs = alignment_items(data / "cc3m", "validation", prompts="published")
    examples = list(cc3m_examples(read_cc3m(data / "cc3m", "validation"), First(), test=True))
    assert [spell(item.prompt().source) for item in pairs] == [spell(example.source) for example in examples]
    assert COMMAND not in spell(pairs[0].prompt().source)

    stories = story_items(data / "vist", "validation", prompts="published", tasks=("every step",))
    examples = list(vist_examples(read_vist(data / "vist", "validation"), First(), test=True))
    assert [spell(item.prompt().source) for item in stories] == [spell(example.source) for example in examples]
    assert [len(item.prompt().images) for item in stories] == [len(example.images) for example in examples]
    assert spell(stories[0].prompt().source).startswith(STORY)

    talks = dialogue_items(data / "mmdialog", "validation", prompts="published")
    examples = list(mmdialog_examples(read_mmdialog(data / "mmdialog", "validation")))
    assert [spell(item.prompt().source) for item in talks] == [spell(example.source) for example in examples]
    assert spell(talks[0].prompt().source).startswith(DIALOGUE.strip())


def test_an_empty_split_is_told(data, tmp_path):
    shutil.copytree(data / "cc3m", tmp_path / "pairs")
    (tmp_path / "pairs/cc3m_empty.tsv").write_text("caption\timage_path\n")
    with pytest.raises(ValueError, match="nothing to ask"):
        alignment_items(tmp_path / "pairs", "empty")
