"""The processor of composed readers: a picture's mark becomes as many tokens as the connector makes of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageOps
from transformers import BatchFeature, ProcessorMixin

from minigpt5.utils.checks import one_of
from minigpt5.utils.images import Picture, to_rgb

# Around what a picture does not fill of a square: the mean of CLIP's pictures.
MARGIN = (123, 117, 104)


class ComposedProcessor(ProcessorMixin):
    """An image processor and a tokenizer; a picture's mark is repeated as often as the connector makes tokens.

    Args:
        image_processor: that makes squares of one size, the first encoder's.
        tokenizer: with `image_token` among its special tokens.
        image_seq_length: tokens of a picture, the model's.
        sub_pictures: whether a picture is read as five: the whole one padded to a square, and its four quarters
            (SPHINX, arXiv 2311.07575, section 3.4).
        image_token: what stands for a picture in a text.
        chat_template: how conversations are written.
        fit: how a picture that is none becomes a square: "stretch", "pad", or `None`, as the image processor does it.
            CLIP's cuts off what is over, and with it what boxes are told of.
    """

    def __init__(
        self,
        image_processor,
        tokenizer,
        image_seq_length: int = 576,
        sub_pictures: bool = False,
        image_token: str = "<image>",
        chat_template: str | None = None,
        fit: str | None = None,
    ):
        self.image_seq_length, self.sub_pictures, self.image_token = image_seq_length, sub_pictures, image_token
        self.fit = fit if fit is None else one_of("fit", fit, ("stretch", "pad"))
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @property
    def model_input_names(self) -> list[str]:
        """What a model is given of its output."""
        return ["input_ids", "attention_mask", "pixel_values"]

    def __call__(
        self, images: Any = None, text: str | Sequence[str] = (), return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Texts and the pictures of their marks, a list or a list of lists, as the model's inputs.

        Args:
            kwargs: of the tokenizer.

        Raises:
            ValueError: if there are fewer or more pictures than marks.
        """
        texts = [text] if isinstance(text, str) else list(text)
        rows = images if isinstance(images, (list, tuple)) else [] if images is None else [images]
        pictures = [one for row in rows for one in (row if isinstance(row, (list, tuple)) else [row])]
        marks = [each.count(self.image_token) for each in texts]
        if any(isinstance(row, (list, tuple)) for row in rows):
            came = [len(row) if isinstance(row, (list, tuple)) else 1 for row in rows]
        else:
            came, marks = [len(pictures)], [sum(marks)]
        if marks != came:
            told, others = (" and ".join(map(str, each)) for each in (marks, came))
            raise ValueError(f"the text has {told} mark(s) {self.image_token} but {others} picture(s) came")
        views = [view for picture in pictures for view in self.views(picture)]
        every = self.image_token * self.image_seq_length * (5 if self.sub_pictures else 1)
        made = dict(self.tokenizer([each.replace(self.image_token, every) for each in texts], **kwargs))
        if views:
            made["pixel_values"] = self.image_processor(views, return_tensors=return_tensors)["pixel_values"]
        return BatchFeature(made, tensor_type=return_tensors)

    def views(self, picture: Picture) -> list[Picture]:
        """The pictures that one is read as."""
        if not self.sub_pictures:
            return [picture if self.fit is None else self._square(to_rgb(picture))]
        side = self._side
        square = ImageOps.pad(to_rgb(picture), (2 * side, 2 * side), Image.Resampling.BICUBIC, color=MARGIN)
        corners = [(0, 0), (side, 0), (0, side), (side, side)]
        return [square, *(square.crop((x, y, x + side, y + side)) for x, y in corners)]

    @property
    def _side(self) -> int:
        """Of the pictures that the image processor makes."""
        size: Any = self.image_processor.size
        return size["height"] if "height" in size else size["shortest_edge"]

    def _square(self, picture: Image.Image) -> Image.Image:
        if picture.width == picture.height:
            return picture
        if self.fit == "stretch":
            return picture.resize((self._side, self._side), Image.Resampling.BICUBIC)
        longer = max(picture.size)
        return ImageOps.pad(picture, (longer, longer), color=MARGIN)
