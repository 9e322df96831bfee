"""Both stages as library functions, with and without a coach."""

import json
from dataclasses import dataclass

import pytest
import torch
from PIL import Image
from torch import nn

from minigpt5 import MiniGPT5Pipeline, MiniGPT5Processor
from minigpt5.storyworld import coach as storyworld
from minigpt5.storyworld.coach import CaptionCoach, CoachSettings, StoryCoach
from minigpt5.storyworld.judge import load_judge
from minigpt5.training.checkpoints import CheckpointError
from minigpt5.training.fit import best_of
from minigpt5.training.objective import Coach, LossWeights
from minigpt5.training.stages import AlignConfig, InterleavedConfig, begin_alignment, begin_interleaving, train_vokens

LOOP = {"steps": 2, "batch_size": 2, "learning_rate": 1e-2, "warmup_steps": 0, "report_to": None}
ONLY_TEXT = LossWeights(text=1.0, diffusion=0.0, caption=0.0, guidance_dropout=0.0)


@pytest.fixture(autouse=True)
def _no_samples(monkeypatch):
    """Painting takes longer than all else; that samples are kept is tested with the loop."""
    monkeypatch.setattr("minigpt5.training.stages.sample_grid", lambda pipe, prompts: Image.new("RGB", (8, 8)))


class Counting(Coach):
    """Sees how wide a picture is, and wants the voken features to tell."""

    def __init__(self, pipe):
        super().__init__()
        self.head = nn.Linear(pipe.reader.n_vokens * pipe.mapper.config.voken_dim, 1)
        self.described, self.heights = [], iter((3.0, 2.0))

    def describe(self, pictures):
        self.described += [picture.size for picture in pictures]
        return ["a picture"] * len(pictures), torch.tensor([picture.width / 64 for picture in pictures])

    def loss(self, features, told):
        return (self.head(features.flatten(1)).squeeze(1) - told).square().mean()

    def examine(self, pipe):
        return {"height": next(self.heights)}


def test_a_coach_s_loss_trains_its_own_head_and_its_figure_decides(tiny_folder, small_world, tmp_path, capsys):
    settings = {"data": small_world, "model": tiny_folder, "out": tmp_path / "out", "mix": {"draw": 2}}
    config = AlignConfig(**LOOP, **settings, weights=ONLY_TEXT, save_every=1, evaluate_every=1, log_every=1)
    pipe = begin_alignment(config)
    torch.manual_seed(0)
    coach = Counting(pipe)
    before = coach.head.weight.detach().clone()
    train_vokens(pipe, config, coach)
    # Two steps, and two validation batches at each of two evaluations.
    assert coach.described == [(64, 64)] * (2 + 4) * 2
    assert (coach.head.weight - before).abs().max() > 1e-3
    told = capsys.readouterr().out
    assert "judged at step 1: height 3.000" in told and "feature " in told
    # The first figure was the higher one.
    best = torch.load(tmp_path / "out/best.pt", weights_only=True)
    assert best["counters"]["step"] == 1 and best["counters"]["best"] == 3.0
    again = MiniGPT5Pipeline.from_pretrained(tiny_folder)
    again.load_adapter(tmp_path / "out/adapter")
    for name, value in pipe.mapper.state_dict().items():
        torch.testing.assert_close(again.mapper.state_dict()[name], value)
    plain = AlignConfig(**LOOP | {"steps": 3}, **settings, weights=ONLY_TEXT)
    with pytest.raises(CheckpointError, match=r"has besides coach\.head\.bias: it is of other settings"):
        train_vokens(begin_alignment(plain), plain)


def test_the_second_stage_begins_with_the_first_one_s_adapter(tiny_folder, small_world, tmp_path):
    settings = {"data": small_world, "model": tiny_folder, "weights": ONLY_TEXT}
    first = AlignConfig(**LOOP, **settings, out=tmp_path / "first", mix={"draw": 2})
    train_vokens(begin_alignment(first), first)
    second = InterleavedConfig(
        **LOOP, **settings, out=tmp_path / "second", adapter=tmp_path / "first/adapter", mix={"story": 2}, fuse=True
    )
    pipe = begin_interleaving(second)
    frozen = {name for name, value in pipe.mapper.named_parameters() if not value.requires_grad}
    assert {name.split(".")[0] for name in frozen} == set(pipe.mapper.fixed_in_stage_two) == {"fc", "queries"}
    train_vokens(pipe, second)
    assert json.loads((tmp_path / "second/adapter/adapter.json").read_text())
    assert MiniGPT5Pipeline.from_pretrained(tmp_path / "second/model").reader.n_vokens == 8


def test_a_head_that_trains_is_in_the_fused_pipeline_alone(tiny_folder, small_world, tmp_path):
    settings = {"data": small_world, "model": tiny_folder, "weights": ONLY_TEXT, "mix": {"story": 2}, "head": True}
    with pytest.raises(ValueError, match="head: an adapter does not hold a trained head; set fuse"):
        InterleavedConfig(**LOOP, **settings, out=tmp_path / "out")
    config = InterleavedConfig(**LOOP, **settings, out=tmp_path / "out", fuse=True)
    pipe = begin_interleaving(config)
    train_vokens(pipe, config)
    assert not (tmp_path / "out/adapter").exists()
    before, after = (MiniGPT5Pipeline.from_pretrained(folder) for folder in (tiny_folder, tmp_path / "out/model"))
    for part in ("get_output_embeddings", "get_input_embeddings"):
        old, new = (getattr(each.comprehension, part)().weight for each in (before, after))
        changed = (old - new).abs().amax(1) > 1e-3
        vokens = torch.zeros_like(changed)
        vokens[before.reader.voken_ids] = True
        assert torch.equal(changed[~vokens], torch.full_like(changed[~vokens], part == "get_output_embeddings"))


def test_the_diffusion_loss_comes_in_after_the_steps_without_it(tmp_path):
    settings = {"data": tmp_path, "model": tmp_path, "out": tmp_path, "mix": {"draw": 2}}
    config = AlignConfig(**LOOP, **settings, weights=LossWeights(0.5, 2.0, 0.25), caption_only_steps=3)
    weights = [config.weights_at(step) for step in (0, 2, 3, 100)]
    assert [one.diffusion for one in weights] == [0.0, 0.0, 2.0, 2.0]
    assert all((one.text, one.caption) == (0.5, 0.25) for one in weights)


def test_subwords_are_dropped_where_a_stage_trains_and_not_where_it_is_judged(
    tiny_folder, small_world, tmp_path, monkeypatch
):
    seen = []
    own = MiniGPT5Processor.training_batch

    def watched(self, items, subword_dropout=0.0):
        seen.append(subword_dropout)
        return own(self, items, subword_dropout)

    monkeypatch.setattr(MiniGPT5Processor, "training_batch", watched)
    settings = {"data": small_world, "model": tiny_folder, "out": tmp_path / "out", "mix": {"draw": 2}}
    config = AlignConfig(**LOOP, **settings, weights=ONLY_TEXT, subword_dropout=0.25)
    train_vokens(begin_alignment(config), config)
    # Two steps, and two batches of the evaluation behind them, with four prompts to paint.
    assert seen[:2] == [0.25, 0.25] and len(seen) > 2 and set(seen[2:]) == {0.0}


def test_settings_of_a_coach_stand_beside_those_of_the_stage(tmp_path):
    @dataclass(kw_only=True)
    class Coached(CoachSettings, AlignConfig):
        best: str | None = best_of(None, "one", "minus_loss")

    settings = {"data": tmp_path, "model": tmp_path, "out": tmp_path, "mix": {"story": 2}}
    config = Coached(**LOOP, **settings, naming_weight=0.5)
    # The judge reads what no caption tells.
    assert (config.mapper_rate, config.naming_weight, config.weights.caption) == (10.0, 0.5, 0.1)
    with pytest.raises(ValueError, match=r"weights\.caption is 0\.1, but story has no caption"):
        AlignConfig(**LOOP, **settings)


def test_storyworld_s_coach_names_what_pictures_show(tiny_pipe, pictures):
    coach = CaptionCoach(tiny_pipe, CoachSettings(naming_weight=0.5))
    captions, scenes = coach.describe(pictures)
    assert scenes == [verdict.scene for verdict in load_judge().read(list(pictures))]
    assert all(scene.hero.kind in caption for scene, caption in zip(scenes, captions, strict=True))
    width = tiny_pipe.mapper.config.voken_dim
    features = torch.randn(len(pictures), 8, width)
    torch.testing.assert_close(coach.loss(features, scenes), 0.5 * coach.namer.loss(features, scenes))
    assert coach.loss(features.bfloat16(), scenes).isfinite()
    # The judge is no part that trains.
    assert {name.split(".")[0] for name, _ in coach.named_parameters()} == {"namer"}


def test_storyworld_s_coaches_tell_the_figures_that_their_programs_choose_from(tiny_pipe, monkeypatch):
    """What is examined is tested with the examinations; here, which of their figures is told under which name."""
    painting = lambda pipe, scenes, judge: {"all": len(scenes) + sum(len(scene.characters) for scene in scenes) / 10}  # noqa: E731
    step = lambda pipe, count, told, split, judge: {"hero": count + told / 2, "agrees": told / 4}  # noqa: E731
    story = lambda pipe, count, split, judge: {"hero_in_all": count, "hero": 0.0, "agrees": 0.0}  # noqa: E731
    monkeypatch.setattr(storyworld, "examine_painting", painting)
    monkeypatch.setattr(storyworld, "examine_next_step", step)
    monkeypatch.setattr(storyworld, "examine_stories", story)
    settings = CoachSettings(judged=10)
    assert CaptionCoach(tiny_pipe, settings).examine(tiny_pipe) == {"one": 11.0, "two": 12.0}
    told = {"all_five": 5, "said": 10.5, "shown": 10.0, "agrees": 0.125, "one": 11.0}
    assert StoryCoach(tiny_pipe, settings).examine(tiny_pipe) == told
