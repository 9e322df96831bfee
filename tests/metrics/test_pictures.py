"""Metrics of pictures against other implementations, with tiny features in the place of published weights."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm

from minigpt5.metrics import (
    ClipImageSimilarity,
    ClipTextSimilarity,
    FrechetInceptionDistance,
    HPSv2,
    InceptionScore,
    KernelInceptionDistance,
    MissingWeights,
    PickScore,
    PictureRecall,
    TransformersClipEncoder,
)
from minigpt5.metrics.pictures import PUBLISHED_RESIZE, inception_features, picture_batches

pytestmark = [
    pytest.mark.filterwarnings("ignore:Metric `.*` will save all extracted features"),
    pytest.mark.filterwarnings("ignore:The ``compute`` method of metric"),
]
TEXTS = [f"a picture of {number} foxes" for number in range(12)]


def values(pictures, features):
    """The features of pictures as an array."""
    return np.concatenate([features(batch).numpy() for batch in picture_batches(pictures)])


def frechet(one, other):
    """The distance as Heusel et al. 2017 write it, by scipy's matrix square root."""
    means = one.mean(0) - other.mean(0)
    covariances = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    return means @ means + np.trace(sum(covariances) - 2 * sqrtm(covariances[0] @ covariances[1]).real)


def test_fid_is_the_frechet_distance(features, renders, blots):
    fid = FrechetInceptionDistance(feature=features)
    fid.update(blots, real=True)
    fid.update(renders, real=False)
    wanted = frechet(values(blots, features), values(renders, features))
    assert fid.compute()["fid"].item() == pytest.approx(wanted, rel=1e-8)
    assert wanted > 0.1


def test_fid_of_a_set_to_itself_is_zero(features, renders):
    fid = FrechetInceptionDistance(feature=features)
    for real in (True, False):
        fid.update(renders, real)
    assert fid.compute()["fid"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda features: FrechetInceptionDistance(feature=features),
        lambda features: KernelInceptionDistance(feature=features, subsets=3, subset_size=8),
    ],
)
def test_sets_add_up_over_batches_and_instances(make, features, renders, blots):
    whole, batches, first, second, gathered = (make(features) for _ in range(5))
    for pictures, real in ((blots, True), (renders, False)):
        whole.update(pictures, real)
        for start, stop in ((0, 1), (1, 5), (5, None)):
            batches.update(pictures[start:stop], real)
        first.update(pictures[:3], real)
        second.update(pictures[3:], real)
    # Into a fresh one: a process that only gathers has never seen a picture.
    for part in (first, second):
        gathered.merge_state(part)
    wanted = {name: value.item() for name, value in whole.compute().items()}
    for metric in (batches, gathered):
        assert {name: value.item() for name, value in metric.compute().items()} == pytest.approx(wanted, abs=1e-9)


def test_kid_is_the_unbiased_polynomial_mmd(features, renders, blots):
    kid = KernelInceptionDistance(feature=features, subsets=1, subset_size=12)
    kid.update(blots, real=True)
    kid.update(renders, real=False)
    one, other = values(blots, features), values(renders, features)

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def off_diagonal(matrix):
        return (matrix.sum() - np.trace(matrix)) / (len(matrix) * (len(matrix) - 1))

    wanted = off_diagonal(kernel(one, one)) + off_diagonal(kernel(other, other)) - 2 * kernel(one, other).mean()
    assert kid.compute()["kid"].item() == pytest.approx(wanted, rel=1e-8)
    # There is one subset: nothing to have a spread.
    assert set(kid.compute()) == {"kid"}
    kid.update(renders[:1], real=False)
    assert set(kid.compute()) == {"kid", "kid_std"}


def test_kid_s_subsets_are_the_same_every_time_and_leave_other_draws_alone(features, renders, blots):
    kid = KernelInceptionDistance(feature=features, subsets=3, subset_size=5)
    kid.update(blots, real=True)
    kid.update(renders, real=False)
    torch.manual_seed(7)
    first, drawn = kid.compute(), torch.rand(1)
    kid.update([], real=True)
    torch.manual_seed(7)
    assert drawn == torch.rand(1)
    assert kid.compute() == first


def test_inception_score_of_one_split_is_that_by_hand(features, renders, blots, accumulates):
    done = accumulates(lambda: InceptionScore(feature=features, splits=2), [*renders, *blots])
    assert done.figures["inception_score"] > 1
    score = InceptionScore(feature=features, splits=1)
    score.update(renders)
    classes = torch.from_numpy(values(renders, features)).softmax(1).numpy()
    divergences = (classes * np.log(classes / classes.mean(0))).sum(1)
    with pytest.warns(UserWarning, match="degrees of freedom"):
        assert score.compute()["inception_score"].item() == pytest.approx(np.exp(divergences.mean()), rel=1e-8)


def test_pictures_become_batches_in_order_whatever_their_size(renders, blots):
    batches = list(picture_batches([*renders[:2], *blots[:3], renders[2]]))
    assert [tuple(batch.shape) for batch in batches] == [(2, 3, 64, 64), (3, 3, 48, 64), (1, 3, 64, 64)]
    assert batches[1].dtype == torch.uint8 and np.array_equal(batches[1][2].permute(1, 2, 0), np.array(blots[2]))
    halves = torch.full((3, 4, 4), 0.5)
    assert next(picture_batches([halves])).unique().tolist() == [128]


def test_published_resizing_is_torchvision_s():
    from torchvision.transforms import InterpolationMode, Resize

    rng = np.random.default_rng(0)
    for height, width in ((300, 517), (512, 512), (100, 73), (256, 400)):
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        theirs = Resize(256, interpolation=InterpolationMode.BILINEAR)(picture)
        ours = next(picture_batches([picture], PUBLISHED_RESIZE))[0].permute(1, 2, 0)
        assert np.array_equal(ours, np.array(theirs))


def test_resizing_changes_fid_as_it_changes_pictures(features, blots, renders):
    plain, resized = FrechetInceptionDistance(feature=features), FrechetInceptionDistance(feature=features, resize=16)
    small = [blot.resize((21, 16), Image.Resampling.BILINEAR) for blot in blots]
    for metric, true in ((plain, small), (resized, blots)):
        metric.update(true, real=True)
        metric.update([render.resize((16, 16), Image.Resampling.BILINEAR) for render in renders], real=False)
    assert resized.compute() == plain.compute()


@pytest.mark.slow
def test_local_inception_weights_give_torch_fidelity_s_features(tmp_path, monkeypatch):
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    # The architecture without its weights: an empty dict in their place.
    monkeypatch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
    torch.save({}, tmp_path / "empty.pth")
    torch.manual_seed(0)
    theirs = fidelity.FeatureExtractorInceptionV3("random", ["2048"], str(tmp_path / "empty.pth"))
    monkeypatch.undo()
    for module in theirs.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.mul_(6**0.5)  # fresh convolutions let features fade to nothing
    torch.save(theirs.state_dict(), tmp_path / "random.pth")
    ours = inception_features("2048", tmp_path / "random.pth")
    noise = torch.randint(256, (2, 3, 400, 400), dtype=torch.uint8)
    wanted = theirs(noise)[0]
    assert wanted.std() > 1e-3 and torch.allclose(ours(noise), wanted, rtol=1e-3, atol=1e-5)
    antialiased = inception_features("2048", tmp_path / "random.pth", antialias=True)
    assert not torch.allclose(antialiased(noise), wanted, rtol=1e-3, atol=1e-5)
    fid = FrechetInceptionDistance(tmp_path / "random.pth")
    fid.update(list(noise), real=True)
    assert fid.real_features_sum.numpy() == pytest.approx(wanted.double().sum(0).numpy(), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("metric", [FrechetInceptionDistance, KernelInceptionDistance, InceptionScore])
def test_missing_inception_weights_are_told(metric, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingWeights) as error:
        metric()
    for part in ("checkpoints/weights-inception-2015-12-05-6726825d.pth", "https://github.com/toshas/torch-fidelity"):
        assert part in str(error.value)
    with pytest.raises(MissingWeights, match=r"no file here\.pth"):
        metric("here.pth")


def test_recall_is_the_share_of_pictures_nearest_to_their_own_truth(accumulates):
    def grey(level, size=16):
        return Image.new("RGB", (size, size), (level,) * 3)

    truths = [grey(level, size=64) for level in (0, 40, 80, 120, 160, 200, 240)]
    # The third is nearest to the second's truth, its own comes next; the last is nearest to the first, its own is last.
    pictures = [grey(level) for level in (5, 40, 45, 130, 165, 205, 0)]
    done = accumulates(PictureRecall, pictures, truths)
    assert done.metric.items.tolist() == [[1, 1], [1, 1], [0, 1], [1, 1], [1, 1], [1, 1], [0, 0]]
    assert done.figures == {
        "picture_recall_at_1": pytest.approx(5 / 7),
        "picture_recall_at_5": pytest.approx(6 / 7),
    }


def test_a_truth_that_stands_twice_is_found_in_either_place(renders):
    recall = PictureRecall()
    recall.update([renders[0], renders[0], renders[1]], [renders[0], renders[0], renders[0]])
    assert recall.items.tolist() == [[1, 1]] * 3
    recall.update([], [])
    recall.reset()
    assert recall.items.shape == (0, 2)


def test_clip_i_is_the_cosine_of_pictures(clip_encoder, renders, blots, accumulates):
    done = accumulates(lambda: ClipImageSimilarity(clip_encoder), renders, blots)
    one, other = clip_encoder.encode_pictures(renders).numpy(), clip_encoder.encode_pictures(blots).numpy()
    assert done.metric.items[:, 0] == pytest.approx((one * other).sum(1), abs=1e-6)
    assert done.figures["clip_i"] == pytest.approx((one * other).sum(1).mean(), abs=1e-6)
    same = ClipImageSimilarity(clip_encoder)
    same.update(renders, renders)
    assert same.compute()["clip_i"].item() == pytest.approx(1, abs=1e-6) and done.figures["clip_i"] < 0.999


def test_clip_t_is_the_cosine_of_picture_and_text(clip_encoder, renders, accumulates):
    done = accumulates(lambda: ClipTextSimilarity(clip_encoder), renders, TEXTS)
    one, other = clip_encoder.encode_pictures(renders).numpy(), clip_encoder.encode_texts(TEXTS).numpy()
    assert done.metric.items[:, 0] == pytest.approx((one * other).sum(1), abs=1e-6)


def test_clip_s_weights_may_be_named(clip_file, clip_folder, renders):
    for weights in (clip_file, clip_folder):
        metric = ClipTextSimilarity(weights)
        metric.update(renders[:2], TEXTS[:2])
        assert abs(metric.compute()["clip_t"].item()) < 1


def test_hps_is_a_hundred_cosines(clip_encoder, renders):
    hps, clip_t = HPSv2(encoder=clip_encoder), ClipTextSimilarity(clip_encoder)
    for metric in (hps, clip_t):
        metric.update(renders, TEXTS)
    assert hps.compute()["hps_v2"].item() == pytest.approx(100 * clip_t.compute()["clip_t"].item())


def test_pickscore_is_the_model_s_own_logit(clip_folder, renders):
    pick = PickScore(clip_folder, processor=None)
    pick.update(renders, TEXTS)
    encoder = TransformersClipEncoder(clip_folder)
    inputs = encoder.processor(text=TEXTS, images=renders, return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = encoder.model(**inputs).logits_per_image
    assert pick.items[:, 0] == pytest.approx(logits.diagonal().numpy(), abs=1e-4)


def test_missing_preference_models_are_told(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingWeights, match=r"HPS_v2.1_compressed.pt. Get it from `hf download xswu/HPSv2"):
        HPSv2()
    with pytest.raises(MissingWeights, match="hf download yuvalkirstain/PickScore_v1"):
        PickScore()


@pytest.mark.parametrize("metric", [ClipImageSimilarity, ClipTextSimilarity])
def test_a_batch_without_a_picture_adds_nothing(clip_encoder, renders, metric):
    similarity, others = metric(clip_encoder), renders if metric is ClipImageSimilarity else TEXTS
    similarity.update([], [])
    similarity.update(renders[:2], others[:2])
    similarity.update([], [])
    assert similarity.items.shape == (2, 1)


def test_as_many_pictures_as_texts(clip_encoder, renders):
    with pytest.raises(ValueError, match="12 pictures but 2 texts"):
        ClipTextSimilarity(clip_encoder).update(renders, TEXTS[:2])
