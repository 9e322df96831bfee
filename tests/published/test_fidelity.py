"""The published program's numbers, on tiny random weights in its own file formats (tests/golden, see its README)."""

import json
from pathlib import Path

import pytest
import torch
from diffusers.optimization import get_scheduler
from PIL import Image
from safetensors.torch import load_file
from transformers import BatchFeature

from minigpt5.published.checkpoints import load_official, rename
from minigpt5.readers.generic import next_token_logits
from minigpt5.readers.minigpt4 import MiniGPT4Reader, embed_prompt, last_hidden_states
from minigpt5.readers.prompts import Example, split_marks
from minigpt5.training import objective
from minigpt5.training.losses import caption_loss
from minigpt5.training.objective import LossWeights, VokenModel
from minigpt5.utils.images import open_image, pad_to_square
from minigpt5.vokens import decoding
from minigpt5.vokens.decoding import InterleavedDecoder, TextEvent, VokenEvent

GOLDEN = Path(__file__).parents[1] / "golden"


def close(ours, theirs):
    torch.testing.assert_close(ours.float(), theirs.float(), atol=5e-5, rtol=1e-4)


def recorded(variant, name):
    """Tensors and facts of a recording."""
    file = GOLDEN / variant / f"{name}.json"
    facts = json.loads(file.read_text()) if file.exists() else {}
    tensors = load_file(file.with_suffix(".safetensors"))
    if "items" in facts:
        # A shorter recording leaves out what a fuller one of the same items holds.
        for other in file.parent.glob("forward_*.json"):
            if json.loads(other.read_text())["items"] == facts["items"]:
                more = load_file(other.with_suffix(".safetensors"))
                tensors |= {key: more[key] for key in more if key.startswith("in.") and key not in tensors}
    return tensors, facts


def official(variant, **options):
    folder = GOLDEN / variant
    sizes = json.loads((folder / "config.json").read_text())
    pipe, _ = load_official(
        llm=folder / "llm",
        vit=folder / "frozen/eva_vit.safetensors",
        qformer=folder / "frozen/blip2_qformer.safetensors",
        proj=folder / "frozen/llama_proj.safetensors",
        sd=folder / "sd",
        stage1=folder / "stage1.safetensors",
        stage2=folder / "stage2.safetensors" if sizes["stage2"] else None,
        vit_heads=sizes["vit"]["heads"],
        qformer_heads=sizes["qformer"]["heads"],
        **options,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipes():
    return {variant: official(variant) for variant in "AB"}


def our_ids(pipe, ids):
    """Recorded ids, in which a picture is one id and BOS is put in later, as this library's."""
    row = [pipe.processor.tokenizer.bos_token_id]
    for i in ids:
        row += [i] * (pipe.processor.num_query_tokens if i == pipe.processor.image_token_id else 1)
    return row


def our_batch(pipe, tensors):
    """A recorded batch, padded on the right, as this library's training batch."""
    rows, labels, pictures = [], [], []
    for i, (ids, mask, label) in enumerate(
        zip(tensors["in.input_ids"], tensors["in.attention_mask"], tensors["in.labels"], strict=True)
    ):
        length = int(mask.sum())
        rows.append(our_ids(pipe, ids[:length].tolist()))
        marks = int((ids == pipe.processor.image_token_id).sum())
        if marks:
            pictures.append(tensors[f"in.images.{i}"])
        # Pictures are never scored, so labels sit behind them.
        scored = [(at, value) for at, value in enumerate(label.tolist()) if value != -100]
        shift = len(rows[-1]) - length
        row = [-100] * len(rows[-1])
        for at, value in scored:
            row[at + shift] = value
        labels.append(row)
    longest = max(map(len, rows))
    pad = pipe.processor.tokenizer.pad_token_id
    batch = {
        "input_ids": torch.tensor([row + [pad] * (longest - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        "labels": torch.tensor([row + [-100] * (longest - len(row)) for row in labels]),
    }
    if pictures:
        batch["pixel_values"] = torch.cat(pictures)
    return BatchFeature(batch)


FORWARDS = [(v, path.stem) for v in "AB" for path in sorted((GOLDEN / v).glob("forward_*.json"))]


@pytest.mark.parametrize("variant", "AB")
def test_pictures_are_encoded_alike(pipes, variant):
    model = pipes[variant].comprehension
    tensors, _ = recorded(variant, "encode_img")
    with torch.no_grad():
        vision = model.vision_model
        states = vision.encoder(vision.embeddings(tensors["pixels"])).last_hidden_state
        close(states, tensors["vit"])
        close(vision(tensors["pixels"]).last_hidden_state, tensors["ln_vision"])
        features = model.get_image_features(tensors["pixels"], return_dict=True)
        close(features.pooler_output, tensors["proj"])
        close(features.qformer_outputs.last_hidden_state, tensors["qformer"])


@pytest.mark.parametrize(("variant", "name"), FORWARDS)
def test_the_language_model_sees_and_says_the_same(pipes, variant, name):
    pipe = pipes[variant]
    tensors, _ = recorded(variant, name)
    batch = our_batch(pipe, tensors)
    assert torch.equal(batch["attention_mask"], tensors["llm.attention_mask"])
    assert torch.equal(batch["labels"], tensors["llm.labels"])
    there = batch["attention_mask"].bool()
    with torch.no_grad():
        embeds = embed_prompt(pipe.comprehension, batch["input_ids"], batch.get("pixel_values"))
        hidden = last_hidden_states(pipe.comprehension, embeds, batch["attention_mask"])
        logits = next_token_logits(pipe.comprehension, hidden)
        layers = pipe.comprehension.language_model.base_model(
            inputs_embeds=embeds, attention_mask=batch["attention_mask"], output_hidden_states=True
        ).hidden_states
    if "llm.inputs_embeds" in tensors:
        close(embeds[there], tensors["llm.inputs_embeds"][there])
    for layer in (key for key in tensors if key.startswith("llm.hidden.")):
        close(layers[int(layer.split(".")[-1])][there], tensors[layer][there])
    if "llm.last_hidden" in tensors:
        close(hidden[there], tensors["llm.last_hidden"][there])
    if "llm.logits" in tensors:
        close(logits[there], tensors["llm.logits"][there])
    if "llm.scored_logits" in tensors:
        rows, positions = tensors["llm.scored_positions"].T
        close(logits[rows, positions], tensors["llm.scored_logits"])


def replay(monkeypatch, pipe, tensors, facts):
    """A `VokenModel` whose random draws are the recorded ones, and its batch."""
    weights = LossWeights(
        snr_gamma=5.0 if facts["snr_loss"] else None, caption=0.1 * (facts["captions"][0] is not None)
    )
    model = VokenModel(pipe, weights).eval()
    batch = our_batch(pipe, tensors)
    if "latents" in tensors:
        dropped = facts["cfg_dropped"]
        dropped = [False] * len(tensors["latents"]) if dropped == "none" else dropped
        monkeypatch.setattr(objective, "drop_for_guidance", lambda *_: torch.tensor(dropped))
        monkeypatch.setattr(model.painter.schedule, "draw", lambda *_: tensors["timesteps"])
        monkeypatch.setattr(torch, "randn_like", lambda _: tensors["noise"])
        monkeypatch.setattr(model, "encode_targets", lambda _: tensors["latents"])
        batch["targets"] = None
    return model, batch


@pytest.mark.parametrize(("variant", "name"), FORWARDS)
def test_all_losses_are_the_same(monkeypatch, pipes, variant, name):
    tensors, facts = recorded(variant, name)
    model, batch = replay(monkeypatch, pipes[variant], tensors, facts)
    with torch.no_grad():
        losses = model(batch, facts["captions"])
    for ours, theirs in (("text", "text_loss"), ("ldm", "image_loss"), ("caption", "caption_loss"), ("loss", "loss")):
        if ours in losses:
            close(losses[ours], tensors[f"loss.{theirs}"])
        else:
            assert tensors.get(f"loss.{theirs}", torch.tensor(0.0)) == 0


def test_targets_are_resized_as_published(monkeypatch, pipes):
    """Recorded at the published size, 512 pixels, whatever size the VAE's configuration names."""
    expected = json.loads((GOLDEN / "datasets/pixels.json").read_text())["output_512_square_white"]
    model = VokenModel(pipes["A"], LossWeights())
    assert model.image_size == recorded("A", "forward_caption")[0]["in.output_image"].shape[-1]
    model.image_size = 512
    seen = []
    encode = model.vae.encode
    monkeypatch.setattr(model.vae, "encode", lambda pixels: seen.append(pixels) or encode(pixels[..., :16, :16]))
    model.encode_targets([pad_to_square(open_image(GOLDEN / "datasets/pixels_source.png"))])
    pixels = seen[0][0]
    torch.testing.assert_close(pixels.mean((1, 2)), torch.tensor(expected["mean"]), atol=1e-6, rtol=0)
    torch.testing.assert_close(pixels.std((1, 2)), torch.tensor(expected["std"]), atol=1e-6, rtol=0)


PAINTED = [(variant, name) for variant, name in FORWARDS if "latents" in recorded(variant, name)[0]]


@pytest.mark.parametrize(("variant", "name"), PAINTED)
def test_voken_features_and_the_diffusion_are_the_same(pipes, variant, name):
    pipe = pipes[variant]
    tensors, facts = recorded(variant, name)
    batch = our_batch(pipe, tensors)
    model = VokenModel(pipe, LossWeights()).eval()
    with torch.no_grad():
        embeds = embed_prompt(pipe.comprehension, batch["input_ids"], batch.get("pixel_values"))
        hidden = last_hidden_states(pipe.comprehension, embeds, batch["attention_mask"])
        features = model.voken_features(hidden, batch["input_ids"])
        if facts["cfg_dropped"] != "none":
            features[torch.tensor(facts["cfg_dropped"])] = 0
        close(features, tensors["fc.in"])
        close(pipe.mapper.fc(features), tensors["fc.out"])
        mapped = pipe.mapper(features)
        close(mapped, tensors["mapping_feature"])

        distribution = pipe.vae.encode(tensors["in.output_image"]).latent_dist
        close(distribution.mean, tensors["vae.mean"])
        close(distribution.std, tensors["vae.std"])
        latents = (distribution.mean + distribution.std * tensors["vae.eps"]) * pipe.vae.config.scaling_factor
        close(latents, tensors["latents"])
        noisy = pipe.scheduler.add_noise(latents, tensors["noise"], tensors["timesteps"])
        close(noisy, tensors["unet.noisy_latents"])
        close(pipe.unet(noisy, tensors["timesteps"], mapped).sample, tensors["unet.out"])
        gamma = 5.0 if facts["snr_loss"] else None
        draws = {"times": tensors["timesteps"], "noise": tensors["noise"]}
        loss = model.painter.loss(latents, {"prompt_embeds": mapped}, gamma, **draws)
        close(loss, tensors["loss.image_loss"])

        kept = [text for text, drop in zip(facts["captions"], dropped_list(facts), strict=True) if text and not drop]
        if kept:
            wanted = torch.cat([tensors[f"caption.feature.{i}"] for i in range(len(kept))])
            close(model.encode_captions(kept)["prompt_embeds"], wanted)
        if "loss.caption_loss" in tensors:
            told = ["" if drop else text for text, drop in zip(facts["captions"], dropped_list(facts), strict=True)]
            loss = caption_loss({"prompt_embeds": mapped}, model.encode_captions(told))
            close(loss, tensors["loss.caption_loss"])


def dropped_list(facts):
    return [False] * len(facts["captions"]) if facts["cfg_dropped"] == "none" else facts["cfg_dropped"]


@pytest.mark.parametrize(("variant", "name"), [("A", "caption"), ("B", "multimodal")])
def test_gradients_of_every_trainable_tensor_are_the_same(monkeypatch, variant, name):
    pipe = official(variant)
    tensors, facts = recorded(variant, f"forward_{name}")
    gradients, _ = recorded(variant, f"grads_{name}")
    model, batch = replay(monkeypatch, pipe, tensors, facts)
    pipe.comprehension.requires_grad_(True)
    model(batch, facts["captions"])["loss"].backward()
    ours = dict(pipe.comprehension.named_parameters())
    ours |= {f"mapper.{key}": parameter for key, parameter in pipe.mapper.named_parameters()}
    source = "stage2" if variant == "B" else "stage1"
    for key, theirs in gradients.items():
        close(ours[rename(source, key)].grad, theirs)
    covered = {rename(source, key).split(".")[0] for key in gradients}
    assert covered == {"mapper", "language_model"}


def published_optimizer(pipe, groups):
    """AdamW and the warm-up of the published program, its groups in their recorded order."""
    tables = [pipe.comprehension.get_input_embeddings().weight, pipe.comprehension.get_output_embeddings().weight]
    low_rank = [p for name, p in pipe.comprehension.named_parameters() if ".lora_" in name]
    transformer = list(pipe.mapper.transformer.parameters())
    ours = [[*low_rank, *tables], transformer]
    if not low_rank:
        ours = [tables, list(pipe.mapper.fc.parameters()), transformer, [pipe.mapper.queries]]
    for group, parameters in zip(groups, ours, strict=True):
        assert sum(p.numel() for p in parameters) == group["n_elements"]
    optimizer = torch.optim.AdamW(
        [
            {"params": parameters, "lr": group["lr_base"], "weight_decay": group["weight_decay"], "eps": group["eps"]}
            for group, parameters in zip(groups, ours, strict=True)
        ]
    )
    return optimizer, get_scheduler("linear", optimizer, num_warmup_steps=4, num_training_steps=20), tables


@pytest.mark.parametrize("variant", "AB")
def test_three_steps_of_training_end_at_the_same_parameters(monkeypatch, variant):
    pipe = official(variant)
    tensors, facts = recorded(variant, "train3")
    pipe.comprehension.requires_grad_(False)
    optimizer, schedule, tables = published_optimizer(pipe, facts["groups"])
    source = "stage1"
    if variant == "B":
        source = "stage2"
        # The second stage leaves the mapper's first layers and its queries as they are.
        pipe.mapper.fc.requires_grad_(False)
        pipe.mapper.queries.requires_grad_(False)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    old = slice(0, pipe.processor.voken_ids[0])
    before = [table[old].norm() for table in tables]

    captions = recorded(variant, "forward_caption" if variant == "A" else "forward_multimodal")[1]["captions"]
    with torch.no_grad():
        pictures = pipe.vae.encode(tensors["in.output_image"]).latent_dist
    for step, theirs in enumerate(facts["steps"]):
        draws = {name: tensors[f"step.{step}.{name}"] for name in ("noise", "timesteps", "vae_eps")}
        draws["latents"] = (pictures.mean + pictures.std * draws["vae_eps"]) * pipe.vae.config.scaling_factor
        told = {"snr_loss": True, "captions": captions, "cfg_dropped": "none"}
        model, batch = replay(monkeypatch, pipe, tensors | draws, told)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(theirs["lr"])
        losses = model(batch, captions)
        for ours, name in (("loss", "loss"), ("text", "text_loss"), ("ldm", "image_loss"), ("caption", "caption_loss")):
            if name in theirs:
                close(losses[ours], torch.tensor(theirs[name]))
        losses["loss"].backward()
        for table in tables:
            table.grad[old] = 0
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    ours = dict(pipe.comprehension.named_parameters())
    ours |= {f"mapper.{key}": parameter for key, parameter in pipe.mapper.named_parameters()}
    checked = 0
    for key, theirs in tensors.items():
        if not key.startswith("after."):
            continue
        name, _, kind = key.removeprefix("after.").partition(".weight.")
        if kind == "old_rows_ratio":
            continue
        parameter = ours[rename(source, f"{name}.weight" if kind else name)]
        parameter = parameter[old.stop :] if kind == "new_rows" else parameter
        if name.endswith("in_proj_bias"):
            # Attention does not depend on the keys' bias: its gradient is rounding, which AdamW makes a step of.
            parameter, theirs = (torch.cat(t.chunk(3)[::2]) for t in (parameter, theirs))
        close(parameter, theirs)
        checked += 1
    assert checked == {"A": 131, "B": 44}[variant]
    for table, norm, key in zip(tables, before, ("embed_tokens", "lm_head"), strict=True):
        ratio = next(tensors[name] for name in tensors if key in name and name.endswith("old_rows_ratio"))
        torch.testing.assert_close(table[old].norm() / norm, ratio, atol=1e-7, rtol=0)


GENERATED = [
    (variant, path.stem)
    for variant in "AB"
    for path in sorted((GOLDEN / variant).glob("generate_*.json"))
    if "error" not in json.loads(path.read_text())
]


def as_written(utterance, count):
    """A prompt without a turn of its own: the published program takes every string as it is."""
    return Example(split_marks(utterance), images=[Image.new("RGB", (8, 8))] * count)


def prompt_of(pipe, variant, facts):
    """A recorded prompt as this library encodes it, and what its recording holds."""
    recording = load_file(GOLDEN / variant / f"generate_{facts['prompt']}.safetensors")
    pictures = recording.get("in.images")
    count = 0 if pictures is None else len(pictures)
    inputs = pipe.processor(as_written(facts["utterance"], count))
    if count:
        inputs["pixel_values"] = pictures
    return inputs, recording


class Replay:
    """What the language model gave while a reply was decoded, sampling replaced by the arg max or by a script."""

    def __init__(self, monkeypatch, script):
        self.hidden, self.shares = [], []

        genuine = MiniGPT4Reader._forward

        def forward(*arguments):
            states = genuine(*arguments)
            self.hidden.append(states.last)
            return states

        def choose(shares, generator):
            self.shares.append(shares)
            step = len(self.shares) - 1
            return torch.tensor([script[step]]) if script.get(step) is not None else shares.argmax(-1)

        monkeypatch.setattr(MiniGPT4Reader, "_forward", forward)
        monkeypatch.setattr(decoding, "_multinomial", choose)


def decode(monkeypatch, pipe, variant, facts, **settings):
    """Decode a recorded prompt as the published program does, to whom every token is speech, also `[IMG1]`."""
    script = dict(enumerate(facts["tokens"])) if facts["scripted"] else {}
    if facts["force_generation"]:
        script[0] = pipe.processor.voken_ids[0]
    replay = Replay(monkeypatch, script)
    config = pipe.decoding_config(max_new_tokens=facts["max_new_tokens"], max_images=9, **settings)
    decoder = InterleavedDecoder(pipe.reader, config)
    decoder.never = []
    inputs, _ = prompt_of(pipe, variant, facts)
    return replay, list(decoder.events(inputs))


def generated(variant, name):
    tensors, facts = recorded(variant, name) if (GOLDEN / variant / f"{name}.safetensors").exists() else ({}, None)
    facts = facts or json.loads((GOLDEN / variant / f"{name}.json").read_text())
    facts["scripted"] = "scripted" in name
    facts["prompt"] = "text_only_prompt" if "text_only" in name else "natural"
    return tensors, facts


def test_prompts_enter_the_language_model_alike(pipes):
    for variant, name in (("A", "natural"), ("B", "natural"), ("A", "text_only_prompt"), ("B", "text_only_prompt")):
        pipe = pipes[variant]
        _, facts = generated(variant, f"generate_{name}")
        inputs, recording = prompt_of(pipe, variant, facts)
        assert inputs["input_ids"][0].tolist() == our_ids(pipe, recording["prompt.input_ids"][0].tolist())
        with torch.no_grad():
            embeds = embed_prompt(pipe.comprehension, inputs["input_ids"], inputs.get("pixel_values"))
            close(embeds, recording["prompt.inputs_embeds"])


@pytest.mark.parametrize(("variant", "name"), GENERATED)
def test_replies_are_the_same(monkeypatch, pipes, variant, name):
    pipe = pipes[variant]
    tensors, facts = generated(variant, name)
    replay, events = decode(monkeypatch, pipe, variant, facts)
    steps = len(facts["tokens"])
    if name == "generate_scripted_stop_hash_hash":
        # Here `#` and `##` make a stop as well as `##` and `#` do.
        steps -= 1
    assert len(replay.hidden) == len(replay.shares) == steps
    said = torch.cat([replay_choice(replay, facts, step, pipe) for step in range(steps)])
    assert said.tolist() == facts["tokens"][:steps]
    for step, (hidden, shares) in enumerate(zip(replay.hidden, replay.shares, strict=True)):
        if f"step.{step}.last_hidden" in tensors:
            theirs = tensors[f"step.{step}.last_hidden"]
            close(hidden[:, -theirs.shape[1] :], theirs)
        if "probs" in tensors and not (facts["force_generation"] and step == 0):
            close(shares[0], tensors["probs"][step])

    blocks = [event.features for event in events if isinstance(event, VokenEvent)]
    assert len(blocks) == facts["tokens"].count(pipe.processor.voken_ids[0])
    text = "".join(event.text for event in events if isinstance(event, TextEvent))
    assert "###" not in text and "[IMG0]" not in text and "<s>" not in text
    if "fc.in" in tensors:
        check_painting(pipe, blocks[0].unsqueeze(0), tensors, facts)


def replay_choice(replay, facts, step, pipe):
    if facts["scripted"]:
        return torch.tensor([facts["tokens"][step]])
    if facts["force_generation"] and step == 0:
        return torch.tensor([pipe.processor.voken_ids[0]])
    return replay.shares[step].argmax(-1)


def check_painting(pipe, features, tensors, facts):
    """The mapper's embeddings, the latents of every step, and the picture."""
    close(features, tensors["fc.in"])
    embeds = pipe.encode_vokens(features)
    close(embeds, tensors["mapping_feature"])
    if "uncond.mapping_feature" in tensors:
        close(pipe.null_embeds(), tensors["uncond.mapping_feature"])
    seen, timesteps = [], []

    def look(pipe, step, timestep, latents):
        seen.append(latents["latents"])
        timesteps.append(int(timestep))
        return latents

    picture = pipe.painter(
        prompt_embeds=embeds,
        negative_prompt_embeds=pipe.null_embeds(),
        latents=tensors["sd.initial_latents"],
        guidance_scale=facts["guidance_scale"],
        num_inference_steps=facts["num_inference_steps"],
        callback_on_step_end=look,
        output_type="np",
    ).images[0]
    assert timesteps == facts["sd_timesteps"]
    for step, ours in enumerate(seen):
        if f"sd.latents.{step}" in tensors:
            close(ours, tensors[f"sd.latents.{step}"])
    close(torch.from_numpy(picture), tensors["sd.image"][0])


@pytest.mark.parametrize("variant", "AB")
@pytest.mark.parametrize("name", ["generate_one_new_token_forced", "generate_scripted_last_is_img0"])
def test_a_block_as_the_last_token_is_painted_where_the_published_program_fails(monkeypatch, pipes, variant, name):
    _, facts = generated(variant, name)
    assert "error" in facts
    facts |= {"tokens": [pipes[variant].processor.voken_ids[0]] * 9, "force_generation": True}
    _, events = decode(monkeypatch, pipes[variant], variant, facts)
    assert isinstance(events[-1], VokenEvent)


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_or_too_many_pictures_are_an_error(pipes, count):
    _, facts = generated("B", "generate_natural")
    with pytest.raises(ValueError, match=f"2 image mark.*{count} image"):
        pipes["B"].processor(as_written(facts["utterance"], count))
