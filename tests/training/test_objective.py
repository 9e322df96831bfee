import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from forking import run_forked
from PIL import Image
from safetensors.torch import load_file

from minigpt5 import MiniGPT5Pipeline
from minigpt5.data.features import content_key
from minigpt5.data.tasks import caption_task, draw_task
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.export import export_cc3m, export_vist
from minigpt5.storyworld.language import caption
from minigpt5.storyworld.miniature import TEXT_LENGTH, build_text_encoder, build_tokenizer
from minigpt5.storyworld.scene import sample_scene, split_rng
from minigpt5.training.objective import Draws, LossWeights, VokenModel
from minigpt5.utils.images import to_tensor
from minigpt5.vokens.adapters import LoraSettings, fuse_adapter, train_adapter

ROOT = Path(__file__).parents[2]
ONLY_TEXT = LossWeights(text=1.0, diffusion=0.0, caption=0.0, guidance_dropout=0.0)


@pytest.fixture
def pipe(tiny_folder, texts):
    """A pipeline of its own, with a text encoder, whose weights may be changed."""
    tokenizer = build_tokenizer(texts, lowercase=True, max_length=TEXT_LENGTH)
    parts = {"text_encoder": build_text_encoder(tokenizer), "tokenizer": tokenizer}
    return MiniGPT5Pipeline.from_pretrained(tiny_folder, **parts)


def conversations(task, count=3):
    rng = split_rng("train", 5)
    scenes = [sample_scene(rng) for _ in range(count)]
    captions = [caption(scene, rng) for scene in scenes]
    return [task(text, draw(scene), random.Random(0)) for text, scene in zip(captions, scenes, strict=True)], captions


def trainable(module):
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def test_losses_add_up_by_their_weights(pipe):
    weights = LossWeights(text=0.5, diffusion=2.0, caption=3.0, guidance_dropout=0.0, snr_gamma=None)
    chats, captions = conversations(draw_task)
    model = VokenModel(pipe, weights)
    losses = model(model.prepare(pipe.processor.training_batch(chats)), captions)
    total = 0.5 * losses["text"] + 2 * losses["ldm"] + 3 * losses["caption"]
    assert torch.allclose(losses["loss"], total)


def test_replies_without_pictures_have_a_text_loss_only(pipe):
    chats, _ = conversations(caption_task)
    model = VokenModel(pipe, LossWeights())
    assert model(model.prepare(pipe.processor.training_batch(chats))).keys() == {"loss", "text"}


def test_dropped_vokens_give_the_null_embedding_and_the_empty_caption(pipe):
    chats, captions = conversations(draw_task)
    model = VokenModel(pipe, LossWeights(diffusion=0.0, guidance_dropout=1.0)).eval()
    batch = model.prepare(pipe.processor.training_batch(chats))
    expected = (pipe.null_embeds() - model.encode_captions([""])["prompt_embeds"]).square().mean()
    assert torch.allclose(model(batch, captions)["caption"], expected, rtol=1e-5)


def test_a_step_with_given_draws_takes_nothing_from_chance(pipe):
    chats, captions = conversations(draw_task)
    model = VokenModel(pipe, LossWeights(snr_gamma=None)).eval()
    batch = pipe.processor.training_batch(chats)
    targets = batch["targets"]
    model.prepare(batch)
    shape = (3, *model.painter.latent_shape(*model.painter.default_size))
    noise, vae_noise = torch.randn(2, *shape)
    dropped, times = torch.tensor([True, False, False]), torch.tensor([0, 500, 900])
    with torch.no_grad():
        state = torch.get_rng_state()
        losses = model(batch, captions, draws=Draws(dropped, times, noise, vae_noise))
        assert torch.equal(torch.get_rng_state(), state)
        # By hand: latents, noised latents, and the mean squared error of what the UNet says of them.
        pixels = torch.stack([to_tensor(picture, model.image_size) for picture in targets])
        posterior = pipe.vae.encode(pixels).latent_dist
        latents = (posterior.mean + posterior.std * vae_noise) * pipe.vae.config.scaling_factor
        share = pipe.scheduler.alphas_cumprod[times].view(-1, 1, 1, 1)
        noisy = share.sqrt() * latents + (1 - share).sqrt() * noise
        hidden = pipe.reader.prefill(batch).last
        features = model.voken_features(hidden, batch["input_ids"]) * ~dropped.view(-1, 1, 1)
        target = share.sqrt() * noise - (1 - share).sqrt() * latents
        expected = (pipe.unet(noisy, times, pipe.mapper(features)).sample - target).square().mean()
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert torch.allclose(losses["ldm"], expected, rtol=1e-4)


def test_draws_of_other_pictures_are_refused(pipe):
    chats, captions = conversations(draw_task)
    model = VokenModel(pipe, LossWeights())
    batch = model.prepare(pipe.processor.training_batch(chats))
    with pytest.raises(ValueError, match=r"draws.times is for 2 picture\(s\), but the batch paints 3"):
        model(batch, captions, draws=Draws(times=torch.zeros(2, dtype=torch.long)))


def test_a_batch_is_made_ready_before_the_step(pipe):
    """On the CPU: targets of the painter's size as a tensor; what is to be cached is told from others only then."""
    chats, captions = conversations(draw_task)
    model = VokenModel(pipe, LossWeights())
    batch = pipe.processor.training_batch(chats)
    with pytest.raises(TypeError, match=r"the batch's targets are pictures still; make it ready with prepare\(batch\)"):
        model(batch, captions)
    model.image_size = 16
    expected = [to_tensor(picture, 16, Image.Resampling.BILINEAR) for picture in batch["targets"]]
    assert torch.equal(model.prepare(batch)["targets"], torch.stack(expected))
    assert not [name for name in batch if name.endswith("_keys")]
    told = pipe.processor.training_batch(conversations(caption_task)[0])
    assert model.prepare(told)["targets"].shape == (0, 3, 16, 16)


def test_a_step_hashes_and_resizes_nothing(pipe, tmp_path, monkeypatch):
    chats, captions = conversations(draw_task)
    seen, _ = conversations(caption_task)
    train_adapter(pipe)
    model = VokenModel(pipe, LossWeights(caption=0.0))
    model.cache_features(tmp_path)
    batch = model.prepare(pipe.processor.training_batch([*chats, *seen]))
    assert batch["target_keys"] == [content_key(target) for target in batch["targets"]]
    assert batch["picture_keys"] == [content_key(picture) for picture in batch["pixel_values"]]
    for name in ("content_key", "to_tensor"):
        monkeypatch.setattr(f"minigpt5.training.objective.{name}", None)
    assert model(batch, captions)["ldm"] > 0


def test_features_are_the_states_before_each_voken(pipe):
    chats, _ = conversations(draw_task, 2)
    ids = pipe.processor.training_batch(chats)["input_ids"]
    hidden = torch.arange(ids.numel(), dtype=torch.float).view(*ids.shape, 1)
    features = VokenModel(pipe, LossWeights()).voken_features(hidden, ids)
    for row in range(2):
        start = ids[row].tolist().index(pipe.processor.voken_ids[0])
        assert features[row].flatten().tolist() == hidden[row, start - 1 : start + 7].flatten().tolist()


def test_first_stage_changes_only_voken_rows_and_merges_to_the_same_model(pipe):
    before = pipe.comprehension.get_input_embeddings().weight.clone()
    chats, captions = conversations(draw_task)
    train_adapter(pipe)
    model = VokenModel(pipe, LossWeights())
    batch = model.prepare(pipe.processor.training_batch(chats))
    names = trainable(pipe.comprehension)
    assert len(names) == 2
    optimizer = torch.optim.SGD([p for p in pipe.comprehension.parameters() if p.requires_grad], lr=1.0)
    model(batch, captions)["loss"].backward()
    optimizer.step()
    trained = model.eval()(batch, weights=ONLY_TEXT)["text"]
    fuse_adapter(pipe.comprehension)
    assert torch.allclose(model(batch, weights=ONLY_TEXT)["text"], trained, atol=1e-5)
    after = pipe.comprehension.get_input_embeddings().weight
    changed = (after != before).any(dim=1).nonzero().flatten().tolist()
    assert changed and set(changed) <= set(pipe.processor.voken_ids)


def test_second_stage_trains_lora_and_voken_rows(pipe):
    train_adapter(pipe, LoraSettings())
    kinds = {"lora" if "lora_" in name else "rows" for name in trainable(pipe.comprehension)}
    assert kinds == {"lora", "rows"}
    layers = pipe.comprehension.config.text_config.num_hidden_layers
    assert sum("lora_" in name for name in trainable(pipe.comprehension)) == layers * 2 * 2


def test_frozen_parts_stay_in_evaluation_mode_and_without_gradient(pipe):
    model = VokenModel(pipe, LossWeights()).train()
    assert model.mapper.training
    assert not (model.unet.training or model.vae.training or model.text_encoder.training)
    assert not any(p.requires_grad for part in (model.unet, model.vae, model.text_encoder) for p in part.parameters())


def test_cached_features_are_those_of_the_frozen_parts_which_then_rest(pipe, tmp_path):
    chats, captions = conversations(draw_task)
    seen, _ = conversations(caption_task)
    train_adapter(pipe)
    weights = LossWeights(guidance_dropout=0.0)

    def losses(folder=None):
        torch.manual_seed(0)
        model = VokenModel(pipe, weights)
        if folder:
            model.cache_features(folder)
        batch = pipe.processor.training_batch([*chats, *seen])
        return model.eval()(model.prepare(batch), captions)

    calls = []
    for name in ("vision_model", "qformer"):
        getattr(pipe.comprehension, name).register_forward_hook(lambda *_, name=name: calls.append(name))
    pipe.vae.encoder.register_forward_hook(lambda *_: calls.append("vae"))
    pipe.text_encoder.register_forward_hook(lambda *_: calls.append("text_encoder"))
    plain = losses()
    # Each frozen part takes all pictures of a batch at once.
    assert sorted(calls) == ["qformer", "text_encoder", "vae", "vision_model"]
    calls.clear()
    first = losses(tmp_path)
    assert len(calls) == 4
    second = losses(tmp_path)
    assert len(calls) == 4
    for name in plain:
        torch.testing.assert_close(first[name], plain[name])
        assert torch.equal(second[name], first[name])


def test_cached_features_have_the_precision_of_the_parts_whatever_that_of_the_run(pipe, tmp_path):
    chats, captions = conversations(draw_task)
    seen, _ = conversations(caption_task)
    train_adapter(pipe)

    def features(model):
        batch = model.prepare(pipe.processor.training_batch([*chats, *seen]))
        latents = model.encode_targets(batch, torch.zeros(()))
        return [model.read_pictures(batch), latents, *model.encode_captions(captions).values()]

    plain, cached = features(VokenModel(pipe, LossWeights())), VokenModel(pipe, LossWeights())
    cached.cache_features(tmp_path)
    with torch.autocast("cpu", torch.bfloat16):
        first = features(cached)
    for one, other in zip(first, plain, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other)


def test_a_picture_that_stands_twice_in_a_batch_is_cached_once(pipe, tmp_path):
    chats, _ = conversations(caption_task, 2)
    train_adapter(pipe)
    model = VokenModel(pipe, LossWeights())
    model.cache_features(tmp_path)
    batch = model.prepare(pipe.processor.training_batch([chats[0], chats[1], chats[0]]))
    seen = []
    pipe.comprehension.vision_model.register_forward_hook(
        lambda module, args, kwargs, out: seen.append(len(out[0])), with_kwargs=True
    )
    features = model.read_pictures(batch)
    assert seen == [2] and len(features) == 3
    assert torch.equal(features[0], features[2]) and not torch.equal(features[0], features[1])


def test_parts_in_training_are_not_cached(pipe, tmp_path):
    with pytest.raises(ValueError, match="is being trained"):
        VokenModel(pipe, LossWeights()).cache_features(tmp_path)


TWO_PROCESSES = """
import sys
from functools import partial
from pathlib import Path
from safetensors.torch import save_file
from minigpt5.vokens.adapters import train_adapter
from minigpt5.training.objective import LossWeights, VokenModel
from minigpt5.training.stages import VokenConfig, open_for_training
from minigpt5.data.mixture import Mixture
from minigpt5.training.fit import fit
from minigpt5.utils.processes import is_main_process, process_state

model, data, out = map(Path, sys.argv[1:])
mix = {"draw": 3, "story_text": 2}
config = VokenConfig(steps=3, batch_size=5, learning_rate=1e-3, warmup_steps=0, report_to=None,
                     model=model, data=data, out=out, mix=mix)
pipe = open_for_training(config)
train_adapter(pipe)
module = VokenModel(pipe, LossWeights(text=1.0, diffusion=0.0, caption=1.0, guidance_dropout=0.0))
draw = Mixture(data, mix)

def batches(index):
    drawn = draw(index)
    captions = [one.caption for one in drawn if one.caption is not None]
    return module.prepare(pipe.processor.training_batch([one.item for one in drawn])), captions

fit(module, batches, lambda batch, step: module(*batch), config, out)
if is_main_process():
    trained = {name: value.data for name, value in module.named_parameters() if value.requires_grad}
    save_file(trained, out / f"{process_state().num_processes}.safetensors")
"""


def launched(program, *arguments):
    """Two processes, as a user starts them."""
    devices = ["--config_file", str(ROOT / "configs/accelerate/ddp_8_gpus.yaml"), "--num_processes", "2"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *devices, program, *arguments]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return [subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)]


@pytest.mark.parametrize("two", [partial(run_forked, processes=2), pytest.param(launched, marks=pytest.mark.slow)])
def test_two_processes_with_unequal_shares_train_as_one_does(pipe, tmp_path, two):
    for name, export in (("cc3m", export_cc3m), ("vist", export_vist)):
        export(tmp_path / "data" / name, "train", 6)
    pipe.save_pretrained(tmp_path / "model")
    program = tmp_path / "program.py"
    program.write_text(TWO_PROCESSES)
    for name, run in (("one", run_forked), ("two", two)):
        for output in run(program, tmp_path / "model", tmp_path / "data", tmp_path / name):
            assert output.returncode == 0, output.stderr
    one, two = load_file(tmp_path / "one/1.safetensors"), load_file(tmp_path / "two/2.safetensors")
    untouched = dict(pipe.mapper.named_parameters())
    moved = (one["mapper.queries"] - untouched["queries"]).abs().max()
    assert moved > 1e-3
    for name in one:
        # Adam's first steps divide by gradients that may be nearly nothing: a thousandth of a step is the noise.
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=3e-5)
