"""Blind judging by people: the page, its key, and the table of answers."""

import json
import re

import pytest
from PIL import Image

from minigpt5.evaluation.human_study import compare, study_html, tally, tally_markdown
from minigpt5.evaluation.items import story_items
from minigpt5.evaluation.replies import Reply, ReplyFolder
from minigpt5.metrics.intervals import wilson_interval

NAMES = ("our-model", "their-model")


@pytest.fixture
def items(data):
    return story_items(data / "vist", "validation", 2, tasks=("next step",))


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (200, 200), "red").save(tmp_path / "large.png")
    return tmp_path / "large.png"


def replies(items, *segments):
    return {item.id: Reply(segments) for item in items}


def sheet(study, judge="", **answers):
    return {"study": study, "judge": judge, "answers": [{"item": item, **given} for item, given in answers.items()]}


def test_sides_and_order_are_drawn_by_the_seed_and_even(items, picture):
    ours, theirs = replies(items, NAMES[0], picture), replies(items, NAMES[1], picture)
    comparisons, key = compare(items, ours, theirs, NAMES, seed=3)
    assert compare(items, ours, theirs, NAMES, seed=3) == (comparisons, key)
    other, _ = compare(items, ours, theirs, NAMES, seed=4)
    assert [both.item.id for both in other] != [both.item.id for both in comparisons]
    assert sorted(both.item.id for both in comparisons) == sorted(item.id for item in items)
    for both in comparisons:
        assert (both.left[0], both.right[0]) in ((NAMES, NAMES[::-1]))
        assert both.left[0] == key["left"][both.item.id]
    assert list(key["left"].values()).count(NAMES[0]) == len(items) // 2


def test_other_replies_are_another_study(items, picture):
    theirs, keys = replies(items, "It rains.", picture), []
    for words, colour in (("It snows.", "red"), ("It rains.", "red"), ("It snows.", "blue")):
        Image.new("RGB", (200, 200), colour).save(picture)
        keys.append(compare(items, replies(items, words, picture), theirs, NAMES)[1])
    assert len({key["study"] for key in keys}) == 3


def test_systems_of_one_name_cannot_be_told_apart(items):
    with pytest.raises(ValueError, match="both systems are called 'a'"):
        compare(items, replies(items), replies(items), ("a", "a"))


def test_the_page_stands_alone_and_does_not_tell_who_is_who(items, picture):
    ours, theirs = replies(items, "It <b>rains</b>.", picture), replies(items, "</script>", picture)
    comparisons, key = compare(items, ours, theirs, NAMES)
    page = study_html(key["study"], comparisons)
    assert not re.search(r'(src|href)="', page) and "http" not in page
    assert not any(name in page for name in NAMES)
    assert page.count("</script>") == 2 and "It &lt;b&gt;rains&lt;/b&gt;." in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert set(re.findall(r'data-picture="(\w+)"', page)) == set(data["pictures"])
    # Four steps of two stories as PNG, and one large picture as JPEG for all replies.
    kinds = [url.split(";")[0] for url in data["pictures"].values()]
    assert sorted(kinds) == ["data:image/jpeg"] + ["data:image/png"] * 8
    assert data["questions"] == ["language_continuity", "image_quality", "multimodal_coherence"]


@pytest.mark.slow
def test_judges_of_one_name_or_none_save_files_that_are_told_apart(items, picture, tmp_path, browser):
    comparisons, key = compare(items, replies(items, picture), replies(items, picture), NAMES)
    (tmp_path / "study.html").write_text(study_html(key["study"], comparisons))
    names, sheets = [], []
    for name in ("A. B.", "A. B.", "", ""):
        page = browser.new_context().new_page()
        page.goto((tmp_path / "study.html").as_uri())
        for _ in comparisons:
            page.locator(".comparison:visible .choices label").first.click()
            page.click("#next")
        page.fill("#judge", name)
        for _ in range(2):
            with page.expect_download() as saved:
                page.click("#save")
            names.append(saved.value.suggested_filename)
        sheets.append(json.loads(saved.value.path().read_text()))
    assert len(set(names)) == 4
    assert all(re.fullmatch(r"answers-(A-B|anonymous)-\w+\.json", name) for name in names)
    (result,) = tally(key, sheets)
    assert result.count == 4 * len(items)


def test_replies_without_words_are_asked_for_their_pictures_alone(items, picture):
    comparisons, key = compare(items, replies(items, picture), replies(items, picture), NAMES)
    page = study_html(key["study"], comparisons)
    assert page.count('data-question="image_quality"') == len(items) and "language_continuity" not in page


def test_answers_come_to_shares_with_wilson_intervals():
    key = {"study": "s", "names": ["ours", "theirs"], "left": {"a": "ours", "b": "theirs", "c": "ours"}}
    first = sheet("s", "Ann", a={"image_quality": "left"}, b={"image_quality": "right"}, c={"image_quality": "same"})
    second = sheet("s", "Bob", b={"image_quality": "left"})
    (result,) = tally(key, [first, second])
    assert (result.question, result.count) == ("image_quality", 4)
    assert result.first == wilson_interval(2, 4) and result.second == result.same == wilson_interval(1, 4)
    assert "| Image quality | 50.0 % [15.0, 85.0] | 25.0 % [4.6, 69.9] |" in tally_markdown(key, [result])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([sheet("t", a={"image_quality": "left"})], "do not go with the key"),
        ([sheet("s", z={"image_quality": "left"})], "no item of the study"),
        ([sheet("s", a={"image_quality": "up"})], "one of left, same, right"),
        ([sheet("s", a={"image_quality": "left"})] * 2, "twice"),
    ],
)
def test_answers_that_do_not_fit_are_refused(given, says):
    key = {"study": "s", "names": ["ours", "theirs"], "left": {"a": "ours"}}
    with pytest.raises(ValueError, match=says):
        tally(key, given)


def test_the_program_makes_a_study_of_two_folders_and_counts_it(
    data, items, tmp_path, pictures, run_program, refused, capsys
):
    def run(*arguments):
        run_program("evaluation/human_study", *arguments)

    for number, name in enumerate(NAMES):
        folder = ReplyFolder(tmp_path / name)
        folder.claim({"layout": "vist", "data": str(data / "vist"), "split": "validation"})
        # The second system has not replied to all.
        for item in items[: len(items) - number]:
            folder.write(item.id, [name, pictures[number]])
    folders = [tmp_path / name for name in NAMES]
    run("page", *folders, "--names", *NAMES, "--count", 4, "--out", tmp_path / "study")
    key = json.loads((tmp_path / "study/key.json").read_text())
    assert len(key["left"]) == 4 and (tmp_path / "study/study.html").exists()
    given = {item: {"image_quality": "left" if name == NAMES[0] else "right"} for item, name in key["left"].items()}
    (tmp_path / "answers.json").write_text(json.dumps(sheet(key["study"], "Ann", **given)))
    run("table", tmp_path / "study/key.json", tmp_path / "answers.json")
    assert "| Image quality | 100.0 % [51.0, 100.0] | 0.0 % [0.0, 49.0] |" in capsys.readouterr().out
    page = (tmp_path / "study/study.html").read_bytes()
    run("page", *folders, "--names", *NAMES, "--count", 4, "--out", tmp_path / "study")
    told = refused("evaluation/human_study", "page", *folders, "--count", 4, "--seed", 1, "--out", tmp_path / "study")
    assert "key.json is another study's" in told
    ReplyFolder(tmp_path / NAMES[0]).write(next(iter(key["left"])), ["It is another model's."])
    told = refused(
        "evaluation/human_study", "page", *folders, "--names", *NAMES, "--count", 4, "--out", tmp_path / "study"
    )
    assert "key.json is another study's" in told
    assert (tmp_path / "study/study.html").read_bytes() == page
    again = ("page", *folders, "--out", tmp_path / "again")
    assert "next step" in refused("evaluation/human_study", *again, "--task", "every step")
    (tmp_path / "answers.json").write_text("{")
    told = refused("evaluation/human_study", "table", tmp_path / "study/key.json", tmp_path / "answers.json")
    assert "answers.json, line 1, column 2: not JSON" in told
    ours = ReplyFolder(tmp_path / NAMES[0])
    for settings, words in (
        (ours.settings | {"split": "test"}, "the two evaluations have different split: 'test' and 'validation'"),
        ({"layout": "vist"}, "no data; the fields are layout"),
    ):
        (ours.root / "settings.json").write_text(json.dumps(settings))
        assert words in refused("evaluation/human_study", *again)
    assert not (tmp_path / "again").exists()
