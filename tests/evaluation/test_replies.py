"""Replies on disk."""

import pytest
from PIL import Image

from minigpt5.evaluation.items import Item, alignment_items, text_part, user_message
from minigpt5.evaluation.replies import ReplyFolder


def test_a_reply_reads_as_it_was_written(tmp_path, pictures):
    replies = ReplyFolder(tmp_path)
    replies.claim({"seed": 0})
    replies.write("a", ["It is night.", pictures[0], "The end."])
    reply = replies.read("a")
    assert reply.text == "It is night. The end."
    assert [type(part).__name__ for part in reply.segments] == ["str", "PosixPath", "str"]
    assert reply.pictures[0].tobytes() == pictures[0].tobytes()
    assert "a" in replies and "b" not in replies
    with pytest.raises(FileNotFoundError, match="no reply to item b"):
        replies.read("b")


def test_a_reply_without_its_pictures_is_not_there(tmp_path, pictures, monkeypatch):
    replies = ReplyFolder(tmp_path)
    replies.claim({})

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        replies.write("a", ["It is night.", pictures[0]])
    assert "a" not in replies


def test_a_folder_takes_replies_of_one_kind_of_settings(tmp_path):
    replies = ReplyFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match="an evaluation program wrote"):
        _ = replies.settings
    replies.claim({"seed": 0, "unet": None})
    replies.claim({"seed": 0, "unet": None})
    assert replies.settings == {"seed": 0, "unet": None}
    with pytest.raises(ValueError, match="seed 0, not 1"):
        replies.claim({"seed": 1, "unet": None})


def question(name, words, truth=None):
    prompt = user_message([text_part(words)])
    return Item(name, name, "reply", (), None, truth, None, "auto", prompt)


def test_a_reply_is_not_taken_for_that_to_another_question(tmp_path):
    replies = ReplyFolder(tmp_path)
    replies.claim({})
    replies.note([question("a", "Who is it?"), question("b", "Where?")])
    replies.write("a", ["A fox."])
    # More questions, other truths, and other questions where nothing was replied.
    replies.note([question("a", "Who is it?", "A red fox."), question("b", "When?"), question("c", "Why?")])
    replies.write("b", ["At night."])
    for changed in (question("a", "Who is this?"), question("b", "Where?")):
        with pytest.raises(ValueError, match=f"a reply to another question {changed.id}, so the data have changed"):
            ReplyFolder(tmp_path).note([changed])


@pytest.mark.parametrize("prompts", ["chat", "published"])
def test_rows_in_another_order_are_other_questions(tmp_path, prompts):
    captions = [f"a fox number {number}\tfox-{number}.png\n" for number in range(2)]
    (tmp_path / "cc3m_train.tsv").write_text("caption\timage_path\n" + "".join(captions))
    replies = ReplyFolder(tmp_path / "out")
    replies.claim({})
    replies.note(alignment_items(tmp_path, "train", 1, prompts))
    replies.write("000000", ["A fox."])
    replies.note(alignment_items(tmp_path, "train", None, prompts))
    (tmp_path / "cc3m_train.tsv").write_text("caption\timage_path\n" + "".join(reversed(captions)))
    with pytest.raises(ValueError, match="a reply to another question 000000"):
        replies.note(alignment_items(tmp_path, "train", None, prompts))
