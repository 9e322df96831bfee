"""What a call returns."""

import numpy as np
import pytest
import torch
from PIL import Image

from .base import paint


class OutputMixin:
    def test_a_reply_is_text_and_pictures_in_order(self, pipe, script, IMAGE):
        script(["a red fox", IMAGE, "in the forest", IMAGE, "at night"])
        output = pipe("go on", max_images=2, max_new_tokens=50)
        first, second = output.images[0]
        assert output.segments[0] == ["a red fox", first, "in the forest", second, "at night"]
        assert output.text == ["a red fox in the forest at night"]
        assert isinstance(first, Image.Image) and first.size == self.size and first.mode == "RGB"

    @pytest.mark.parametrize(
        ("output_type", "kind"), [("np", np.ndarray), ("pt", torch.Tensor), ("latent", torch.Tensor)]
    )
    def test_output_types(self, pipe, output_type, kind):
        picture = paint(pipe, output_type=output_type).images[0][0]
        shapes = {"np": (*self.size, 3), "pt": (3, *self.size), "latent": self.latents_shape}
        assert isinstance(picture, kind) and picture.shape == shapes[output_type]
        if output_type != "latent":
            assert picture.min() >= 0 and picture.max() <= 1

    def test_output_types_show_the_same_picture(self, pipe):
        pil, array, tensor = (paint(pipe, output_type=kind).images[0][0] for kind in ("pil", "np", "pt"))
        assert np.array_equal(np.asarray(pil), (array * 255).round().astype("uint8"))
        assert np.allclose(array, tensor.permute(1, 2, 0).numpy())

    def test_without_return_dict_the_fields_come_as_a_tuple(self, pipe):
        output = paint(pipe)
        text, images, segments = paint(pipe, return_dict=False)
        assert text == output.text and torch.equal(images[0][0], output.images[0][0])
        assert len(segments) == 1 and output.to_tuple()[0] == text

    def test_a_page_shows_what_was_asked(self, pipe, pictures, tmp_path):
        output = pipe(["a <b>", "what is <ImageHere> here?"], [None, [pictures[0]]], image_mode="never")
        output.save_html(tmp_path / "reply.html")
        page = (tmp_path / "reply.html").read_text()
        first, _, second = page.partition('<section class="prompt"><p>a &lt;b&gt;</p></section><section class="reply">')
        assert first and "data:image" not in second.partition("what is")[0]
        _, picture, behind = second.partition("data:image/png;base64,")
        assert picture and "<p>here?</p></section><section" in behind

    def test_latents_cannot_be_saved_as_a_page(self, pipe, tmp_path):
        with pytest.raises(ValueError, match="latents cannot be shown"):
            paint(pipe).save_html(tmp_path / "reply.html")
        for output_type in ("pil", "np", "pt"):
            paint(pipe, output_type=output_type).save_html(tmp_path / "reply.html")
            assert "data:image/png;base64," in (tmp_path / "reply.html").read_text()

    def test_a_batch_without_pictures_paints_nothing(self, pipe, count_calls):
        calls = count_calls(pipe.unet)
        output = pipe(["a", "b c d"], image_mode="never")
        assert output.images == [[], []] and not calls and len(output.text) == 2

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_as_many_pictures_as_are_allowed(self, pipe, script, IMAGE, count):
        script([IMAGE, "and", IMAGE, "and", IMAGE])
        output = pipe("go on", max_images=count, max_new_tokens=20, output_type="np")
        assert len(output.images[0]) == count
