"""Replies on disk."""

import pytest
from PIL import Image

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
