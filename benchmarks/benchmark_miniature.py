"""Speed and size of the miniature: against its libraries' own loops, of a further turn, and where the time goes.

    python benchmarks/benchmark_miniature.py [--dtype bfloat16] [--out benchmarks/results.json]
    python benchmarks/benchmark_miniature.py --profile

Seconds depend on the machine; what compares are the ratios within one run. Each figure is the best of some runs, each
ratio the median of pairs of runs that take turns. What is compared is asserted to say and paint the same.
"""

import platform
import random
import resource
import statistics
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from minigpt5.chat import user_turn
from minigpt5.data.tasks import story_tasks
from minigpt5.loading import ModelSettings, open_model
from minigpt5.readers import ReaderCache
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.examine import fresh_captions, sample_scenes
from minigpt5.storyworld.scene import split_rng
from minigpt5.storyworld.stories import sample_story
from minigpt5.training.objective import LossWeights, VokenModel
from minigpt5.utils.files import check_file, write_json
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import DTYPES, setting
from minigpt5.vokens.adapters import LoraSettings, train_adapter
from minigpt5.vokens.decoding import DecodingConfig, InterleavedDecoder, TextEvent

BATCHES = (1, 8, 32)
NEW_TOKENS = 32
HISTORIES = (1, 4, 16)
# As attributes of a pipeline; its VAE decodes in replies and encodes in training.
NETWORKS = ("comprehension.vision_model", "comprehension.qformer", "reader.language_model")
NETWORKS += ("mapper", "unet", "vae.decoder", "vae.encoder")


@dataclass(kw_only=True)
class MiniatureBenchmark(ModelSettings):
    """What is measured."""

    dtype: str = setting("float32", choices=DTYPES, help="of all parts")
    runs: int = setting(3, least=1, help="of which each figure is the best, and pairs of which a ratio is the median")
    profile: bool = setting(False, help="print where the time of a reply, a batch and a training step goes, and end")
    out: Path | None = setting(None, help="JSON file for the figures")


def seconds(work, *arguments, **options):
    """That one run takes."""
    start = time.perf_counter()
    work(*arguments, **options)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def best(work, runs):
    """The shortest time in seconds of some runs, after one to warm up."""
    work()
    return min(seconds(work) for _ in range(runs))


def times_as_fast(ours, theirs, runs):
    """How many times as fast the first is as the second: the median of pairs, after one to warm up."""
    for work in (ours, theirs):
        work()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(runs)]
    return statistics.median(other / own for own, other in pairs)


@contextmanager
def counted(*modules):
    """Counts the forwards of modules: yields a list with one number each."""
    counts = [0] * len(modules)

    def count(i):
        def hook(*_):
            counts[i] += 1

        return hook

    handles = [module.register_forward_hook(count(i)) for i, module in enumerate(modules)]
    yield counts
    for handle in handles:
        handle.remove()


def rates(pipe, captions, runs):
    """Tokens, pictures and replies a second by batch size."""
    figures, generator = {}, torch.Generator()
    decoder, embeds = plain_decoder(pipe), pipe.null_embeds()
    for batch in BATCHES:
        inputs = pipe.encode_prompt(captions[:batch])
        taken = best(lambda inputs=inputs: list(decoder.events(inputs)), runs)
        figures[f"tokens_per_second_{batch}"] = batch * NEW_TOKENS / taken

        def paint(batch=batch):
            pipe.painter(
                prompt_embeds=embeds.expand(batch, -1, -1),
                negative_prompt_embeds=embeds.expand(batch, -1, -1),
                num_inference_steps=pipe.config.num_inference_steps,
                guidance_scale=pipe.config.guidance_scale,
                generator=generator,
            )

        figures[f"pictures_per_second_{batch}"] = batch / best(paint, runs)
        taken = best(lambda batch=batch: pipe(captions[:batch], image_mode="always", generator=generator), runs)
        figures[f"replies_per_second_{batch}"] = batch / taken
    figures["reply_seconds"] = 1 / figures["replies_per_second_1"]
    figures["replies_32_over_1"] = figures["replies_per_second_32"] / figures["replies_per_second_1"]
    return figures


def plain_decoder(pipe):
    """Stop strings and pictures off and the end token forbidden: every row decodes the same number of tokens."""
    config = DecodingConfig(max_new_tokens=NEW_TOKENS, image_mode="never", stop_strings=())
    decoder = InterleavedDecoder(pipe.reader, config)
    decoder.never = [*decoder.never, pipe.processor.tokenizer.eos_token_id]
    return decoder


def over_generate(pipe, captions, runs):
    """Our decoding loop against `transformers.generate` of the same language model, both from prompts to texts."""
    decoder, tokenizer = plain_decoder(pipe), pipe.processor.tokenizer
    model, figures = pipe.comprehension.language_model, {}
    suppressed = [*decoder.never, decoder.img0]
    for batch in BATCHES:
        inputs = pipe.encode_prompt(captions[:batch])

        def ours(inputs=inputs, batch=batch):
            texts = [""] * batch
            for event in decoder.events(inputs):
                texts[event.row] += event.text if isinstance(event, TextEvent) else ""
            return texts

        @torch.no_grad()
        def theirs(inputs=inputs):
            ids = model.generate(
                inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                suppress_tokens=suppressed,
                eos_token_id=None,
                stop_strings=None,
                pad_token_id=pipe.reader.pad_token_id,
            )
            return tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

        assert ours() == [text.strip() for text in theirs()], "the two loops do not say the same"
        figures[f"decoding_over_generate_{batch}"] = times_as_fast(ours, theirs, 3 * runs)
    return figures


def over_diffusers(pipe, runs):
    """Our painter against the diffusers pipeline of the same parts, from features to pixels."""
    painter, figures, scale = pipe.picture.painter, {}, pipe.config.guidance_scale
    generator = torch.Generator().manual_seed(0)
    null = pipe.null_conditioning()
    for batch in BATCHES[:2]:
        features = torch.randn(batch, pipe.reader.n_vokens, pipe.mapper.config.voken_dim, generator=generator)
        made = pipe.conditioning(features)
        shape = (batch, *painter.latent_shape(*painter.default_size))
        options = {
            "latents": torch.randn(shape, generator=generator).to(made["prompt_embeds"]),
            "num_inference_steps": pipe.config.num_inference_steps,
            "output_type": "pt",
        }

        def ours(made=made, options=options):
            return torch.stack(painter.paint(made, null, scale, **options))

        def theirs(made=made, options=options, batch=batch):
            return pipe.painter(
                prompt_embeds=made["prompt_embeds"],
                negative_prompt_embeds=null["prompt_embeds"].expand(batch, -1, -1),
                guidance_scale=scale,
                **options,
            ).images.float()

        assert torch.equal(ours(), theirs()), "the two do not paint the same"
        figures[f"painting_over_diffusers_{batch}"] = times_as_fast(ours, theirs, runs)
    return figures


@torch.no_grad()
def arithmetic(pipe, runs):
    """GFLOP/s of a plain product of matrices, and of the UNet by how many pictures share a step."""
    unet, text = pipe.unet, pipe.null_conditioning()["prompt_embeds"]
    one, other = torch.randn(2, 1024, 1024).to(text)
    figures = {"gflops_matmul": 2 * len(one) ** 3 / best(lambda: one @ other, 10 * runs) / 1e9}
    for batch in BATCHES:
        latents = torch.randn(batch, *pipe.picture.painter.latent_shape(*pipe.picture.painter.default_size)).to(text)
        features = text.expand(batch, -1, -1)

        def step(latents=latents, features=features):
            unet(latents, 500, encoder_hidden_states=features)

        with FlopCounterMode(display=False) as counter:
            step()
        figures[f"gflops_unet_{batch}"] = counter.get_total_flops() / best(step, 3 * runs) / 1e9
    return figures


def further_turns(pipe, runs):
    """A further turn of a chat in which each turn brought a picture, with what was read kept and without."""
    figures, options = {}, {"image_mode": "never", "max_new_tokens": 4}
    pictures = [draw(scene) for scene in sample_scenes(max(HISTORIES) + 1, companion=False)]
    for history in HISTORIES:
        chat = pipe.chat()
        for picture in pictures[:history]:
            chat.reply("What is this? <ImageHere>", picture, **options)
        asked = [*chat.messages, user_turn("And what is this? <ImageHere>", pictures[history])]
        said = [pipe(asked, prompt_cache=cache, **options).text for cache in (copied(chat.cache), ReaderCache())]
        assert said[0] == said[1], "a turn behind what was kept says something else"
        kept, whole = [], []
        for _ in range(3 * runs):
            kept.append(seconds(pipe, asked, prompt_cache=copied(chat.cache), **options))
            whole.append(seconds(pipe, asked, prompt_cache=ReaderCache(), **options))
        figures[f"turn_seconds_behind_{history}"] = statistics.median(kept)
        figures[f"turn_over_reading_all_{history}"] = statistics.median(
            other / own for own, other in zip(kept, whole, strict=True)
        )
    return figures


def copied(cache):
    """What was read, to go on from more than once."""
    copy = cache.select([0])
    copy.pictures, copy.source = cache.pictures, cache.source
    return copy


def print_profile(name, pipe, work, entries=12):
    """Seconds of a work by network, and the operations that take most of them."""
    work()
    spent, begun, handles = Counter(), {}, []
    for network in NETWORKS:

        def enter(*_, network=network):
            begun[network] = time.perf_counter()

        def leave(*_, network=network):
            spent[network] += time.perf_counter() - begun[network]

        module = attrgetter(network)(pipe)
        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    whole = seconds(work)
    for handle in handles:
        handle.remove()
    print(f"\n{name}: {whole:.3f} s\n")
    for network, taken in spent.most_common():
        print(f"{network:36}{taken:>9.3f} s{taken / whole:>7.0%}")
    rest = whole - sum(spent.values())
    print(f"{'all else':36}{rest:>9.3f} s{rest / whole:>7.0%}\n")
    cuda = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda]) as recorded:
        whole = seconds(work)
    column = "self_device_time_total" if cuda else "self_cpu_time_total"
    operations = sorted(recorded.key_averages(), key=attrgetter(column), reverse=True)
    for operation in operations[:entries]:
        taken = getattr(operation, column) / 1e6
        print(f"{operation.key[:36]:36}{taken:>9.3f} s{taken / whole:>7.0%}{operation.count:>9} calls")
    # While it is recorded everything takes longer, Python most.
    rest = whole - sum(getattr(operation, column) for operation in operations) / 1e6
    print(f"{'between the operations':36}{rest:>9.3f} s{rest / whole:>7.0%}")


def print_profiles(pipe, captions):
    """Where the time of a reply, of a batch of replies and of a training step goes."""
    generator = torch.Generator()
    for batch in (BATCHES[0], BATCHES[-1]):
        print_profile(
            f"{batch} repl{'y' if batch == 1 else 'ies'} with a picture each",
            pipe,
            lambda batch=batch: pipe(captions[:batch], image_mode="always", generator=generator),
        )
    train_adapter(pipe, LoraSettings())
    pipe.mapper.float().requires_grad_(True)
    model = VokenModel(pipe, LossWeights(caption=0.0)).train()
    stories = [sample_story(split_rng("train", seed)).steps for seed in range(BATCHES[1])]
    rng = random.Random(0)
    items = [story_tasks([one.text for one in steps], [draw(one.scene) for one in steps], rng) for steps in stories]
    batch = model.prepare(pipe.reader.training_batch(items)).to(pipe.device)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-5)

    def step():
        model(batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    print_profile(f"a training step of {BATCHES[1]} conversations; all else is backward and AdamW", pipe, step)


def main(config: MiniatureBenchmark):
    if config.out:
        check_file(config.out)
    start = time.perf_counter()
    pipe = open_model(config.model, config.adapter, getattr(torch, config.dtype))
    figures = {"load_seconds": time.perf_counter() - start}
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {pipe.device}"
    machine += f", torch {torch.__version__}, {config.dtype}"
    print(machine)
    captions = [f"Draw this: {text}" for text in fresh_captions(sample_scenes(max(BATCHES), companion=False))]
    if config.profile:
        return print_profiles(pipe, captions)
    figures |= over_generate(pipe, captions, config.runs)
    figures |= over_diffusers(pipe, config.runs)
    figures |= further_turns(pipe, config.runs)
    figures |= arithmetic(pipe, config.runs)
    figures |= rates(pipe, captions, config.runs)
    with counted(pipe.reader.body, pipe.unet, pipe.mapper) as counts:
        pipe(captions[0], image_mode="always")
    figures |= dict(zip(("llm_forwards", "unet_forwards", "mapper_forwards"), counts, strict=True))
    figures["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures["parameters"] = sum(
        p.numel() for part in pipe.components.values() if hasattr(part, "parameters") for p in part.parameters()
    )
    figures = {name: round(value, 3) for name, value in figures.items()}
    for name, value in figures.items():
        print(f"{name:28} {value:>14,.3f}")
    if config.out:
        write_json(config.out, {"machine": machine, **figures})


if __name__ == "__main__":
    run_program(main, MiniatureBenchmark, __doc__)
