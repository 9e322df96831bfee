"""Several prompts at once, and the generators that make their replies."""

import torch

from .base import latents, paint, same, seeded


class BatchMixin:
    def test_a_prompt_alone_equals_the_same_among_others(self, pipe, pictures, script, IMAGE):
        prompts = ["a", "a <ImageHere> much longer prompt than the other two", "look <ImageHere>"]
        images = [[], [pictures[0]], [pictures[1]]]
        lines = [["a red fox", None, IMAGE, None], [None, IMAGE, "and", IMAGE], [None]]
        options = {"max_images": 2, "max_new_tokens": 20, "output_type": "pt"}
        script(*lines)
        together = pipe(prompts, images, generator=[seeded(i) for i in range(3)], **options)
        for i, line in enumerate(lines):
            script(line)
            alone = pipe(prompts[i], images[i], generator=seeded(i), **options)
            assert alone.text == together.text[i : i + 1]
            assert len(alone.images[0]) == len(together.images[i])
            for one, other in zip(alone.images[0], together.images[i], strict=True):
                assert torch.allclose(one, other, atol=1e-4)

    def test_sampled_rows_with_generators_of_their_own_are_independent(self, pipe):
        options = {"do_sample": True, "top_k": 0, "top_p": 1.0, "max_new_tokens": 6}
        together = paint(pipe, ["go on", "a red fox"], generator=[seeded(3), seeded(4)], **options)
        alone = paint(pipe, "a red fox", generator=seeded(4), **options)
        assert together.text[1:] == alone.text
        assert torch.allclose(together.images[1][0], alone.images[0][0], atol=1e-4)

    def test_the_same_seed_gives_the_same_reply(self, pipe):
        assert same(paint(pipe, do_sample=True), paint(pipe, do_sample=True))
        assert not torch.equal(latents(pipe), latents(pipe, generator=seeded(1)))

    def test_without_a_generator_the_global_seed_decides(self, pipe):
        outputs = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            outputs.append(latents(pipe, generator=None))
        assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
