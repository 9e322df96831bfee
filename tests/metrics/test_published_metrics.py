"""The published figures, and that they are not what their names say."""

import numpy as np
import pytest

from minigpt5.metrics import (
    FrechetInceptionDistance,
    WordBLEU,
    character_bleu_as_published,
    story_fid_as_published,
)

pytest.importorskip("nltk", reason="nltk is in the extra minigpt5[eval]")


def test_published_bleu_is_of_characters():
    # 3 of 4 letters and 2 of 3 pairs of letters are right.
    scores = character_bleu_as_published("abcd", "abce")
    assert scores["character_bleu_1_as_published"] == pytest.approx(3 / 4)
    assert scores["character_bleu_2_as_published"] == pytest.approx((3 / 4 * 2 / 3) ** 0.5)


def test_sentences_with_no_word_in_common_score_high_by_characters():
    text, truth = "We ate lunch near an old stone bridge.", "Her brother plays guitar on Sunday nights."
    words = WordBLEU()
    words.update([text], [truth])
    assert character_bleu_as_published(text, truth)["character_bleu_1_as_published"] > 0.5
    assert words.compute()["bleu_1"].item() < 0.2


def test_an_empty_text_scores_nothing():
    assert set(character_bleu_as_published("", "a truth").values()) == {0.0}
    assert set(character_bleu_as_published("xyz", "abc").values()) == {0.0}


def test_published_story_fid_is_the_mean_of_one_a_story(features, renders, blots):
    figures = []
    for start in (0, 5):
        fid = FrechetInceptionDistance(feature=features, resize=256)
        fid.update(blots[start : start + 5], real=True)
        fid.update(renders[start : start + 5], real=False)
        figures.append(fid.compute()["fid"].item())
    stories = [renders[:5], renders[5:10], renders[10:11]]
    truths = [blots[:5], blots[5:10], blots[10:11]]
    published = story_fid_as_published(stories, truths, feature=features)
    assert published == pytest.approx(np.mean(figures))
    whole = FrechetInceptionDistance(feature=features, resize=256)
    whole.update(blots[:10], real=True)
    whole.update(renders[:10], real=False)
    assert published > whole.compute()["fid"].item() * 1.01


def test_stories_must_have_their_pictures(features, renders):
    with pytest.raises(ValueError, match="2 pictures but 1 true pictures"):
        story_fid_as_published([renders[:2]], [renders[:1]], feature=features)
    with pytest.raises(ValueError, match="no story has two pictures"):
        story_fid_as_published([renders[:1]], [renders[:1]], feature=features)
