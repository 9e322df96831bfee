"""Every metric that reports hold: what it is called, what it needs, what leaves a row in it, how it is built.

A new metric is a class in a file of this folder, and one entry here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torchmetrics import Metric


@dataclass(frozen=True)
class MetricEntry:
    """A metric as reports use it.

    Args:
        name: for what could not be computed.
        needs: what `update` takes, by the names of `minigpt5.evaluation.measure.COLUMNS`; items that lack any are left
            out. A metric of a set takes them by `update_both` where they are two.
        level: what leaves a row: an item, or a group of them (a story, a talk), of which `update` takes lists of lists;
            or nothing does, and the figure is of the whole set.
        home: module and class in this package.
        weights: which of `minigpt5.evaluation.measure.Weights` its first argument is.
        tasks: what must have been asked; by default anything.
        on_request: left out unless its weights are named.
        note: what readers of its figures must know.
    """

    name: str
    needs: tuple[str, ...]
    level: Literal["item", "group", "set"]
    home: str
    weights: str | None = None
    tasks: tuple[str, ...] = ()
    on_request: bool = False
    note: str = ""

    def build(self, weights: Any = None) -> Metric:
        """An instance without items.

        Raises:
            MissingWeights: if its weights are not there.
            ModuleNotFoundError: if its library is not installed.
        """
        module, name = self.home.split(".")
        metric = getattr(import_module(f"minigpt5.metrics.{module}"), name)
        return metric(weights) if self.weights else metric()


_COMPARED, _TOLD, _SPOKEN = ("picture", "true picture"), ("picture", "sentence"), ("text", "true text")
_JUDGED = ("judged picture", "scene")
_PAIRS, _STEPS, _NEXT, _TURN = ("caption to picture",), ("every step",), ("next step",), ("next turn",)

METRICS = (
    MetricEntry("CLIP-I", _COMPARED, "item", "pictures.ClipImageSimilarity", "clip"),
    MetricEntry("FID", _COMPARED, "set", "pictures.FrechetInceptionDistance", "inception"),
    MetricEntry("KID", _COMPARED, "set", "pictures.KernelInceptionDistance", "inception"),
    MetricEntry("Inception Score", ("picture",), "set", "pictures.InceptionScore", "inception"),
    MetricEntry(
        "Picture recall",
        _COMPARED,
        "item",
        "pictures.PictureRecall",
        tasks=_PAIRS,
        note="picture_recall_at_1 and _at_5 compare colours and coarse shapes; by chance they are 1 and 5 over the "
        "number of pictures.",
    ),
    MetricEntry("CLIP-T", _TOLD, "item", "pictures.ClipTextSimilarity", "clip"),
    MetricEntry("HPSv2", _TOLD, "item", "pictures.HPSv2", "hps", on_request=True),
    MetricEntry("PickScore", _TOLD, "item", "pictures.PickScore", "pick_score", on_request=True),
    MetricEntry("BLEU", _SPOKEN, "item", "text.WordBLEU"),
    MetricEntry("ROUGE-L", _SPOKEN, "item", "text.RougeL"),
    MetricEntry("METEOR", _SPOKEN, "item", "text.Meteor"),
    MetricEntry("S-BERT", _SPOKEN, "item", "text.SentenceSimilarity", "sentences"),
    MetricEntry("CIDEr", _SPOKEN, "item", "cider.Cider", tasks=("caption",)),
    MetricEntry("Exact match", ("text", "answers"), "item", "reading.ExactMatch"),
    MetricEntry("VQA accuracy", ("text", "answers of several"), "item", "reading.VQAAccuracy"),
    MetricEntry("Grounding", ("text", "true box"), "item", "reading.GroundingAccuracy"),
    MetricEntry("Picture decision", ("has picture", "wants picture"), "item", "dialogue.PictureDecision", tasks=_TURN),
    MetricEntry(
        "MM-Relevance of MMDialog", ("segments", "true segments"), "item", "dialogue.MMRelevanceMMDialog", "clip", _TURN
    ),
    MetricEntry("MM-Relevance per turn", ("turn", "true turn"), "group", "dialogue.MMRelevancePerTurn", "clip", _TURN),
    MetricEntry(
        "BLEU as published",
        _SPOKEN,
        "group",
        "published.CharacterBLEUAsPublished",
        tasks=_TURN,
        note="character_bleu_…_as_published is what the published code computes: BLEU of characters. Unrelated English "
        "sentences score about 0.6 in it, so bleu_1 and bleu_2, of words, are the ones to read.",
    ),
    MetricEntry(
        "FID of stories as published",
        _COMPARED,
        "group",
        "published.StoryFIDAsPublished",
        "inception",
        _STEPS,
        note="story_fid_as_published is the mean of FIDs of the few pictures of one story each, in 2048 dimensions. It "
        "cannot be compared with any other FID; fid, over all pictures, is the one to read.",
    ),
    # Of data that StoryWorld wrote.
    MetricEntry("StoryWorld pictures", _JUDGED, "item", "storyworld.StoryWorldPictures"),
    MetricEntry("Hero identity", ("judged picture", "hero"), "group", "storyworld.HeroIdentity", tasks=_STEPS),
    MetricEntry("Text accuracy", ("text", "naming text"), "item", "storyworld.TextAccuracy"),
    MetricEntry("Answer accuracy", ("text", "kind", "true text"), "item", "storyworld.AnswerAccuracy"),
    MetricEntry("Text agreement", ("judged picture", "text"), "item", "storyworld.TextAgreement", tasks=_NEXT),
)
