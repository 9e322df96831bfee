"""Questions whose answers are true, in wordings that training and judging do not share."""

import random
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from typos import within_one_edit

from minigpt5.storyworld.changes import change, changed
from minigpt5.storyworld.draw import boxes
from minigpt5.storyworld.items import USUAL_COLOURS
from minigpt5.storyworld.language import (
    KNOWN_WORDS,
    PLACE_PHRASES,
    TIME_PHRASES,
    describes,
    imagine,
    plain_caption,
    read,
    split_words,
)
from minigpt5.storyworld.marks import says_end, says_sorry
from minigpt5.storyworld.miniature import build_tokenizer
from minigpt5.storyworld.questions import ASKED
from minigpt5.storyworld.scene import COLOURS, HELD_OUT, KINDS, LIGHTS, SIDES, Character, Scene, sample_scene
from minigpt5.storyworld.tasks import TASKS, training_item, turns
from minigpt5.storyworld.wishes import paint_bare, paint_two
from minigpt5.storyworld.wordings import CHANGES, END_QUESTIONS, OUTSIDE, POLITE, QUESTIONS, SORRY, WISHES
from minigpt5.utils.boxes import parse_box

SEEDS = range(400)
# Some names stand in several of them.
ASKED_WORDINGS = {
    f"{kind}: {name}": wording
    for kind, lists in {"question": QUESTIONS, "change": CHANGES}.items()
    for name, wording in lists.items()
}
LISTS = {
    **ASKED_WORDINGS,
    **{f"outside: {name}": wording for name, wording in OUTSIDE.items()},
    "wishes": WISHES,
    "polite": POLITE,
    "end": END_QUESTIONS,
}


def items(make, wording="train"):
    return [make(random.Random(seed), wording) for seed in SEEDS]


def named(item):
    """The text of a question about one picture, with the animal's name for "it" where it names none."""
    scene, text = item.question
    others = {animal for animals in OUTSIDE["animal"].values() for animal in animals}
    if read(text).mentions or scene.companion or not others.isdisjoint(split_words(text)):
        return text
    return re.sub(r"\bit\b", f"the {scene.hero.kind}", text, count=1, flags=re.IGNORECASE)


@pytest.mark.parametrize("name", LISTS)
def test_wordings_for_judging_are_a_third_and_never_trained(name):
    train, fresh = LISTS[name]["train"], LISTS[name]["fresh"]
    assert not {text.lower() for text in train} & {text.lower() for text in fresh}
    assert len(set(train)) == len(train) and 0.25 <= len(fresh) / (len(train) + len(fresh)) <= 0.4


def test_training_asks_only_for_the_next_step_as_judging_does():
    """Whatever the animals, colours, places, times and boxes are, and however politely."""
    told = "|".join(
        sorted([*KINDS, *COLOURS, *sum([*PLACE_PHRASES.values(), *TIME_PHRASES.values()], ())], key=len)[::-1]
    )
    attributes = re.compile(rf"\b({told}|\d+)\b")

    def asked(wording, *frames):
        return {
            attributes.sub("X", re.sub(r"\W+", " ", frame.format(text=part)).lower())
            for task in TASKS
            for seed in SEEDS
            for part in TASKS[task](random.Random(seed), wording).question
            if isinstance(part, str)
            for frame in frames
        }

    trained, judged = asked("train", "{text}", *POLITE["train"]), asked("fresh", "{text}")
    assert len(trained) > 20_000 and len(judged) > 500
    assert trained & judged == {"what happens next ", "how does it go on ", "tell me the next scene with a picture "}


def test_fresh_wordings_of_what_is_in_the_world_are_made_of_trained_words():
    """What is judged is whether a new wording is understood, not whether a word that was never read is."""

    def words(texts):
        return {word for text in texts for word in split_words(re.sub(r"{\w+}", " ", text))}

    lists = [*ASKED_WORDINGS.values(), WISHES, POLITE, END_QUESTIONS]
    trained = words(text for wording in lists for text in wording["train"])
    for wording in lists:
        assert words(wording["fresh"]) <= trained


def test_no_held_out_pair_is_shown_or_told():
    for task in TASKS:
        for seed in range(300):
            item = training_item(task, random.Random(seed))
            for part in (*item.question, *item.answer):
                if isinstance(part, Scene):
                    assert not any(who.held_out for who in part.characters)
                else:
                    words = split_words(part)
                    pairs = {(kind, colour) for colour, kind in pairwise(words)}
                    assert not pairs & HELD_OUT, part


@pytest.mark.parametrize("wording", ["train", "fresh"])
def test_attributes_asked_for_are_those_of_the_scene(wording):
    for item in items(ASKED["colour"], wording):
        kind = next(word for word in split_words(named(item)) if word in KINDS)
        scene = item.question[0]
        ((side, who),) = [(side, who) for side, who in scene.slots.items() if who and who.kind == kind]
        # The middle is never one of two.
        where = f" on the {side}" if scene.companion else ""
        assert item.text == f"The {kind}{where} is {who.colour}."
    for item in items(ASKED["place"], wording):
        assert read(item.text).place == item.question[0].place
    for item in items(ASKED["time"], wording):
        assert read(item.text).time == item.question[0].time
    for item in items(ASKED["side"], wording):
        scene, (mention,) = item.question[0], read(named(item)).mentions
        assert scene.slots[split_words(item.text)[-1].replace("centre", "middle")].kind == mention.kind
    for item in items(ASKED["describe"], wording):
        assert describes(item.text, item.question[0])


@pytest.mark.parametrize("wording", ["train", "fresh"])
def test_animals_are_those_that_stand_there(wording):
    for item in items(ASKED["animal"], wording):
        scene, text = item.question
        named = [mention.kind for mention in read(item.text).mentions]
        there = {side: who.kind for side, who in scene.slots.items() if who}
        sides = {"left", "right", "middle", "centre"} & set(split_words(text))
        assert named == ([there[sides.pop()]] if sides else list(there.values()))


def true_of(text, scene):
    """What a yes-or-no question says, by the words in it alone."""
    words = set(split_words(text))
    reading = read(text)
    if "two" in words or "than" in words:
        return scene.companion is not None
    if not reading.mentions:
        return reading.time == scene.time if reading.time else False
    (mention,) = reading.mentions
    if not re.search(rf"\bthe (\w+ )?{mention.kind}\b", text, re.IGNORECASE):
        return any(who.kind == mention.kind and mention.colour in (None, who.colour) for who in scene.characters)
    (who,) = [who for who in scene.characters if who.kind == mention.kind]
    side = next(side for side, other in scene.slots.items() if other == who)
    return (
        mention.colour in (None, who.colour)
        and mention.side in (None, side)
        and reading.place in (None, scene.place)
        and reading.time in (None, scene.time)
    )


def check_reason(item, so):
    """A reply names what was asked for, then all that is in the picture beside whether it is that; gives what fits."""
    asked, told = item.text.removesuffix(so).rstrip().split("? ")
    scene, text = item.question
    wanted, repeated, seen = read(text), read(asked), read(told)
    assert repeated.place in (None, wanted.place) and repeated.time in (None, wanted.time), item
    for mention in repeated.mentions:
        assert any((mention.kind, mention.colour) == (other.kind, other.colour) for other in wanted.mentions), item
    for mention in seen.mentions:
        assert any(mention.kind == who.kind and mention.colour in (None, who.colour) for who in scene.characters), item
        if mention.side:
            assert scene.slots[mention.side].kind == mention.kind, item
    assert seen.place in (None, scene.place) and seen.time in (None, scene.time), item
    compared = [each.split(": ") for each in told.removesuffix(".").split(", ")]
    assert {fits for _, fits in compared} <= {"yes", "no"}, item
    return [what for what, fits in compared if fits == "yes"]


@pytest.mark.parametrize("wording", ["train", "fresh"])
def test_yes_and_no_are_true_and_come_equally_often(wording):
    asked = [ASKED["yes or no"](random.Random(seed), wording) for seed in range(2000)]
    for item in asked:
        so = " So yes." if true_of(named(item), item.question[0]) else " So no."
        assert item.text.endswith(so.split()[-1]), item
        assert bool(check_reason(item, so)) == (so == " So yes."), item
    assert 0.46 < sum(item.text.endswith("yes.") for item in asked) / len(asked) < 0.54


@pytest.mark.parametrize("wording", ["train", "fresh"])
def test_counts_are_those_of_the_scene(wording):
    asked = items(ASKED["count"], wording)
    for item in asked:
        scene, text = item.question
        words = split_words(text)
        there = [
            who
            for who in scene.characters
            if who.colour in words or f"{who.kind}s" in words or f"{who.kind}es" in words
        ]
        if "animals" in words and not any(colour in words for _, colour in HELD_OUT):
            there = list(scene.characters)
        so = f" So {('none', 'one', 'two')[len(there)]}."
        assert item.text.endswith(so) and item.text.split("? ")[0].lower() in text.lower(), item
        assert len(check_reason(item, so)) == len(there), item
        assert len(read(item.text.split("? ")[1]).mentions) == len(scene.characters), item
    assert min(Counter(item.text.split(" So ")[1] for item in asked).values()) > len(asked) / 4


def test_one_picture_alone_shows_what_is_asked_for():
    for item in items(ASKED["which"]):
        *scenes, text = item.question
        wanted = read(text)
        fits = [
            all(
                any(who.kind == m.kind and m.colour in (None, who.colour) for who in scene.characters)
                for m in wanted.mentions
            )
            and wanted.place in (None, scene.place)
            and wanted.time in (None, scene.time)
            for scene in scenes
        ]
        assert sum(fits) == 1 and len(scenes) in (2, 3)
        asked, told = item.text.split("? First ")
        told, picture = told.split(". So the ")
        assert picture == f"{('first', 'second', 'third')[fits.index(True)]} picture."
        assert [read(asked).place, read(asked).time] == [wanted.place, wanted.time]
        shown = re.split(", (?:second|third) ", told)
        assert ["yes" in split_words(each) for each in shown] == fits
        for seen, scene in zip(map(read, shown), scenes, strict=True):
            assert seen.place in (None, scene.place) and seen.time in (None, scene.time), item
            assert {(m.kind, m.colour) for m in seen.mentions} in (
                set(),
                {(w.kind, w.colour) for w in scene.characters},
            )


def test_compared_pictures_differ_in_what_the_answer_says():
    for item in items(ASKED["compare"]):
        before, after, _ = item.question
        words = split_words(item.text)
        differing = [
            name
            for name, one, other in (
                ("place", before.place, after.place),
                ("time", before.time, after.time),
                ("animal", [w.kind for w in before.characters], [w.kind for w in after.characters]),
                ("colour", [w.colour for w in before.characters], [w.colour for w in after.characters]),
            )
            if one != other
        ]
        assert differing == [words[1]], item


def test_boxes_are_those_of_the_drawing():
    for make in (TASKS["ground"], TASKS["refer"]):
        for item in items(make)[:150]:
            scene, asked = item.question
            written = parse_box(item.text) or parse_box(asked)
            phrase = item.text if parse_box(item.text) is None else asked
            mentions = read(phrase).mentions
            if mentions:
                name = mentions[0].kind
            elif LIGHTS[scene.time] in split_words(phrase):
                name = LIGHTS[scene.time]
            else:
                side = next(side for side in ("left", "middle", "right") if side in phrase)
                name = scene.slots[side].kind
            drawn = boxes(scene)[name]
            assert max(abs(one - other) for one, other in zip(written, drawn, strict=True)) <= 0.005 + 1e-9


def attributes(scene):
    return {"place": scene.place, "time": scene.time} | {side: who for side, who in scene.slots.items() if who}


def seen_to_change(steps):
    """Of each animal that a reply sees whether it says that this is meant."""
    return [seen.endswith(": yes") for seen in steps[0].split("? ")[1].split(", ")]


@pytest.mark.parametrize("wording", ["train", "fresh"])
@pytest.mark.parametrize("aspect", CHANGES)
def test_a_change_leaves_the_rest(aspect, wording):
    for seed in range(150):
        item = changed(random.Random(seed), wording, aspect)
        before, after = item.question[0], item.scene
        *steps, told = item.text.removesuffix(".").split(". ")
        assert describes(told, after) and after.decor == before.decor
        assert len(steps) == (2 if aspect in ("colour", "animal", "remove") else 0)
        old, new = attributes(before), attributes(after)
        unlike = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        if aspect in ("place", "time"):
            assert unlike == {aspect} and {"place": read, "time": read}[aspect](item.question[1])
        elif aspect == "add":
            assert len(new) == len(old) + 1 and (len(unlike) == 1 or before.side == "middle")
            assert before.hero in after.characters
        elif aspect == "remove":
            assert len(unlike) == 1 and unlike <= old.keys() and len(new) == len(old) - 1
            assert seen_to_change(steps) == [side in unlike for side in old if side in SIDES]
            assert steps[1] == "So gone"
        else:
            (side,) = unlike
            same = "kind" if aspect == "colour" else "colour"
            assert getattr(old[side], same) == getattr(new[side], same) and old[side] != new[side]
            named = getattr(new[side], "colour" if aspect == "colour" else "kind")
            assert named in split_words(item.question[1]) and steps[1].split()[-1] == named
            assert seen_to_change(steps) == [where == side for where in old if where in SIDES]


def test_only_one_of_two_can_be_removed():
    with pytest.raises(ValueError, match="one of two"):
        change(sample_scene(random.Random(0), companion=False), "remove", random.Random(0))


@pytest.mark.parametrize("wording", ["train", "fresh"])
def test_a_wish_tells_the_picture(wording):
    for make in (TASKS["paint"], paint_two, paint_bare):
        for item in items(make, wording):
            (text,) = item.question
            for kind in [mention.kind for mention in read(text).mentions if mention.colour is None]:
                text = re.sub(kind, f"{USUAL_COLOURS[kind]} {kind}", text, flags=re.IGNORECASE)
            imagined = imagine(text) or imagine(f"{text} in the meadow")
            assert replace(imagined, decor=0) == replace(item.scene, decor=0), text


@pytest.mark.parametrize("wording", ["train", "fresh"])
def test_what_lies_outside_is_no_word_of_the_world_nor_a_typo_of_one(wording):
    for kind in ("animal", "colour", "thing", "place"):
        for text in OUTSIDE[kind][wording]:
            for word in text.lower().split():
                near = [known for known in KNOWN_WORDS if len(known) > 3 and within_one_edit(word, known)]
                assert not near, (word, near)
    for item in items(TASKS["outside"], wording):
        assert item.text in SORRY.values() and says_sorry(item.text) and item.scene is None


def test_words_outside_the_world_are_split_too():
    fresh = " ".join(" ".join(OUTSIDE[kind]["fresh"]) for kind in ("animal", "colour", "thing")).split()
    wishes = [TASKS["outside"](random.Random(seed), "train") for seed in range(4000)]
    plain = {w for texts in (WISHES, *CHANGES.values()) for text in texts["train"] for w in split_words(text)}
    others = [SORRY[kind] for kind in ("picture", "request", "unseen")]
    worded = [item.question[-1] for item in wishes if item.text not in others]
    asked = {word for text in worded for word in split_words(text)}
    assert not asked & set(fresh)
    # Many are made up, and none is a typo of what the world has.
    assert len(asked) > 1000
    long = [known for known in KNOWN_WORDS if len(known) > 3]
    assert not [word for word in asked - KNOWN_WORDS - plain if any(within_one_edit(word, known) for known in long)]


@pytest.mark.parametrize("wording", ["train", "fresh"])
def test_the_turns_of_a_chat_are_about_its_last_picture(wording):
    for item in items(turns, wording):
        scene = None
        for turn in (*item.before, item):
            shown = [part for part in turn.question if isinstance(part, Scene)]
            # Shown by who asks at most once, at the beginning.
            assert len(shown) == (scene is None and turn.kind != "paint")
            (scene,) = shown or [scene]
            kinds = {who.kind for who in scene.characters} if scene else set()
            if turn.kind == "place":
                assert read(turn.text).place == scene.place
            elif turn.kind in ("animal", "colour", "side"):
                assert {mention.kind for mention in read(turn.text).mentions} <= kinds
            elif turn.kind == "describe":
                assert describes(turn.text, scene)
            elif turn.kind.startswith("change"):
                assert scene != turn.scene and turn.text.endswith(plain_caption(turn.scene))
                kept = [getattr(scene, name) == getattr(turn.scene, name) for name in ("hero", "companion")]
                assert any(kept) or turn.kind == "change remove"
            scene = turn.scene or scene
        assert 1 <= len(item.before) <= 3
        roles = [message["role"] for message in item.messages(lambda scene: scene)]
        assert roles == ["user", "assistant"] * (len(item.before) + 1)


def test_questions_about_no_picture_are_told_that_there_is_none():
    blind = [item for item in items(TASKS["outside"]) if item.text == SORRY["picture"]]
    assert 30 < len(blind) < 70 and not any(isinstance(part, Scene) for item in blind for part in item.question)


@pytest.mark.parametrize("wording", ["train", "fresh"])
def test_what_no_picture_tells_is_asked_of_one_and_the_only_animal_is_not_removed(wording):
    made = items(TASKS["outside"], wording)
    unseen, alone = ([item for item in made if item.text == SORRY[kind]] for kind in ("unseen", "alone"))
    assert len(unseen) > 30 and len(alone) > 5
    for item in (*unseen, *alone):
        scene, text = item.question
        assert all(mention.kind in {who.kind for who in scene.characters} for mention in read(text).mentions), item
    assert not any(item.question[0].companion for item in alone)


def test_stories_end_without_a_picture():
    for item in items(TASKS["ending"])[:100]:
        assert says_end(item.text) and item.scene is None
        last = [part for part in item.question if isinstance(part, Scene)][-1:]
        assert all(read(item.text).place in (None, scene.place) for scene in last)


def test_training_draws_depend_on_the_seed_alone_and_a_share_is_rough():
    plain = [TASKS["paint"](random.Random(seed), "train") for seed in SEEDS]
    drawn = [training_item("paint", random.Random(seed)) for seed in SEEDS]
    assert drawn == [training_item("paint", random.Random(seed)) for seed in SEEDS]
    rough = sum(one != other for one, other in zip(plain, drawn, strict=True)) / len(plain)
    assert 0.62 < rough < 0.78
    assert all(one.answer == other.answer for one, other in zip(plain, drawn, strict=True))


def test_messages_show_pictures_where_scenes_stand():
    item = TASKS["change"](random.Random(0), "train")
    ask, reply = item.messages(lambda scene: scene)
    assert [part["type"] for part in ask["content"]] == ["image", "text"]
    assert [part["type"] for part in reply["content"]] == ["text", "image"]
    assert reply["content"][1]["image"] == item.scene and Character("fox", "red") not in item.question


def test_numbers_of_boxes_are_read_digit_by_digit():
    texts = [TASKS[task](random.Random(seed), "train").text for task in ("ground", "refer") for seed in range(60)]
    tokenizer = build_tokenizer(texts, lowercase=False, max_length=512, vocab_size=400)
    box = "{<7><40><55><100>}"
    assert tokenizer.tokenize(box)[-12:] == ["7", "><", "4", "0", "><", "5", "5", "><", "1", "0", "0", ">}"]
    assert tokenizer.decode(tokenizer(box).input_ids, skip_special_tokens=True) == box
