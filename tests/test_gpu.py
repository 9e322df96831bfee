"""The miniature on a GPU: what it says and paints there, by every way of keeping it there. Needs CUDA."""

import pytest
import torch

from minigpt5 import MiniGPT5Pipeline
from minigpt5.data.tasks import exchange
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.scene import split_rng
from minigpt5.storyworld.stories import sample_story
from minigpt5.training.objective import Draws, LossWeights, VokenModel
from minigpt5.vokens.adapters import LoraSettings, train_adapter

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CUDA = torch.device("cuda")
STEPS = sample_story(split_rng("test", 0)).steps
PICTURES = [draw(step.scene) for step in STEPS]
PROMPTS = ["Draw a red fox in the forest.", "What is this? <ImageHere>", "Tell me what comes next. <ImageHere>"]


def opened(device=CUDA, dtype=torch.float32):
    pipe = MiniGPT5Pipeline.from_pretrained("storyworld-mini", dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def replies(pipe, prompts=PROMPTS):
    images = [[PICTURES[0]] if "<ImageHere>" in prompt else None for prompt in prompts]
    noise = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
    return pipe(prompts, images, generator=noise, image_mode="always", output_type="pt")


def alike(first, second, tolerance=0.01):
    """The same words, and pictures that differ by less than this on average; convolutions of cuDNN are TF32."""
    apart = [
        (one.cpu() - other.cpu()).abs().mean().item()
        for ours, theirs in zip(first.images, second.images, strict=True)
        for one, other in zip(ours, theirs, strict=True)
    ]
    return first.text == second.text and len(apart) == len(first.text) and max(apart) < tolerance


@pytest.fixture(scope="module")
def told():
    """What the miniature replies on the CPU."""
    return replies(opened("cpu"))


def test_replies_are_those_of_the_cpu(told):
    assert alike(replies(opened()), told)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halved_weights_paint_the_same_scenes(told, dtype):
    pipe = opened(dtype=dtype)
    assert alike(replies(pipe, PROMPTS[:1]), replies(opened("cpu"), PROMPTS[:1]), 0.1)


def test_compiled_steps_say_the_same_reply_after_reply(told):
    pipe = opened()
    pipe.compile(mode="reduce-overhead")
    alone = replies(opened("cpu"), PROMPTS[1:2])
    for _ in range(3):
        assert alike(replies(pipe), told)
        assert alike(replies(pipe, PROMPTS[1:2]), alone)


@pytest.mark.parametrize("kind", ["model", "layers", "blocks", "leaves"])
def test_offloaded_parts_reply_the_same_and_leave_the_device(told, kind):
    pipe = opened("cpu")
    if kind == "model":
        pipe.enable_model_cpu_offload(device=CUDA)
    elif kind == "layers":
        pipe.enable_sequential_cpu_offload(device=CUDA)
    else:
        types = {"blocks": "block_level", "leaves": "leaf_level"}
        pipe.enable_group_offload(CUDA, offload_type=types[kind], num_blocks_per_group=1, use_stream=kind == "leaves")
    before = torch.cuda.memory_allocated()
    for _ in range(2):
        assert alike(replies(pipe), told)
    pictures, words = 40 * 2**20, 8 * 2**20
    assert torch.cuda.memory_allocated() - before < pictures + words


def loss(device, dtype=None):
    pipe = opened(device)
    train_adapter(pipe, LoraSettings())
    pipe.mapper.requires_grad_(True)
    model = VokenModel(pipe, LossWeights()).train()
    answer = [{"type": "text", "text": STEPS[0].text}, {"type": "image", "image": PICTURES[0]}]
    batch = model.prepare(pipe.reader.training_batch([exchange([{"type": "text", "text": "Draw it."}], answer)]))
    noise = torch.randn(2, 1, *model.encode_targets(batch.to(device)).shape[1:], generator=torch.manual_seed(0))
    draws = Draws(torch.tensor([False]), torch.tensor([500]), *noise)
    draws = Draws(**{name: drawn.to(device) for name, drawn in vars(draws).items()})
    with torch.autocast(CUDA.type, dtype, enabled=dtype is not None):
        losses = model(batch, [STEPS[0].text], draws=draws)
    losses["loss"].backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return losses["loss"].item(), gradient.norm().item()


@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 0.01), (torch.bfloat16, 0.05), (torch.float16, 0.05)])
def test_a_training_step_is_that_of_the_cpu(dtype, tolerance):
    assert loss(CUDA, dtype) == pytest.approx(loss("cpu"), rel=tolerance)


def test_the_language_model_runs_in_eight_bits():
    quantization = pytest.importorskip("torchao.quantization")
    pipe, whole = opened(dtype=torch.bfloat16), replies(opened(dtype=torch.bfloat16), PROMPTS[:1])
    quantization.quantize_(pipe.comprehension.language_model.model, quantization.Int8WeightOnlyConfig(version=2))
    assert alike(replies(pipe, PROMPTS[:1]), whole, 0.2)
