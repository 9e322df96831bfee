"""Stories go on from what was told and painted before, and their folders are written whole or not at all."""

import io
import json
from itertools import takewhile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from minigpt5.data.tasks import continue_story, illustrate
from minigpt5.readers.prompts import PromptTooLongError
from minigpt5.story import StoryStep, check_folder, replace_folder, story_gif, tell_story, write_story

OPENING = "A red fox wakes up in the forest."


class Recorder:
    """Stands in for a pipeline: keeps the prompts, and says and paints something else on every call.

    From call `ends_at` on it says `ending` and paints only where it must.
    """

    def __init__(self, parts_that_fit=100, ends_at=100, ending="The end."):
        self.parts_that_fit, self.prompts, self.settings = parts_that_fit, [], []
        self.ends_at, self.ending = ends_at, ending

    def encode_prompt(self, prompts):
        if len(prompts[0][0]["content"]) > self.parts_that_fit:
            raise PromptTooLongError("the prompt is 600 tokens long, but the model's context holds 512; shorten it")

    def __call__(self, prompt, **settings):
        self.encode_prompt([prompt])
        self.prompts.append(prompt)
        self.settings.append(settings)
        number = len(self.prompts)
        ends = number >= self.ends_at
        painted = [] if ends and settings["image_mode"] == "auto" else [Image.new("L", (1, 1), number)]
        return SimpleNamespace(text=[self.ending if ends else f"text {number}"], images=[painted])


def parts(prompt):
    """A prompt's texts, and its pictures' numbers."""
    (message,) = prompt
    assert message["role"] == "user"
    return [part["text"] if part["type"] == "text" else part["image"].getpixel((0, 0)) for part in message["content"]]


def steps_of(count):
    return [StoryStep(i, f"step {i} <b>", Image.new("RGB", (64, 64), "red")) for i in range(1, count + 1)]


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_each_step_reads_all_before_it():
    pipe = Recorder()
    steps = list(tell_story(pipe, OPENING, Image.new("L", (1, 1), 99), steps=3, temperature=0.5))
    assert [step.text for step in steps] == [OPENING, "text 2", "text 3"]
    assert [step.index for step in steps] == [1, 2, 3]
    assert parts(pipe.prompts[0]) == [99, f"Draw this: {OPENING}"]
    assert parts(pipe.prompts[1]) == [OPENING, 1, "What happens next?"]
    assert parts(pipe.prompts[2]) == [OPENING, 1, "text 2", 2, "What happens next?"]
    for settings in pipe.settings:
        assert (settings["max_images"], settings["temperature"]) == (1, 0.5)
        assert settings["generator"] is pipe.settings[0]["generator"]
    # An opening has its picture; whether the story goes on is the model's choice.
    assert [settings["image_mode"] for settings in pipe.settings] == ["always", "auto", "auto"]


def test_a_step_without_a_picture_ends_the_story_unless_pictures_are_asked_for():
    steps = list(tell_story(Recorder(ends_at=3), OPENING, steps=5))
    assert [(step.index, step.text) for step in steps] == [(1, OPENING), (2, "text 2"), (3, "The end.")]
    assert [step.image is None for step in steps] == [False, False, True]
    silent = list(tell_story(Recorder(ends_at=3, ending=""), OPENING, steps=5))
    assert [step.text for step in silent] == [OPENING, "text 2"]
    pipe = Recorder(ends_at=3)
    painted = list(tell_story(pipe, OPENING, steps=5, image_mode="always"))
    assert [step.text for step in painted] == [OPENING, "text 2", "The end.", "The end.", "The end."]
    assert all(step.image for step in painted)
    assert {settings["image_mode"] for settings in pipe.settings} == {"always"}


def test_a_model_ends_its_story(pipe, script):
    paints = pipe.processor.voken_ids[0]
    script(["and", paints])
    told = tell_story(pipe, OPENING, steps=4)
    assert next(told).image is not None and next(told).image is not None
    script(["the", "end"])
    step = next(told)
    assert (step.index, step.text, step.image) == (3, "the end", None) and list(told) == []


def test_opening_and_latest_steps_are_kept_where_not_all_fit():
    pipe = Recorder(parts_that_fit=11)  # five steps and the question
    list(tell_story(pipe, OPENING, steps=8))
    assert parts(pipe.prompts[7])[::2] == [OPENING, "text 4", "text 5", "text 6", "text 7", "What happens next?"]


def test_fewer_than_opening_and_three_steps_are_not_told():
    told = tell_story(Recorder(parts_that_fit=8), OPENING, steps=8)
    for index in (1, 2, 3, 4):
        assert next(told).index == index
    with pytest.raises(ValueError, match=r"600 tokens.*512"):
        list(told)


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"opening": "  "}, ValueError, "the opening is empty"),
        ({"opening": None}, TypeError, "opening must be a string"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"steps": 2.0}, TypeError, "steps must be a whole number"),
        ({"steps": 10**9}, ValueError, "steps must be at most 1000"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"seed": None}, TypeError, "seed must be a whole number"),
        ({"image_mode": "never"}, ValueError, "image_mode must be one of auto, always"),
        ({"generator": None}, ValueError, "a story has its own generator"),
        ({"output_type": "np"}, ValueError, "a story has its own output_type"),
    ],
)
def test_arguments_are_checked_at_once(wrong, error, says):
    with pytest.raises(error, match=says):
        tell_story(Recorder(), **({"opening": OPENING} | wrong))


def test_seed_tells_the_story(tiny_pipe):
    def tell(seed):
        fox, options = Image.new("RGB", (9, 9), "red"), {"image_mode": "always", "do_sample": True}
        told = tell_story(tiny_pipe, OPENING, fox, steps=3, seed=seed, **options)
        return [(step.text, step.image.tobytes()) for step in told]

    first = tell(0)
    assert len(first) == 3
    assert first == tell(0)
    assert first != tell(1)


def pictures_read(looks):
    """How many a vision tower has looked at, by its calls; these are forgotten."""
    count = sum(len(kwargs["pixel_values"] if "pixel_values" in kwargs else args[0]) for args, kwargs in looks)
    looks.clear()
    return count


def test_no_picture_or_word_of_a_story_is_read_twice(tiny_pipe, count_calls):
    portrait = Image.new("RGB", (9, 9), "red")
    layer = count_calls(tiny_pipe.reader.language_model.layers[0])
    looks = count_calls(tiny_pipe.comprehension.vision_model)
    steps, widths, seen = [], [], []
    for step in tell_story(tiny_pipe, OPENING, portrait, steps=5, image_mode="always"):
        steps.append(step)
        # The first forward is the prompt's.
        args, kwargs = layer[0]
        widths.append((args[0] if args else kwargs["hidden_states"]).shape[1])
        seen.append(pictures_read(looks))
        layer.clear()
    assert seen == [1, 1, 1, 1, 1]

    # The same without a cache, all read again at each step.
    generator, before = torch.Generator().manual_seed(0), []
    for number, step in enumerate(steps):
        texts, pictures = [step.text for step in steps[:number]], [step.image for step in steps[:number]]
        asked = continue_story(texts, pictures) if number else illustrate([None], [portrait], OPENING)
        prompt = [{"role": "user", "content": asked}]
        ids = tiny_pipe.encode_prompt([prompt])["input_ids"][0]
        # The second prompt begins with another picture than the first.
        same = zip(ids.tolist(), before if number > 1 else [], strict=False)
        assert widths[number] == len(ids) - sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], same))
        before = ids.tolist()
        alone = tiny_pipe(prompt, image_mode="always", max_images=1, generator=generator)
        assert step.text == (alone.text[0] if number else OPENING)
        assert np.abs(np.asarray(step.image).astype(int) - np.asarray(alone.images[0][0])).max() <= 1
        assert sum(len(kwargs.get("pixel_values", args[0] if args else None)) for args, kwargs in looks) == max(
            1, number
        )
        looks.clear()


def test_too_long_an_opening(tiny_pipe):
    with pytest.raises(ValueError, match=r"\d+ tokens long.*holds 512"):
        next(tell_story(tiny_pipe, OPENING * 100))


def test_story_folder(tmp_path):
    out = tmp_path / "a" / "story"
    write_story(out, OPENING, "model", 3, steps_of(2))
    assert files(tmp_path / "a" / "story") == ["index.html", "step-1.png", "step-2.png", "story.json"]
    assert files(tmp_path / "a")[0] == "story" and len(files(tmp_path / "a")) == 5
    assert json.loads((out / "story.json").read_text()) == {
        "prompt": OPENING,
        "model": "model",
        "seed": 3,
        "steps": [{"text": f"step {i} <b>", "image": f"step-{i}.png"} for i in (1, 2)],
    }
    page = (out / "index.html").read_text()
    assert "step 2 &lt;b&gt;" in page and "<b>" not in page
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page
    assert Image.open(out / "step-2.png").getpixel((0, 0)) == (255, 0, 0)


def test_the_end_of_a_story_needs_no_picture(tmp_path):
    steps = [*steps_of(1), StoryStep(2, "The end.", None)]
    write_story(tmp_path / "story", OPENING, "model", 0, steps)
    record = json.loads((tmp_path / "story/story.json").read_text())
    assert record["steps"][1] == {"text": "The end.", "image": None}
    page = (tmp_path / "story/index.html").read_text()
    assert "The end." in page and page.count("<img") == 1
    # It is replaced as any other.
    write_story(tmp_path / "story", OPENING, "model", 1, steps)
    assert files(tmp_path) == ["story", "story/index.html", "story/step-1.png", "story/story.json"]

    animation = Image.open(io.BytesIO(story_gif(steps)))
    assert animation.n_frames == 2
    animation.seek(1)
    frame = animation.convert("L")
    # Its words are in the middle, where the other frame has its picture.
    dark = [y for y in range(frame.height) if min(frame.crop((0, y, 480, y + 1)).get_flattened_data()) < 100]
    assert abs((dark[0] + dark[-1]) / 2 - frame.height / 2) < 12 and frame.getpixel((2, 2)) > 240


def test_an_earlier_story_is_replaced(tmp_path):
    out = tmp_path / "story"
    write_story(out, OPENING, "model", 0, steps_of(5))
    write_story(out, OPENING, "model", 1, steps_of(1))
    assert files(tmp_path) == ["story", "story/index.html", "story/step-1.png", "story/story.json"]


@pytest.mark.parametrize(
    "names",
    [["notes.txt"], ["index.html"], ["story.json", "notes.txt"], ["reply.json"], ["story.json"], ["story.json/"]],
)
def test_other_files_are_not_replaced(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match="other files"):
        write_story(tmp_path, OPENING, "model", 0, steps_of(1))
    assert files(tmp_path) == before


@pytest.mark.parametrize("change", ["hidden", "another picture", "a link in a picture's place", "a record of anything"])
def test_what_was_put_into_a_story_is_not_removed(tmp_path, change):
    out = tmp_path / "story"
    write_story(out, OPENING, "model", 0, steps_of(2))
    if change == "hidden":
        (out / ".notes").touch()
    elif change == "another picture":
        (out / "step-3.png").touch()
    elif change == "a link in a picture's place":
        (out / "step-1.png").rename(tmp_path / "mine.png")
        (out / "step-1.png").symlink_to(tmp_path / "mine.png")
    else:
        (out / "story.json").write_text('{"steps": [{"image": ["step-1.png"]}]}')
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match="other files"):
        write_story(out, OPENING, "model", 0, steps_of(1))
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("told", "mine"),
    [
        ({"prompt": OPENING, "model": "m", "seed": 0, "steps": [{"image": "cover.png"}]}, "cover.png"),
        ({"prompt": OPENING, "model": "m", "seed": 0, "steps": [{"image": "../step-1.png"}]}, "step-1.png"),
        ({"title": "A story of my own", "pages": [{"image": "step-1.png"}]}, "step-1.png"),
    ],
)
def test_a_record_of_another_kind_gives_nothing_away(tmp_path, told, mine):
    (tmp_path / "story.json").write_text(json.dumps(told))
    (tmp_path / mine).touch()
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match="other files"):
        check_folder(tmp_path, "story.json")
    assert files(tmp_path) == before


def test_folders_that_cannot_be(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "story"):
        with pytest.raises(NotADirectoryError, match="is a file"):
            check_folder(out, "story.json")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(FileExistsError, match="current folder"):
        check_folder(tmp_path / "here", "story.json")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(PermissionError, match="not writable"):
        check_folder(tmp_path / "new", "story.json")


@pytest.mark.parametrize("interruption", [OSError, KeyboardInterrupt])
def test_nothing_half_written(tmp_path, interruption):
    class Broken:
        def save(self, path):
            raise interruption

    out = tmp_path / "story"
    write_story(out, OPENING, "model", 0, steps_of(1))
    before = (out / "story.json").read_bytes()
    with pytest.raises(interruption):
        replace_folder(out, "story.json", {"story.json": "{}", "step-1.png": Broken()})
    assert files(tmp_path) == ["story", "story/index.html", "story/step-1.png", "story/story.json"]
    assert (out / "story.json").read_bytes() == before


def test_a_story_without_a_picture_is_an_animation_of_its_words():
    animation = Image.open(io.BytesIO(story_gif([StoryStep(1, "The end.", None)])))
    assert animation.n_frames == 1 and animation.width == 480
    assert min(animation.convert("L").get_flattened_data()) < 100


def test_a_story_is_an_animation_too():
    texts = ["A red fox wakes up.", "It sees " + "a very " * 30 + "large cat at night."]
    steps = [StoryStep(i, text, Image.new("RGB", (64, 48), ("red", "blue")[i])) for i, text in enumerate(texts)]
    animation = Image.open(io.BytesIO(story_gif(steps, seconds=2)))
    assert animation.format == "GIF" and animation.n_frames == 2 and animation.width == 480
    for number, colour in enumerate([(255, 0, 0), (0, 0, 255)]):
        animation.seek(number)
        frame = animation.convert("RGB")
        # Enlarged, as wide as the frame, with room for all lines below.
        assert frame.getpixel((0, 0)) == frame.getpixel((479, 359)) == colour
        assert animation.info["duration"] == 2000 and frame.height > 360 + 5 * 24
        below = frame.crop((0, 361, 480, frame.height)).convert("L")
        assert min(below.get_flattened_data()) < 100 and below.getpixel((2, 2)) > 240
