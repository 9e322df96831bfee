"""The published program's numbers, on tiny random weights in its own file formats (tests/golden, see its README)."""

import json

import pytest
import torch
from diffusers.optimization import get_scheduler
from PIL import Image
from recordings import GOLDEN, VARIANTS, settings_of, sources
from safetensors.torch import load_file
from transformers import BatchFeature

from minigpt5.published.checkpoints import load_official, rename
from minigpt5.readers.generic import next_token_logits
from minigpt5.readers.minigpt4 import embed_prompt, last_hidden_states
from minigpt5.readers.prompts import IMAGE_MARK, Example, split_marks
from minigpt5.training.losses import caption_loss
from minigpt5.training.objective import Draws, LossWeights, VokenModel
from minigpt5.utils.images import open_image, pad_to_square
from minigpt5.vokens.decoding import LAYOUT, InterleavedDecoder, TextEvent, VokenEvent


def close(ours, theirs):
    torch.testing.assert_close(ours.float(), theirs.float(), atol=5e-5, rtol=1e-4)


def recorded(variant, name):
    """Tensors and facts of a recording."""
    file = GOLDEN / variant / f"{name}.json"
    facts = json.loads(file.read_text()) if file.exists() else {}
    tensors = load_file(file.with_suffix(".safetensors"))
    if "items" in facts:
        # A shorter recording leaves out what a fuller one of the same items holds.
        for other in forwards_of(variant, facts["items"]):
            more = load_file(other.with_suffix(".safetensors"))
            tensors |= {key: more[key] for key in more if key.startswith("in.") and key not in tensors}
    return tensors, facts


def forwards_of(variant, items):
    """The recordings' files of forwards of a batch."""
    files = sorted((GOLDEN / variant).glob("forward_*.json"))
    return [file for file in files if json.loads(file.read_text())["items"] == items]


def official(variant, **options):
    pipe, _ = load_official(**sources(variant), **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipes():
    return {variant: official(variant) for variant in VARIANTS}


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
    painted = eight_bit(tensors["in.output_image"]) if "in.output_image" in tensors else []
    batch["targets"] = [Image.fromarray(pixels.numpy()) for pixels in painted]
    return BatchFeature(batch)


def eight_bit(pixels):
    """Pixels in [-1, 1], which were 8-bit once, as such again."""
    return ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def recordings_of(pattern):
    """Variants and names of recordings."""
    return [(v, path.stem) for v in VARIANTS for path in sorted((GOLDEN / v).glob(pattern))]


FORWARDS = recordings_of("forward_*.json")


@pytest.mark.parametrize("variant", VARIANTS)
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


def losses_of(pipe, tensors, facts):
    """What `VokenModel` makes of a recorded batch with the recorded draws."""
    weights = LossWeights(
        snr_gamma=5.0 if facts["snr_loss"] else None, caption=0.1 * (facts["captions"][0] is not None)
    )
    draws = None
    if "noise" in tensors:
        dropped = torch.tensor(dropped_list(facts))
        draws = Draws(dropped, tensors["timesteps"], tensors["noise"], tensors["vae.eps"])
    model = VokenModel(pipe, weights).eval()
    return model(model.prepare(our_batch(pipe, tensors)), facts["captions"], draws=draws)


@pytest.mark.parametrize(("variant", "name"), FORWARDS)
def test_all_losses_are_the_same(pipes, variant, name):
    tensors, facts = recorded(variant, name)
    with torch.no_grad():
        losses = losses_of(pipes[variant], tensors, facts)
    for ours, theirs in (("text", "text_loss"), ("ldm", "image_loss"), ("caption", "caption_loss"), ("loss", "loss")):
        if ours in losses:
            close(losses[ours], tensors[f"loss.{theirs}"])
        else:
            assert tensors.get(f"loss.{theirs}", torch.tensor(0.0)) == 0


def test_targets_are_resized_as_published(monkeypatch, pipes):
    """Recorded at the published size, 512 pixels, whatever size the VAE's configuration names."""
    expected = json.loads((GOLDEN / "datasets/pixels.json").read_text())["output_512_square_white"]
    variant, name = PAINTED[0]
    model = VokenModel(pipes[variant], LossWeights())
    assert model.image_size == recorded(variant, name)[0]["in.output_image"].shape[-1]
    model.image_size = 512
    seen = []
    encode = model.vae.encode
    monkeypatch.setattr(model.vae, "encode", lambda pixels: seen.append(pixels) or encode(pixels[..., :16, :16]))
    picture = pad_to_square(open_image(GOLDEN / "datasets/pixels_source.png"))
    model.encode_targets(model.prepare(BatchFeature({"targets": [picture]})))
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


def last_stage(variant):
    """Whose names a variant's trainable tensors have."""
    return "stage2" if settings_of(variant)["stage2"] else "stage1"


@pytest.mark.parametrize(("variant", "name"), recordings_of("grads_*.safetensors"))
def test_gradients_of_every_trainable_tensor_are_the_same(variant, name):
    pipe = official(variant)
    gradients, _ = recorded(variant, name)
    pipe.comprehension.requires_grad_(True)
    losses_of(pipe, *recorded(variant, name.replace("grads", "forward")))["loss"].backward()
    ours = dict(pipe.comprehension.named_parameters())
    ours |= {f"mapper.{key}": parameter for key, parameter in pipe.mapper.named_parameters()}
    source = last_stage(variant)
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_three_steps_of_training_end_at_the_same_parameters(variant):
    pipe = official(variant)
    tensors, facts = recorded(variant, "train3")
    pipe.comprehension.requires_grad_(False)
    optimizer, schedule, tables = published_optimizer(pipe, facts["groups"])
    source = last_stage(variant)
    if source == "stage2":
        # The second stage leaves the mapper's first layers and its queries as they are.
        pipe.mapper.fc.requires_grad_(False)
        pipe.mapper.queries.requires_grad_(False)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    old = slice(0, pipe.processor.voken_ids[0])
    before = [table[old].norm() for table in tables]

    captions = json.loads(forwards_of(variant, facts["items"])[0].read_text())["captions"]
    told = {"snr_loss": True, "captions": captions, "cfg_dropped": "none"}
    for step, theirs in enumerate(facts["steps"]):
        names = {"noise": "noise", "timesteps": "timesteps", "vae.eps": "vae_eps"}
        draws = {ours: tensors[f"step.{step}.{name}"] for ours, name in names.items()}
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(theirs["lr"])
        losses = losses_of(pipe, tensors | draws, told)
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
    checked = set()
    for key, theirs in tensors.items():
        if not key.startswith("after."):
            continue
        name, _, kind = key.removeprefix("after.").partition(".weight.")
        if kind == "old_rows_ratio":
            continue
        parameter = ours[rename(source, f"{name}.weight" if kind else name)]
        checked.add(parameter)
        parameter = parameter[old.stop :] if kind == "new_rows" else parameter
        if name.endswith("in_proj_bias"):
            # Attention does not depend on the keys' bias: its gradient is rounding, which AdamW makes a step of.
            parameter, theirs = (torch.cat(t.chunk(3)[::2]) for t in (parameter, theirs))
        close(parameter, theirs)
    trained = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    # Of the mapper some recordings hold a part only.
    spoken = trained - set(pipe.mapper.parameters())
    assert len(spoken) >= 2 and spoken < checked <= trained
    for table, norm, key in zip(tables, before, ("embed_tokens", "lm_head"), strict=True):
        ratio = next(tensors[name] for name in tensors if key in name and name.endswith("old_rows_ratio"))
        torch.testing.assert_close(table[old].norm() / norm, ratio, atol=1e-7, rtol=0)


def failing(variant, name):
    """The error that a recording ended in, or nothing."""
    return json.loads((GOLDEN / variant / f"{name}.json").read_text()).get("error", "")


REPLIES = recordings_of("generate_*.json")
GENERATED = [reply for reply in REPLIES if not failing(*reply)]
# Here the published program has no more states to take the picture's features from.
LAST_IS_A_BLOCK = [reply for reply in REPLIES if failing(*reply).startswith("IndexError")]


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

    def __init__(self, pipe, variant, facts):
        self.hidden, self.shares, self.said = [], [], []
        self.script = dict(enumerate(facts["tokens"])) if facts["scripted"] else {}
        if facts["force_generation"]:
            self.script[0] = pipe.processor.voken_ids[0]
        config = pipe.decoding_config(max_new_tokens=facts["max_new_tokens"], max_images=9, suppress_marks=False)
        decoder = InterleavedDecoder(pipe.reader, config, choose=self.choose)
        inputs, _ = prompt_of(pipe, variant, facts)
        keep = lambda _, inputs, output: self.hidden.append(output.last_hidden_state)  # noqa: E731
        hook = pipe.reader.body.register_forward_hook(keep)
        try:
            self.events = list(decoder.events(inputs))
        finally:
            hook.remove()

    def choose(self, shares):
        self.shares.append(shares)
        scripted = self.script.get(len(self.said))
        self.said.append(shares.argmax(-1).item() if scripted is None else scripted)
        return torch.tensor(self.said[-1:])


def generated(variant, name):
    tensors, facts = recorded(variant, name) if (GOLDEN / variant / f"{name}.safetensors").exists() else ({}, None)
    facts = facts or json.loads((GOLDEN / variant / f"{name}.json").read_text())
    facts["scripted"] = "scripted" in name
    facts["prompt"] = "text_only_prompt" if "text_only" in name else "natural"
    return tensors, facts


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["natural", "text_only_prompt"])
def test_prompts_enter_the_language_model_alike(pipes, variant, name):
    pipe = pipes[variant]
    _, facts = generated(variant, f"generate_{name}")
    inputs, recording = prompt_of(pipe, variant, facts)
    assert inputs["input_ids"][0].tolist() == our_ids(pipe, recording["prompt.input_ids"][0].tolist())
    with torch.no_grad():
        embeds = embed_prompt(pipe.comprehension, inputs["input_ids"], inputs.get("pixel_values"))
        close(embeds, recording["prompt.inputs_embeds"])


@pytest.mark.parametrize(("variant", "name"), GENERATED)
def test_replies_are_the_same(pipes, variant, name):
    pipe = pipes[variant]
    tensors, facts = generated(variant, name)
    replay = Replay(pipe, variant, facts)
    steps = len(facts["tokens"])
    if name == "generate_scripted_stop_hash_hash":
        # Here `#` and `##` make a stop as well as `##` and `#` do.
        steps -= 1
    assert len(replay.hidden) == steps and replay.said == facts["tokens"][:steps]
    for step, (hidden, shares) in enumerate(zip(replay.hidden, replay.shares, strict=True)):
        if f"step.{step}.last_hidden" in tensors:
            theirs = tensors[f"step.{step}.last_hidden"]
            close(hidden[:, -theirs.shape[1] :], theirs)
        if "probs" in tensors and not (facts["force_generation"] and step == 0):
            close(shares[0], tensors["probs"][step])

    blocks = [event.features for event in replay.events if isinstance(event, VokenEvent)]
    assert len(blocks) == facts["tokens"].count(pipe.processor.voken_ids[0])
    text = "".join(event.text if isinstance(event, TextEvent) else "[IMG0]" for event in replay.events)
    theirs = facts["decoded_text"].removeprefix("<s>").partition("###")[0]
    # Of bytes that make no character the tokenizers of today and of then show different numbers of marks.
    if "\ufffd" not in theirs:
        assert parts_of(text) == parts_of(theirs)
    if "fc.in" in tensors:
        check_painting(pipe, blocks[0].unsqueeze(0), tensors, facts)


def parts_of(text):
    """What a reply says between its pictures."""
    return [part.strip(LAYOUT) for part in text.split("[IMG0]")]


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


@pytest.mark.parametrize(("variant", "name"), LAST_IS_A_BLOCK)
def test_a_block_as_the_last_token_is_painted_where_the_published_program_fails(pipes, variant, name):
    _, facts = generated(variant, name)
    facts |= {"tokens": [pipes[variant].processor.voken_ids[0]] * 9, "force_generation": True}
    assert isinstance(Replay(pipes[variant], variant, facts).events[-1], VokenEvent)


@pytest.mark.parametrize("variant", VARIANTS)
def test_marks_are_not_said_unless_the_published_behaviour_is_asked_for(pipes, variant):
    """The recorded prompt of words alone makes the published program say marks."""
    pipe = pipes[variant]
    _, facts = generated(variant, "generate_text_only_prompt")
    asked = {"max_new_tokens": facts["max_new_tokens"], "do_sample": False, "image_mode": "never"}
    prompt = as_written(facts["utterance"], 0)
    marks = [mark for mark in settings_of(variant)["special_ids"] if mark in facts["decoded_text"]]
    first = facts["decoded_text"].removeprefix("<s>").partition("[IMG0]")[0].strip(LAYOUT)
    assert set(marks) - {"[IMG0]"}
    # Of bytes that make no character other numbers of marks are shown.
    said = pipe(prompt, suppress_marks=False, **asked).text[0]
    assert said.split("\ufffd")[0] == first.split("\ufffd")[0]
    assert any(mark in said for mark in marks)
    assert not any(mark in pipe(prompt, **asked).text[0] for mark in marks)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("more", [-1, 1])
def test_too_few_or_too_many_pictures_are_an_error(pipes, variant, more):
    _, facts = generated(variant, "generate_natural")
    marks = facts["utterance"].count(IMAGE_MARK)
    if marks + more < 0:
        more = 1
    with pytest.raises(ValueError, match=rf"{marks} image mark.*{marks + more} image"):
        pipes[variant].processor(as_written(facts["utterance"], marks + more))
