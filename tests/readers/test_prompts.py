"""What is a prompt, and what is refused with one line that says where the fault lies."""

import pytest

from minigpt5.readers.prompts import Example, Mark, as_batch, check_messages, open_pictures
from minigpt5.readers.styles import MINIGPT4, PromptStyle
from minigpt5.utils.images import ImageError


def user(content):
    return [{"role": "user", "content": content}]


def test_one_prompt_is_a_batch_of_one(pictures):
    chat = user([{"type": "text", "text": "a"}])
    assert as_batch("a") == (["a"], [[]])
    assert as_batch(chat) == ([chat], [[]]) == as_batch(tuple(chat))
    assert as_batch("a <ImageHere>", pictures[0])[1] == [[pictures[0]]] == as_batch(["a <ImageHere>"], [pictures[0]])[1]
    assert as_batch(["a", "<ImageHere> b"], [None, pictures[0]]) == (["a", "<ImageHere> b"], [[], [pictures[0]]])


def test_pictures_without_a_mark_stand_in_front(pictures):
    assert as_batch("a", pictures[0])[0] == ["<ImageHere>a"]
    assert as_batch(["a", "b"], [pictures[:2], None])[0] == ["<ImageHere><ImageHere>a", "b"]


@pytest.mark.parametrize(
    ("prompt", "images", "error", "says"),
    [
        (None, None, TypeError, "a prompt is a string or a list of chat messages, got NoneType"),
        (b"a", None, TypeError, "got bytes"),
        ({"role": "user", "content": "a"}, None, TypeError, "got one alone; put it in a list"),
        ([], None, ValueError, "at least one prompt"),
        (["a", 3], None, TypeError, "prompt 2: a prompt is .* got int"),
        (["a", {"role": "user"}], None, TypeError, "prompt 2: .* got dict"),
        (["a", []], None, ValueError, "prompt 2: the prompt is empty"),
        (" ", None, ValueError, "the prompt is empty"),
        ("\ud800", None, ValueError, "surrogate"),
        (["a", "b"], "picture", TypeError, r"2 prompt\(s\) in a list need a list .* got Image"),
        (["a"], "picture", TypeError, r"1 prompt\(s\) in a list need a list .* got Image"),
        (["a", "b"], [None], ValueError, "2 prompts need 2 lists of images, got 1"),
        (Example("a"), None, TypeError, "source is a list of pieces, got str"),
        (["a", Example([])], None, ValueError, "prompt 2: the prompt is empty"),
        (Example([" ", ""]), None, ValueError, "the prompt is empty"),
        (Example(["a", None]), None, TypeError, "a piece of the source must be a string, got NoneType"),
    ],
)
def test_what_is_no_prompt(pictures, prompt, images, error, says):
    with pytest.raises(error, match=says):
        as_batch(prompt, pictures[0] if images == "picture" else images)


@pytest.mark.parametrize(
    ("messages", "error", "says"),
    [
        ([None], TypeError, "message 1: a message is a dictionary with role and content, got NoneType"),
        ([[{"role": "user", "content": "a"}]], TypeError, "got list"),
        ([{"role": "user"}], ValueError, "message 1 has no content"),
        ([{"role": "user", "content": None}], ValueError, "has no content"),
        ([{"content": "a"}], ValueError, "role is system .* got None"),
        ([{"role": ["user"], "content": "a"}], ValueError, "got a list"),
        ([*user("a"), {"role": "system", "content": "b"}], ValueError, r"message 2: .* system \(first only\)"),
        ([{"role": "user", "content": "a", "images": []}], ValueError, "there is no 'images', only role, content"),
        (user(3), TypeError, "content is a string or a list of parts, got int"),
        (user({"type": "text", "text": "a"}), TypeError, "got dict"),
        (user(["a"]), TypeError, "a part of the content is a dictionary with a type, got str"),
        (user([{"text": "a"}]), ValueError, "type text or image, got None"),
        (user([{"type": "video"}]), ValueError, "got 'video'"),
        (user([{"type": "text"}]), TypeError, "the text of a part must be a string, got NoneType"),
        (user([{"type": "text", "text": "a", "image": 1}]), ValueError, "a part of type text has no image"),
        (user([{"type": "image", "url": "a.png"}]), ValueError, "there is no 'url'"),
        (user([{"type": "text", "text": "\udfff"}]), ValueError, "surrogate"),
        ([{"role": "system", "content": [{"type": "image"}]}], ValueError, "system message holds text alone"),
        (user([]), ValueError, "the prompt is empty"),
        (user([{"type": "text", "text": " "}]), ValueError, "the prompt is empty"),
    ],
)
def test_malformed_messages(messages, error, says):
    with pytest.raises(error, match=says):
        check_messages(messages)


def test_what_is_none_counts_as_left_out(pictures):
    """Tables of messages have every column in every row."""
    parts = [{"type": "text", "text": "a", "image": None}, {"type": "image", "text": None, "image": pictures[0]}]
    (message,) = check_messages([{"role": "user", "content": parts, "name": None}])
    assert message["content"] == [{"type": "text", "text": "a"}, {"type": "image", "image": pictures[0]}]


def test_pictures_are_opened_where_they_are_named(tmp_path, pictures):
    pictures[0].save(tmp_path / "fox.png")
    for name in ("path", "url", "image"):
        (message,) = open_pictures(user([{"type": "image", name: str(tmp_path / "fox.png")}]))
        assert message["content"][0]["image"].tobytes() == pictures[0].tobytes()
    with pytest.raises(ImageError, match="cannot be opened"):
        open_pictures(user([{"type": "image", "path": str(tmp_path / "none.png")}]))


def test_a_style_writes_pieces_in_which_texts_stay_texts():
    chat = check_messages(user([{"type": "text", "text": "<ImageHere>"}, {"type": "image"}]))
    assert MINIGPT4.write(chat) == ["###Human: <ImageHere> <Img>", Mark.IMAGE, "</Img> ###Assistant:"]


def test_another_template_is_another_style():
    style = PromptStyle("{% for m in messages %}[{{ m.role }}] {{ m.content[0].text }}{% endfor %}")
    assert style.write(check_messages(user("a"))) == ["[user] a"]
    assert style.is_written("[user] a") and not style.is_written("a")
    with pytest.raises(ValueError, match="does not take this conversation: no talk"):
        PromptStyle("{{ raise_exception('no talk') }}").write(check_messages(user("a")))
