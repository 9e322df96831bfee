"""What the claims train: the frozen parts once, then every system from each seed, all until flat by one rule.

Everything is drawn anew from its step and seed, and goes on where it was stopped; see `minigpt5/training/fit.py`.
"""

from __future__ import annotations

import random
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, l1_loss, mse_loss
from transformers import AutoTokenizer, Blip2ForConditionalGeneration, CLIPTextModel

from minigpt5.evaluation.baselines import GILL, Divter, TwoStage, ZeroShotDiffusion
from minigpt5.evaluation.claims import models, world
from minigpt5.evaluation.claims.asking import ask, frames_right, right_above_chance, texts_right
from minigpt5.evaluation.claims.flatness import budget, is_flat
from minigpt5.evaluation.claims.plan import (
    GUIDANCE_SCALE,
    KINDS,
    LORA,
    PARTS,
    SYSTEMS,
    TEXT_WEIGHT,
    Amounts,
    Part,
    System,
)
from minigpt5.painters import painter_of, trainable
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.readers import reader_of
from minigpt5.readers.processor import MiniGPT5Processor
from minigpt5.storyworld.judge import Judge, NamingHead, answers, question_loss
from minigpt5.storyworld.language import describes, plain_caption
from minigpt5.storyworld.miniature import build_scheduler, build_tokenizer
from minigpt5.storyworld.scene import split_rng
from minigpt5.training.fit import FitConfig, fit
from minigpt5.training.latents import normalise_latents, psnr_of_each
from minigpt5.training.losses import drop_for_guidance
from minigpt5.training.objective import LossWeights, VokenModel
from minigpt5.training.results import save_result
from minigpt5.utils.files import write_json
from minigpt5.utils.images import to_tensor
from minigpt5.utils.integrity import load_whole
from minigpt5.utils.json_files import read_json
from minigpt5.vokens.adapters import LoraSettings, train_adapter
from minigpt5.vokens.decoding import decode_texts


@dataclass(frozen=True)
class Curve:
    """How a training's validation marks went, kept in a file of its folder.

    Args:
        file: the round under way, and marks by step, one a validation item.
    """

    file: Path

    def _read(self) -> dict[str, Any]:
        return read_json(self.file) if self.file.exists() else {"rounds": 1, "marks": {}}

    @property
    def rounds(self) -> int:
        """The round that is under way, from 1."""
        return self._read()["rounds"]

    @property
    def marks(self) -> dict[int, list[float]]:
        """By step."""
        return {int(step): marks for step, marks in self._read()["marks"].items()}

    @property
    def seconds(self) -> float | None:
        """User time of a step, of the last that were timed."""
        return self._read().get("seconds")

    def time(self, seconds: float) -> None:
        """Note the user time of a step."""
        write_json(self.file, self._read() | {"seconds": round(seconds, 3)})

    def grow(self) -> None:
        """Begin another round."""
        write_json(self.file, self._read() | {"rounds": self.rounds + 1})

    def add(self, step: int, marks: Sequence[float]) -> None:
        """Note the marks of a step; those of later steps are of a run that was killed, and go."""
        kept = {str(at): given for at, given in self.marks.items() if at < step}
        write_json(self.file, self._read() | {"marks": kept | {str(step): list(marks)}})


def train_until_flat(
    module: nn.Module,
    batches: Callable[[int], Any],
    losses: Callable[[Any, int], dict[str, torch.Tensor]],
    marks: Callable[[], Sequence[float]],
    folder: Path,
    amounts: Amounts,
    part: Part,
    seed: int = 0,
    groups: list[dict] | None = None,
) -> None:
    """Train to the budget of a round, and by half as much more until the curve is flat or no round is left.

    Args:
        marks: of the validation items, the higher the better.
        part: its first budget, batch size and rate.
    """
    curve, at, begun = Curve(folder / "curve.json"), 0, (0, 0.0)
    first = budget(amounts.steps or part.steps, 1)
    every = first // 6

    def counted(batch: Any, step: int) -> dict[str, torch.Tensor]:
        nonlocal at, begun
        # The first step of this process warms up.
        begun = begun if at else (step + 1, user_seconds())
        at = step + 1
        return losses(batch, step)

    def evaluate() -> dict[str, float]:
        nonlocal begun
        if at > begun[0]:
            curve.time((user_seconds() - begun[1]) / (at - begun[0]))
        found = [float(mark) for mark in marks()]
        curve.add(at, found)
        begun = (at, user_seconds())
        return {"score": float(np.mean(found))}

    while True:
        config = FitConfig(
            steps=budget(first, curve.rounds),
            batch_size=part.batch_size,
            learning_rate=part.rate,
            # A rate that fell to nothing by a fixed step could not go on behind it; the average does its work.
            lr_scheduler="constant_with_warmup",
            warmup_steps=min(100, every),
            ema_decay=0.99,
            seed=seed,
            save_every=every,
            keep_checkpoints=1,
            evaluate_every=every,
            log_every=every,
            report_to=None,
        )
        fit(module, batches, counted, config, folder, evaluate, groups)
        if is_flat(curve.marks) or curve.rounds == amounts.rounds:
            return
        curve.grow()


def user_seconds() -> float:
    """Of this process, whatever else the machine does."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def _pool(amounts: Amounts) -> list[tuple[str, Any]]:
    return world.captions("train", amounts.pool_captions)


def _validation(task: str, amounts: Amounts) -> list[world.Question]:
    return world.questions(task, "validation", amounts.validation)


def train_part(name: str, folder: Path, amounts: Amounts) -> None:
    """Train one of the frozen parts and write it to `folder / name / model`.

    Args:
        folder: of all parts; the painter reads the VAE and the judge there.
    """
    torch.manual_seed(0)
    {"vae": _train_vae, "judge": _train_judge, "painter": _train_painter, "reader": _train_reader}[name](
        folder, amounts
    )


def _pixels(scenes: Sequence[Any]) -> torch.Tensor:
    return torch.stack([to_tensor(world.picture(scene), world.SIZE) for scene in scenes])


def _scenes(step: int, count: int, split: str = "train") -> list[Any]:
    rng = split_rng(split, 3 * 10**6 + step)
    return [world.sample_scene(rng, world.look_of(split)) for _ in range(count)]


def _train_vae(folder: Path, amounts: Amounts) -> None:
    vae, part = models.build_vae(), PARTS["vae"]
    fresh = _pixels(_scenes(0, amounts.validation, "validation"))

    def losses(pixels: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        posterior = cast(Any, vae.encode(pixels)).latent_dist
        decoded = cast(Any, vae.decode(posterior.sample())).sample.float()
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        return {"loss": mse_loss(decoded, pixels) + 0.3 * l1_loss(decoded, pixels) + 2e-5 * divergence}

    def marks() -> list[float]:
        """Of each picture its signal-to-noise ratio in dB."""
        decoded = cast(Any, vae.decode(cast(Any, vae.encode(fresh)).latent_dist.mode())).sample
        return psnr_of_each(decoded, fresh).tolist()

    def batches(step: int) -> torch.Tensor:
        return _pixels(_scenes(step, part.batch_size))

    train_until_flat(vae, batches, losses, marks, folder / "vae", amounts, part)
    with torch.no_grad():
        normalise_latents(vae, _pixels(_scenes(0, max(amounts.validation, 32))))
    save_result(vae, folder / "vae/model")


def _train_judge(folder: Path, amounts: Amounts) -> None:
    judge, part = models.build_judge(), PARTS["judge"]
    asked = _scenes(0, amounts.validation, "validation")

    def batches(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        # It is to judge what is asked for too, whose looks no painter sees; what is painted is softer and off in tone.
        split = ("train", "test")[step % 2]
        scenes, pixels = _scenes(step, part.batch_size, split), _pixels(_scenes(step, part.batch_size, split))
        rng = random.Random(step)
        if rng.random() < 0.5:
            pixels = interpolate(avg_pool2d(pixels, 2), scale_factor=2, mode="bilinear")
        pixels = pixels * rng.uniform(0.9, 1.1) + rng.uniform(-0.08, 0.08) + 0.05 * torch.randn_like(pixels)
        return pixels, torch.tensor([answers(scene) for scene in scenes])

    def losses(batch: Any, step: int) -> dict[str, torch.Tensor]:
        return {"loss": question_loss(judge(batch[0]), batch[1])}

    def marks() -> list[float]:
        return frames_right(judge, [world.picture(scene) for scene in asked], asked)

    train_until_flat(judge, batches, losses, marks, folder / "judge", amounts, part)
    save_result(judge, folder / "judge/model")


def open_judge(folder: Path) -> Judge:
    """The judge of the small world, of the folder of all parts."""
    return load_whole(Judge, folder / "judge/model").float().eval()


class TextToLatent(nn.Module):
    """Text encoder and UNet, and a head on the text features that has to name what the caption says."""

    def __init__(self, text_encoder: Any, unet: nn.Module):
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet
        self.namer = NamingHead(models.TEXT_DIM)


def _diffusion(vae: Any, text_encoder: Any, tokenizer: Any, unet: Any, scheduler: Any) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, cast(Any, None), cast(Any, None), requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _latents(vae: Any, scenes: Sequence[Any]) -> torch.Tensor:
    with torch.no_grad():
        return vae.encode(_pixels(scenes)).latent_dist.mode()


def _train_painter(folder: Path, amounts: Amounts) -> None:
    part, pool = PARTS["painter"], _pool(amounts)
    vae = load_whole(AutoencoderKL, folder / "vae/model").float().eval().requires_grad_(False)
    judge = open_judge(folder)
    tokenizer = build_tokenizer(
        [told for told, _ in pool] + _story_sentences(amounts), lowercase=True, max_length=models.TEXT_LENGTH
    )
    model = TextToLatent(models.build_text_encoder(tokenizer), models.build_unet())
    pipeline = _diffusion(vae, model.text_encoder, tokenizer, model.unet, build_scheduler())
    painter = trainable(painter_of(pipeline))
    questions = _validation(world.CAPTIONS, amounts)

    def batches(step: int) -> tuple[list[str], torch.Tensor, list[Any]]:
        rows = random.Random(f"painter/{step}").sample(pool, min(part.batch_size, len(pool)))
        return [told for told, _ in rows], _latents(vae, [scene for _, scene in rows]), [scene for _, scene in rows]

    def losses(batch: Any, step: int) -> dict[str, torch.Tensor]:
        told, latents, scenes = batch
        dropped = drop_for_guidance(len(told), 0.1, "cpu")
        told = ["" if gone else caption for gone, caption in zip(dropped.tolist(), told, strict=True)]
        ids = tokenizer(
            told, padding="max_length", truncation=True, max_length=models.TEXT_LENGTH, return_tensors="pt"
        )["input_ids"]
        features = model.text_encoder(ids).last_hidden_state
        ends = features[torch.arange(len(told)), (ids == tokenizer.eos_token_id).int().argmax(1)]
        kept = [i for i, gone in enumerate(dropped.tolist()) if not gone]
        naming = model.namer.loss(ends[kept], [scenes[i] for i in kept]) if kept else ends.sum() * 0
        diffusion = painter.loss(latents, {"prompt_embeds": features})
        return {"loss": diffusion + 0.03 * naming, "ldm": diffusion, "naming": naming}

    def marks() -> list[float]:
        pictures = pipeline(
            [question.sentence or "" for question in questions],
            num_inference_steps=amounts.steps_of_painting,
            guidance_scale=GUIDANCE_SCALE,
            generator=[torch.Generator().manual_seed(i) for i in range(len(questions))],
        )
        return frames_right(judge, cast(Any, pictures).images, [cast(Any, question.scene) for question in questions])

    train_until_flat(model, batches, losses, marks, folder / "painter", amounts, part)
    for name, made in (("unet", model.unet), ("text_encoder", model.text_encoder)):
        save_result(made, folder / "painter" / name)
    save_result(tokenizer, folder / "painter/tokenizer")
    save_result(build_scheduler(), folder / "painter/model")


def _story_sentences(amounts: Amounts) -> list[str]:
    told = world.stories("train", amounts.pool_stories, world.TRAINED_SHARE)
    return [step.text for story in told for step in story.steps]


def _talks(amounts: Amounts) -> list[Any]:
    return [world.sample_talk(split_rng("train", 2 * 10**6 + seed)) for seed in range(amounts.pool_talks)]


def _train_reader(folder: Path, amounts: Amounts) -> None:
    part, pool, talks = PARTS["reader"], _pool(amounts), _talks(amounts)
    told = world.stories("train", amounts.pool_stories, world.TRAINED_SHARE)
    processor = _processor(pool, told, talks)
    model = models.build_comprehension(len(processor.tokenizer), processor.image_token_id, processor.tokenizer)
    stack: Any = nn.Module()
    stack.model, stack.namer = model, NamingHead(models.NUM_QUERY_TOKENS * 64)
    scenes = _scenes(0, amounts.validation, "validation")

    def batches(step: int) -> tuple[Any, list[Any]]:
        rng = random.Random(f"reader/{step}")
        # Pictures of captions come first: the naming head reads these.
        rows = [rng.choice(pool) for _ in range(part.batch_size // 2)]
        lessons = [world.caption_lesson(*row, rng) for row in rows]
        # A large language model reads a description and can say it plainly; this one learns to here.
        while len(lessons) < part.batch_size:
            lessons += [
                world.describe_lesson(*rng.choice(pool), rng),
                world.story_lesson(rng.choice(told), rng, "plain"),
                world.story_lesson(rng.choice(told), rng, "plain"),
                world.talk_lesson(rng.choice(talks), rng, "nothing"),
            ]
        del lessons[part.batch_size :]
        return processor.training_batch([lesson.messages for lesson in lessons]), [scene for _, scene in rows]

    def losses(batch: Any, step: int) -> dict[str, torch.Tensor]:
        inputs, shown = batch
        output = model(**{name: value for name, value in inputs.items() if name != "targets"})
        naming = stack.namer.loss(output.qformer_outputs.last_hidden_state[: len(shown)], shown)
        return {"loss": output.loss + 0.1 * naming, "text": output.loss, "naming": naming}

    questions = _validation(world.final("image-text", world.TRAINED_SHARE), amounts)

    def marks() -> list[float]:
        """Of each picture whether its description is right, and of what the last step of each story shows."""
        asked = [world.caption_lesson("", scene, random.Random(0)).messages[:1] for scene in scenes]
        asked += [question.messages for question in questions]
        shown = scenes + [cast(Any, question.scene) for question in questions]
        said = decode_texts(reader_of(model, processor), asked)
        return [float(describes(text, scene)) for text, scene in zip(said, shown, strict=True)]

    train_until_flat(stack, batches, losses, marks, folder / "reader", amounts, part)
    model.generation_config.update(max_new_tokens=40, do_sample=False, repetition_penalty=1.0, stop_strings=["###"])
    save_result(processor, folder / "reader/processor")
    save_result(model, folder / "reader/model")


def _processor(pool: Sequence[Any], told: Sequence[Any], talks: Sequence[Any]) -> MiniGPT5Processor:
    """With a tokenizer made of what will be said and asked, descriptions in words among it."""
    rng = random.Random(0)
    lessons = [world.caption_lesson(text, scene, rng) for text, scene in pool[:2000]]
    lessons += [world.draw_lesson(text, scene, rng) for text, scene in pool[:2000]]
    for paints in ("vokens", "words"):
        lessons += [world.story_lesson(story, rng, paints) for story in told[:2000]]
        lessons += [world.talk_lesson(talk, rng, paints) for talk in talks[:2000]]
    empty = build_tokenizer([], False, models.CONTEXT_LENGTH)
    renderer = MiniGPT5Processor(models.build_image_processor(), empty)
    pieces = [*(piece for one in lessons for piece in renderer.render(one.messages)[0]), "###"]
    texts = (piece.strip() for piece in pieces if isinstance(piece, str))
    tokenizer = build_tokenizer(texts, lowercase=False, max_length=models.CONTEXT_LENGTH)
    return MiniGPT5Processor(models.build_image_processor(), tokenizer, models.NUM_QUERY_TOKENS, n_vokens=8)


def open_base(parts: Path, system: System, amounts: Amounts, seed: int) -> MiniGPT5Pipeline:
    """The frozen parts as a pipeline whose vokens and connector are untrained, drawn from the seed."""
    painter = parts / "painter"
    diffusion = _diffusion(
        load_whole(AutoencoderKL, parts / "vae/model").float(),
        load_whole(CLIPTextModel, painter / "text_encoder").float(),
        AutoTokenizer.from_pretrained(painter / "tokenizer", trust_remote_code=False),
        load_whole(UNet2DConditionModel, painter / "unet").float(),
        DDIMScheduler.from_pretrained(painter / "model", trust_remote_code=False),
    )
    reader = load_whole(Blip2ForConditionalGeneration, parts / "reader/model").float()
    processor = MiniGPT5Processor.from_pretrained(parts / "reader/processor")
    pipe = MiniGPT5Pipeline.join(
        (reader, processor),
        diffusion,
        system.n_vokens,
        connector=system.connector,
        seed=seed,
        guidance_scale=GUIDANCE_SCALE,
        num_inference_steps=amounts.steps_of_painting,
        captions=[told for told, _ in world.captions("train", 200)],
        **system.sizes,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def open_saved(model: Path) -> MiniGPT5Pipeline:
    """A pipeline that a system's training wrote."""
    pipe = MiniGPT5Pipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def train_system(name: str, seed: int, work: Path, amounts: Amounts) -> MiniGPT5Pipeline:
    """Train a system from a seed under `work / name-seed` until it is flat.

    Returns:
        The pipeline, with what was trained attached or, where nothing is, the one it begins with.
    """
    system, folder = SYSTEMS[name], work / f"{name}-{seed}"
    start = work / f"{system.start}-{seed}/model"
    pipe = open_saved(start) if system.start else open_base(work / "parts", system, amounts, seed)
    if system.kind is None:
        return pipe
    # What joining drew is of the seed; so is what is drawn from here on.
    torch.manual_seed(seed)
    judge, part = open_judge(work / "parts"), KINDS[system.kind]
    if system.kind == "painter":
        _tune_painter(pipe, seed, folder, amounts, part, judge)
        return pipe
    weights = LossWeights(
        text=TEXT_WEIGHT,
        diffusion=system.diffusion,
        caption=system.caption,
        guidance_dropout=system.guidance_dropout,
        snr_gamma=None,
        mask_padding=False,
    )
    if system.kind in ("text", "words"):
        weights = LossWeights(text=1.0, diffusion=0.0, caption=0.0)
    pipe.mapper.requires_grad_(system.kind in ("align", "interleave"))
    train_adapter(pipe, None if system.prefix else LoraSettings(**cast(Any, LORA)), system.prefix, seed)
    model = VokenModel(pipe, weights)
    if system.trains_painter:
        cast(Any, pipe).unet.requires_grad_(True)
    lessons = _lessons(system, amounts)

    def batches(step: int) -> tuple[Any, list[str]]:
        drawn = lessons(random.Random(f"{system.kind}/{seed}/{step}"), part.batch_size)
        # GILL is taught what its pictures show; what is aligned with captions, their own words.
        own = [lesson.own if system.kind == "align" else lesson.plain for lesson in drawn if lesson.own]
        return model.prepare(pipe.reader.training_batch([lesson.messages for lesson in drawn])), cast(list[str], own)

    def losses(batch: Any, step: int) -> dict[str, torch.Tensor]:
        return model(*batch)

    marks = partial(_marks, system, pipe, judge, amounts)
    groups = model.parameter_groups(part.rate, 1.0)
    train_until_flat(model, batches, losses, marks, folder, amounts, part, seed, [g for g in groups if g["params"]])
    model.eval()
    return pipe


def _lessons(system: System, amounts: Amounts) -> Callable[[random.Random, int], list[world.Lesson]]:
    """What a system learns, so many at a time: the same stories, talks and captions for all of a kind."""
    pool = _pool(amounts)[: system.captions]
    if system.kind == "align":
        # One in eight keeps the speech as it is.
        return lambda rng, count: [
            (world.caption_lesson if i % 8 == 7 else world.draw_lesson)(*rng.choice(pool), rng) for i in range(count)
        ]
    told = world.stories("train", amounts.pool_stories, world.TRAINED_SHARE)
    talks = _talks(amounts)
    paints = {"interleave": "vokens", "text": "nothing", "words": "words"}[cast(str, system.kind)]

    def draw(rng: random.Random, count: int) -> list[world.Lesson]:
        stories = [world.story_lesson(rng.choice(told), rng, paints) for _ in range(count * 5 // 8)]
        return stories + [world.talk_lesson(rng.choice(talks), rng, paints) for _ in range(count - len(stories))]

    return draw


def _marks(system: System, pipe: MiniGPT5Pipeline, judge: Judge, amounts: Amounts) -> list[float]:
    """Whether what is painted is right; of what is fine-tuned for words, how near these are."""
    if system.kind in ("align", "interleave"):
        task = world.CAPTIONS if system.kind == "align" else world.final("image-text", world.TRAINED_SHARE)
        questions = _validation(task, amounts)
        asked = answering(system, pipe, None)
        pictures = [picture for _, picture in ask(asked, questions)]
        return right_above_chance(judge, pictures, [cast(Any, question.scene) for question in questions])
    questions = _validation(world.NEXT if system.kind == "text" else world.TURN, amounts)
    said = [text for text, _ in ask(pipe, questions, image_mode="never")]
    truths = [question.text or "" for question in questions]
    if system.kind == "words":
        truths = [
            f"{text} {world.DESCRIPTION_MARK} {plain_caption(question.scene)}" if question.scene else text
            for text, question in zip(truths, questions, strict=True)
        ]
    return texts_right(said, truths)


def _tune_painter(pipe: MiniGPT5Pipeline, seed: int, folder: Path, amounts: Amounts, part: Part, judge: Judge) -> None:
    """Fine-tune the UNet on sentences of stories."""
    painter, unet = trainable(painter_of(pipe.painter)), cast(Any, pipe).unet
    told = world.stories("train", amounts.pool_stories, world.TRAINED_SHARE)
    steps = [step for story in told for step in story.steps]
    # Of every step, for whichever says too little no painter can be right.
    questions = _validation(world.EVERY, amounts)[: amounts.validation]
    alone = ZeroShotDiffusion(pipe)

    def batches(step: int) -> tuple[list[str], torch.Tensor]:
        rows = random.Random(f"tuned/{seed}/{step}").sample(steps, min(part.batch_size, len(steps)))
        return [row.text for row in rows], _latents(pipe.vae, [row.scene for row in rows])

    def losses(batch: Any, step: int) -> dict[str, torch.Tensor]:
        sentences, latents = batch
        dropped = drop_for_guidance(len(sentences), 0.1, "cpu").tolist()
        with torch.no_grad():
            features = painter.encode_captions(
                ["" if gone else one for gone, one in zip(dropped, sentences, strict=True)]
            )
        return {"loss": painter.loss(latents, features)}

    def marks() -> list[float]:
        pictures = [picture for _, picture in ask(alone, questions)]
        return right_above_chance(judge, pictures, [cast(Any, question.scene) for question in questions])

    cast(Any, pipe).vae.requires_grad_(False)
    cast(Any, pipe).text_encoder.requires_grad_(False)
    train_until_flat(unet.requires_grad_(True), batches, losses, marks, folder, amounts, part, seed)


def answering(system: System, pipe: MiniGPT5Pipeline, tuned: Path | None) -> Any:
    """What is asked: the pipeline itself, or the baseline that is made of its parts.

    Args:
        tuned: folder of the fine-tuned UNet, of the two-stage baseline.
    """
    if system.answers == "painter":
        return ZeroShotDiffusion(pipe)
    if system.answers == "two-stage":
        unet = load_whole(UNet2DConditionModel, cast(Path, tuned)).float()
        return TwoStage(pipe, ZeroShotDiffusion(pipe, unet))
    if system.answers == "words":
        return Divter(pipe, mark=world.DESCRIPTION_MARK)
    return GILL.around(pipe) if system.answers == "gill" else pipe
