"""How good pictures are: FID, KID and Inception Score of sets, CLIP similarity and learned preference of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from PIL import Image
from torch import nn
from torchmetrics import Metric
from torchmetrics.image import fid, inception, kid
from torchmetrics.utilities.data import dim_zero_cat

from minigpt5.metrics.encoders import OpenClipEncoder, TransformersClipEncoder, load_clip_encoder
from minigpt5.metrics.items import InOrder, ItemMetric, paired
from minigpt5.metrics.weights import find_file, require
from minigpt5.utils.images import Picture, to_rgb, to_tensor, trim_strip

BATCH_SIZE = 64
PUBLISHED_RESIZE = 256


def inception_features(layer: str = "2048", weights: str | Path | None = None, antialias: bool = False) -> nn.Module:
    """Inception v3 of the original FID, as torch-fidelity ported it.

    Args:
        layer: "64", "192", "768" or "2048" for pooled features, "logits_unbiased" for classes.
        weights: the file of weights; by default the one in torch.hub's cache.
        antialias: how pictures become 299×299: `False` as in the original FID and the published figures.

    Raises:
        MissingWeights: if there is no such file.
        ModuleNotFoundError: if torch-fidelity is not installed.
    """
    url = require("torch_fidelity.feature_extractor_inceptionv3").URL_INCEPTION_V3
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    file = find_file("Inception v3", weights, cached, url)
    return fid.NoTrainInceptionV3("inception-v3-compat", [layer], str(file), antialias=antialias)


def picture_batches(pictures: Sequence[Picture], resize: int | None = None) -> Iterator[torch.Tensor]:
    """Pictures as uint8 batches `(at most 64, 3, height, width)`, in order; a new size starts a new batch.

    Args:
        resize: pixels of the shorter side, bilinear; `None` leaves pictures as they are.
    """
    for _, run in groupby(
        (_resized(trim_strip(to_rgb(picture)), resize) for picture in pictures), key=lambda image: image.size
    ):
        run = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in run]
        for start in range(0, len(run), BATCH_SIZE):
            yield torch.stack(run[start : start + BATCH_SIZE])


def _resized(image: Image.Image, size: int | None) -> Image.Image:
    if size is None or min(image.size) == size:
        return image
    short = min(image.size)
    # Whole pixels as torchvision's Resize takes them.
    width, height = (int(size * side / short) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


class _InceptionMetric(Metric):
    """What FID, KID and Inception Score of torchmetrics share here: whole lists of pictures, and figures by name."""

    inception: Any
    layer = "2048"
    names: tuple[str, ...]
    # Fewer pictures have no figure.
    least = 2

    def __init__(
        self,
        weights: str | Path | None = None,
        feature: nn.Module | None = None,
        resize: int | None = None,
        antialias: bool = False,
        **kwargs,
    ):
        features = feature or inception_features(self.layer, weights, antialias)
        super().__init__(features, **kwargs)  # pyright: ignore[reportCallIssue] of the metric that it is mixed into
        self.resize = resize

    def update(self, pictures: Sequence[Picture], *real: bool) -> None:
        for batch in picture_batches(pictures, self.resize):
            super().update(batch.to(self.device), *real)

    def update_both(self, pictures: Sequence[Picture], truths: Sequence[Picture]) -> None:
        """Take generated pictures and the true ones of the same places."""
        self.update(truths, True)
        self.update(pictures, False)

    def compute(self) -> dict[str, torch.Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            values = super().compute()
        return dict(zip(self.names, values if isinstance(values, tuple) else (values,), strict=True))


class FrechetInceptionDistance(_InceptionMetric, fid.FrechetInceptionDistance):
    """FID of generated to true pictures (Heusel et al. 2017), by torchmetrics; figure "fid", lower is better.

    Sums are kept in float64 and added over batches and processes. It needs many pictures: with fewer than the 2048
    features the covariance has not full rank, and figures of sets of different sizes cannot be compared.

    Args:
        weights: Inception's file of weights; by default the one in torch.hub's cache.
        feature: any module from uint8 `(batch, 3, height, width)` to features `(batch, width)` in Inception's place.
        resize: pixels of the shorter side before Inception's own resizing; 256 in the published code.
        antialias: see `inception_features`.

    Raises:
        MissingWeights: if Inception's weights are not there.
    """

    names = ("fid",)

    def update(self, pictures: Sequence[Picture], real: bool) -> None:
        """Take true (`real`) or generated pictures."""
        super().update(pictures, real)

    def compute(self) -> dict[str, torch.Tensor]:
        """The figure by its name."""
        # What it is given in.
        self.orig_dtype = torch.float64
        return super().compute()


class _FeaturesInOrder(_InceptionMetric, InOrder):
    """Features of all pictures, concatenated over processes that may have seen different numbers of pictures."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # torchmetrics gathers these lists batch by batch, which needs as many batches in every process.
        self._reductions.update(dict.fromkeys(self._lists(), dim_zero_cat))

    def nothing(self) -> torch.Tensor:
        return self.inception(torch.zeros(1, 3, 299, 299, dtype=torch.uint8, device=self.device))[:0]


class KernelInceptionDistance(_FeaturesInOrder, kid.KernelInceptionDistance):
    """KID of generated to true pictures (Bińkowski et al. 2018), by torchmetrics; figures "kid" and "kid_std".

    Unbiased, so unlike FID it can be had from few pictures. Subsets are drawn with a fixed seed. Arguments are those of
    `FrechetInceptionDistance`, and torchmetrics' `subsets` and `subset_size`; of fewer pictures all are a subset, and
    where every subset is all pictures of both sets there is no "kid_std".

    Raises:
        MissingWeights: if Inception's weights are not there.
    """

    names = ("kid", "kid_std")

    def update(self, pictures: Sequence[Picture], real: bool) -> None:
        """Take true (`real`) or generated pictures."""
        super().update(pictures, real)

    def compute(self) -> dict[str, torch.Tensor]:
        """Figures by name."""
        whole = self.subset_size
        counts = [len(dim_zero_cat(rows)) for rows in (self.real_features, self.fake_features)]
        self.subset_size = taken = min(whole, *counts)
        try:
            figures = super().compute()
        finally:
            self.subset_size = whole
        if max(counts) == taken:
            # All subsets are one; what they differ by is the rounding of another order.
            del figures["kid_std"]
        return figures


class InceptionScore(_FeaturesInOrder, inception.InceptionScore):
    """Inception Score of generated pictures (Salimans et al. 2016), by torchmetrics, over ten splits.

    Figures "inception_score" and "inception_score_std"; splits are drawn with a fixed seed, and of fewer than about a
    hundred pictures they are uneven, or fewer than ten. Arguments are those of
    `FrechetInceptionDistance`, but a `feature` module gives logits of classes; and torchmetrics' `splits`.

    Raises:
        MissingWeights: if Inception's weights are not there.
    """

    layer = "logits_unbiased"
    names = ("inception_score", "inception_score_std")
    least = 10

    def update(self, pictures: Sequence[Picture]) -> None:
        """Take generated pictures."""
        super().update(pictures)


class PictureRecall(ItemMetric):
    """Retrieval by pixels: is the true picture nearest to the generated one among all true pictures?

    Figures "picture_recall_at_1" and "picture_recall_at_5", shares of the items whose own true picture is the nearest,
    or among the five nearest, by the squared difference of 16×16 pixels. By chance they are 1 and 5 over the number of
    items. It needs no weights, and sees colours and coarse shapes alone: it is for drawings on a plain ground.
    """

    columns = ("picture_recall_at_1", "picture_recall_at_5")
    higher_is_better = True
    side = 16

    @property
    def width(self) -> int:
        """Both pictures' pixels, of which ranks are made once all are there."""
        return 2 * 3 * self.side**2

    def update(self, pictures: Sequence[Picture], truths: Sequence[Picture]) -> None:
        """Take generated pictures and the true ones of the same places."""
        pairs = paired("pictures", pictures, "true pictures", truths)
        small = ([to_tensor(picture, self.side, Image.Resampling.BOX) for picture in pair] for pair in pairs)
        self.add([torch.stack(pair).flatten().tolist() for pair in small])

    @property
    def items(self) -> np.ndarray:
        """Whether the true picture of each item is the nearest, and among the five nearest: `(items, 2)`."""
        pictures, truths = torch.from_numpy(super().items).chunk(2, dim=1)
        nearer = [torch.zeros(0)]
        for start in range(0, len(pictures), BATCH_SIZE):
            # Not by a matrix product, whose rounding would part pictures that are equal.
            exact = "donot_use_mm_for_euclid_dist"
            distances = torch.cdist(pictures[start : start + BATCH_SIZE], truths, compute_mode=exact)
            own = distances.diagonal(start).unsqueeze(1)
            nearer.append((distances < own).sum(1))
        return torch.stack([torch.cat(nearer) < rank for rank in (1, 5)], dim=1).double().numpy()


class ClipImageSimilarity(ItemMetric):
    """CLIP-I: the cosine of a generated picture's and the true picture's CLIP vectors; figure "clip_i" in [-1, 1].

    The published Tables 1, 2 and 6 give its mean, with ViT-L/14.

    Args:
        encoder: for `load_clip_encoder`.

    Raises:
        MissingWeights: if CLIP's weights are not there.
    """

    columns = ("clip_i",)
    higher_is_better = True

    def __init__(self, encoder: str | Path | nn.Module = "ViT-L/14", **kwargs):
        super().__init__(**kwargs)
        self.encoder: Any = load_clip_encoder(encoder)

    def update(self, pictures: Sequence[Picture], truths: Sequence[Picture]) -> None:
        """Take generated pictures and the true ones of the same places."""
        if pairs := paired("pictures", pictures, "true pictures", truths):
            pictures, truths = zip(*pairs, strict=True)
            self.add((self.encoder.encode_pictures(pictures) * self.encoder.encode_pictures(truths)).sum(-1))


class ClipTextSimilarity(ItemMetric):
    """CLIP-T: the cosine of a generated picture's and a text's CLIP vectors; figure "clip_t" in [-1, 1].

    CLIPScore (Hessel et al. 2021) without its factor; published in Table 6, with ViT-L/14.

    Args:
        encoder: for `load_clip_encoder`.

    Raises:
        MissingWeights: if CLIP's weights are not there.
    """

    columns = ("clip_t",)
    higher_is_better = True
    scale = 1.0

    def __init__(self, encoder: str | Path | nn.Module = "ViT-L/14", **kwargs):
        super().__init__(**kwargs)
        self.encoder: Any = load_clip_encoder(encoder)

    def update(self, pictures: Sequence[Picture], texts: Sequence[str]) -> None:
        """Take generated pictures and the text that each should show."""
        if pairs := paired("pictures", pictures, "texts", texts):
            pictures, texts = zip(*pairs, strict=True)
            cosines = (self.encoder.encode_pictures(pictures) * self.encoder.encode_texts(texts)).sum(-1)
            self.add(self.scale * cosines)


class HPSv2(ClipTextSimilarity):
    """Human Preference Score v2 (Wu et al. 2023): the cosine times 100 by a ViT-H/14 tuned on people's choices.

    Args:
        weights: the file HPS_v2.1_compressed.pt, or HPS_v2_compressed.pt of v2.0; by default the former in the hub's
            cache.
        encoder: in place of that model, any CLIP encoder.

    Raises:
        MissingWeights: if there is no such file.
        ModuleNotFoundError: if open_clip is not installed.
    """

    columns = ("hps_v2",)
    scale = 100.0

    def __init__(self, weights: str | Path | None = None, encoder: nn.Module | None = None, **kwargs):
        repository, file = "xswu/HPSv2", "HPS_v2.1_compressed.pt"
        if encoder is None:
            found = weights or try_to_load_from_cache(repository, file) or file
            encoder = OpenClipEncoder("ViT-H-14", cast(str, found), f"`hf download {repository} {file}`")
        super().__init__(encoder, **kwargs)


class PickScore(ClipTextSimilarity):
    """PickScore (Kirstain et al. 2023): the cosine times the learned scale of a ViT-H/14 tuned on people's picks.

    Args:
        model: a folder or the cached repository of the model.
        processor: the same of its processor.

    Raises:
        MissingWeights: if either is in neither place.
    """

    columns = ("pick_score",)

    def __init__(
        self,
        model: str | Path = "yuvalkirstain/PickScore_v1",
        processor: str | Path | None = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        **kwargs,
    ):
        super().__init__(TransformersClipEncoder(model, processor), **kwargs)
        self.scale = self.encoder.model.logit_scale.exp().item()
