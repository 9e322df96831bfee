"""Painting with any diffusers pipeline that takes embeddings in the place of a prompt.

Everything is read from the signature of the pipeline's call and the configuration of its denoiser, so that a pipeline
nobody has thought of paints as well. What training needs beyond that is of its family, one file each.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from math import lcm
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from torch import nn
from torch.nn.functional import pad

from minigpt5.painters.build import check_parts
from minigpt5.painters.callbacks import StepCallback
from minigpt5.painters.guidance import GuidedDenoiser
from minigpt5.utils.reading import first_line

# Where configurations of denoisers hold the width of what they are conditioned on; the first that is there counts.
WIDTHS = {
    "prompt_embeds": (
        "caption_channels",
        "cap_feat_dim",
        "joint_attention_dim",
        "encoder_hid_dim",
        "text_embed_dim",
        "text_hidden_dim",
        "text_in_dim",
        "text_dim",
        "context_in_dim",
        "cross_attention_dim",
    ),
    "prompt_embeds_2": ("cross_attention_dim_t5", "text_embed_2_dim"),
    "pooled_prompt_embeds": ("pooled_projection_dim",),
}
# Where configurations hold the number of features that there must be, padding and all.
PLACES = {"prompt_embeds": "text_len", "prompt_embeds_2": "text_len_t5"}
# Whose call names prompt_embeds, but does not do with them (diffusers 0.42).
UNFIT = {
    "Cosmos2TextToImagePipeline": "it cannot be made without its safety checker",
    "Krea2Pipeline": "it wants the states of several layers for each word",
    "LongCatImagePipeline": "its call counts the words of a prompt, also where features are given",
    "PRXPipeline": "its guidance knows no batches",
    "PRXPixelPipeline": "its guidance knows no batches",
    "QwenImage21Pipeline": "it cannot be made without the processor of its text encoder",
}
# What calls take that work on pictures or films, or are led by them.
PICTURES = ("image", "images", "mask_image", "control_image", "video", "control_video")
# What calls do to prompts and sizes unless told not to.
OFF = ("use_resolution_binning", "enable_prompt_rewrite", "use_pe")


class Painter:
    """A diffusers pipeline as what vokens are painted by.

    Conditioning is a dictionary of tensors by the names that the pipeline's call has for them: `prompt_embeds`
    `(pictures, length, width)`, and for some pipelines `pooled_prompt_embeds` `(pictures, width)`. Masks are made here:
    all features count.

    Args:
        pipeline: whose call takes `prompt_embeds`.

    Raises:
        ValueError: if it does not, needs something else that is no prompt, or has a part that no name is known for.
    """

    # Some calls take no other heights and widths than multiples of this, however little the VAE shrinks pictures.
    least_multiple: ClassVar[int] = 1

    def __init__(self, pipeline: DiffusionPipeline):
        # Of unknown type, as what the families share is more than what diffusers declares.
        self.pipeline: Any = pipeline
        self.name = type(pipeline).__name__
        self.parameters = {
            name: parameter
            for name, parameter in inspect.signature(type(pipeline).__call__).parameters.items()
            if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
        }
        if "prompt_embeds" not in self.parameters:
            raise ValueError(f"{self.name} cannot paint what vokens say: its call takes no prompt_embeds")
        if self.name in UNFIT:
            raise ValueError(f"{self.name} cannot paint what vokens say: {UNFIT[self.name]}")
        needs = [n for n, p in self.parameters.items() if p.default is p.empty and n != "prompt"]
        needs = needs or self._works_on()
        if needs:
            raise ValueError(f"{self.name} cannot paint from embeddings alone: its call needs {', '.join(needs)}")
        if not {"height", "width"} <= self.parameters.keys():
            raise ValueError(f"{self.name} makes no pictures: its call takes no height and width")
        check_parts(pipeline)

    def _works_on(self) -> list[str]:
        """The pictures that the call changes or follows, unless diffusers says that it does without them."""
        pictures = [name for name in PICTURES if name in self.parameters]
        if pictures in (["image"], ["images"]):
            # Imports all pipelines there are.
            from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

            if isinstance(self.pipeline, tuple(AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values())):
                return []
        return pictures

    @cached_property
    def denoiser_name(self) -> str:
        """The component that denoises, "unet" or "transformer".

        Raises:
            ValueError: if the pipeline has none under a name that is known here.
        """
        for name in ("unet", "transformer", "prior", "decoder"):
            if isinstance(getattr(self.pipeline, name, None), nn.Module):
                return name
        raise ValueError(f"{self.name} has no unet or transformer, so there is nothing that could paint")

    @property
    def denoiser(self) -> Any:
        """The network that denoises."""
        return getattr(self.pipeline, self.denoiser_name)

    @property
    def scale_factor(self) -> int:
        """Pixels a latent, in each direction."""
        return getattr(self.pipeline, "vae_scale_factor", 1)

    @property
    def size_multiple(self) -> int:
        """Heights and widths are multiples of this, in pixels."""
        return lcm(self.scale_factor * self.patch_size, self.least_multiple)

    @property
    def patch_size(self) -> int:
        """Latents a token of the denoiser, in each direction."""
        size = self.denoiser.config.get("patch_size") or 1
        return size if isinstance(size, int) else size[-1]

    @property
    def default_size(self) -> tuple[int, int]:
        """Height and width of a picture in pixels: what the denoiser was made for, else what the call says."""
        size = self.denoiser.config.get("sample_size") or getattr(self.pipeline, "default_sample_size", None)
        if size is not None:
            height, width = (size, size) if isinstance(size, int) else size[-2:]
            return height * self.scale_factor, width * self.scale_factor
        # Calls that say nothing mean this, such as Z-Image's.
        return self.default("height") or 1024, self.default("width") or 1024

    @property
    def default_guidance_scale(self) -> float:
        """By how much the call leads away from null features if nothing is said; 1, not at all, without a default."""
        return (self.default(self._guidance_argument) or 1.0) if self._guidance_argument else 1.0

    @property
    def _guidance_argument(self) -> str | None:
        """What the call calls guidance away from null features, else any."""
        return next((name for name in ("true_cfg_scale", "guidance_scale") if name in self.parameters), None)

    def check_steps(self, num_inference_steps: int) -> None:
        """See that the scheduler can make so many steps.

        Raises:
            ValueError: if it cannot; some need more than a few, and some configurations make none.
        """
        scheduler = self.pipeline.scheduler
        if scheduler.config.get("use_dynamic_shifting"):
            # How many there may be depends on the picture's size, which the call tells it.
            return
        try:
            copy.deepcopy(scheduler).set_timesteps(num_inference_steps)
        except Exception as error:
            kind = type(scheduler).__name__
            raise ValueError(
                f"num_inference_steps is {num_inference_steps}, but {kind} cannot make them: {first_line(error)}"
            ) from error

    def default(self, name: str) -> Any:
        """What the pipeline's call takes where `name` is not given; `None` where it knows no such argument."""
        return self.parameters[name].default if name in self.parameters else None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """What the pipeline is to be conditioned on: the shape of each tensor for one picture.

        The length of `prompt_embeds` is that of the pipeline's own text features. A painter takes any other, but a
        caption's features can only be aimed at in this one.

        Raises:
            ValueError: if the denoiser's configuration does not tell the width of one.
        """
        config, shapes = self.denoiser.config, {}
        for name in (name for name in WIDTHS if name in self.parameters):
            width = next((config[key] for key in WIDTHS[name] if config.get(key)), None)
            if width is None and name == "pooled_prompt_embeds" and config.get("addition_time_embed_dim"):
                # Six numbers tell the size and the crop, the rest of the embedding is the pooled text.
                width = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
            if width is None:
                raise ValueError(f"{self.name}: the configuration of its {self.denoiser_name} tells no width of {name}")
            width = width if isinstance(width, int) else max(width)
            length = self._places(name) or self.text_length
            shapes[name] = (width,) if name.startswith("pooled") else (length, width)
        return shapes

    def _places(self, name: str) -> int | None:
        """Of a sequence of features, how many the denoiser has weights for, where it does not take any length."""
        return self.denoiser.config.get(PLACES.get(name, ""))

    @property
    def text_length(self) -> int:
        """Number of features that the pipeline's own text encoders make of a caption."""
        return self.default("max_sequence_length") or 77

    def guides(self, guidance_scale: float) -> bool:
        """Whether a call with this scale leads away from null features."""
        return guidance_scale > 1 and "negative_prompt_embeds" in self.parameters

    def check_conditioning(self, conditioning: dict[str, torch.Tensor]) -> None:
        """See that a connector's tensors are those that this painter wants.

        Raises:
            ValueError: naming what is missing, of another shape, or unknown to the pipeline.
        """
        wanted = self.shapes()
        for name, shape in wanted.items():
            if name not in conditioning:
                raise ValueError(f"{self.name} is conditioned on {', '.join(wanted)}, but the mapper makes no {name}")
            made, kinds = conditioning[name], ("vectors", "sequences")
            if made.ndim != len(shape) + 1:
                kind, got = kinds[len(shape) - 1], tuple(made.shape[1:])
                raise ValueError(f"{self.name} wants {kind} of {name}, but the mapper makes {got} a picture")
            width = made.shape[-1]
            if width != shape[-1]:
                raise ValueError(f"{self.name} wants {name} of width {shape[-1]}, but the mapper makes {width}")
        for name in conditioning:
            if name not in self.parameters:
                raise ValueError(f"the mapper makes {name}, which {self.name} does not take")

    def paint(
        self,
        conditioning: dict[str, torch.Tensor],
        null: dict[str, torch.Tensor] | None = None,
        guidance_scale: float | None = None,
        *,
        guider: Any = None,
        owner: DiffusionPipeline | None = None,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        output_type: str = "pil",
        **options: Any,
    ) -> list[Any]:
        """Paint through the pipeline's own call.

        Args:
            conditioning: one row a picture.
            null: what guidance leads away from, one row for all pictures; needed where `guides`.
            guidance_scale: of classifier-free guidance; of a pipeline without it, what its own call means by it. By
                default that of the call where there are null features, else none.
            guider: an object of `diffusers.guiders` in the place of plain guidance.
            owner: the pipeline that callbacks are given; by default the painter's own.
            callback_on_step_end, callback_on_step_end_tensor_inputs, output_type: as in every pipeline.
            options: further arguments of the call; those that are `None` are left to it.

        Returns:
            One picture a row: PIL, arrays, or tensors in float32; or its latents.

        Raises:
            ValueError: if the pipeline has no argument of a name in `options`, or knows no guider; if there is guidance
                but nothing that it could lead away from.
        """
        given = {name: value for name, value in options.items() if value is not None}
        unknown = [name for name in given if name not in self.parameters]
        if unknown:
            raise ValueError(f"{self.name} cannot be told {', '.join(unknown)}: its call has no such argument")
        replaced = dict.fromkeys((name for name in self.pipeline.components if name.startswith("text_encoder")), None)
        if guider is not None:
            if "guider" in self.pipeline.components:
                replaced["guider"] = guider
            elif null is None:
                raise ValueError(f"a {type(guider).__name__} is to guide {self.name}, but there are no null features")
            else:
                inputs = (self.inputs(conditioning), self.inputs(self.rows(null, conditioning)))
                replaced[self.denoiser_name] = GuidedDenoiser(self.denoiser, guider, self.pipeline.scheduler, *inputs)
                null, guidance_scale = None, 1.0
        null = null if "negative_prompt_embeds" in self.parameters else None
        given |= self.arguments(conditioning, null) | self.guidance(guidance_scale, null is not None)
        if "max_area" in self.parameters and {"height", "width"} <= given.keys():
            # FLUX.1 Kontext makes all pictures as large as it knows them.
            given["max_area"] = given["height"] * given["width"]
        vae: Any = getattr(self.pipeline, "vae", None)
        decoded_as = None if output_type == "latent" else getattr(vae, "dtype", None)
        names = callback_on_step_end_tensor_inputs
        step = StepCallback(owner or self.pipeline, self.pipeline, callback_on_step_end, names, decoded_as)
        with _in_the_place_of(self.pipeline, replaced):
            output = self.pipeline(**given, **step.arguments(self.parameters), output_type=output_type)
        pictures = list(output.images) if "images" in output else [film[0] for film in output.frames]
        return [picture.float() if output_type == "pt" else picture for picture in pictures]

    def arguments(
        self, conditioning: dict[str, torch.Tensor], null: dict[str, torch.Tensor] | None = None
    ) -> dict[str, Any]:
        """What the call is given in the place of prompts: features, null features, and masks where it wants them."""
        tensors = dict(conditioning)
        if null is not None:
            tensors |= {f"negative_{name}": value for name, value in self.rows(null, conditioning).items()}
        given, masks, dtype = {}, {}, self.denoiser.dtype
        for name, value in tensors.items():
            if value.ndim == 3:
                value, masks[name] = self._padded(name, value)
            given[name] = value.to(dtype)
        for name in self.parameters:
            if "attention_mask" in name or "embeds_mask" in name:
                features = "prompt_embeds_2" if name.endswith("_2") else "prompt_embeds"
                features = f"negative_{features}" if name.startswith("negative_") else features
                if features in masks:
                    given[name] = masks[features]
        for name, value in given.items():
            # Some pipelines take features of any length, picture by picture.
            if "list[torch" in str(self.parameters[name].annotation):
                given[name] = list(value)
        given |= dict.fromkeys((name for name in ("prompt", "negative_prompt") if name in self.parameters), None)
        given |= {name: False for name in OFF if name in self.parameters}
        if "num_frames" in self.parameters:
            given["num_frames"] = 1
        length = conditioning["prompt_embeds"].shape[1]
        if (self.default("max_sequence_length") or length) < length:
            given["max_sequence_length"] = length
        return given

    def _padded(self, name: str, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A sequence as long as the denoiser needs it, and the mask of what counts of it.

        Raises:
            ValueError: if it is longer.
        """
        mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        places = self._places(name.removeprefix("negative_"))
        if places is None:
            return features, mask
        missing = places - features.shape[1]
        if missing < 0:
            raise ValueError(f"{self.name} takes {places} features of {name}, got {features.shape[1]}")
        return pad(features, (0, 0, 0, missing)), pad(mask, (0, missing))

    def guidance(self, guidance_scale: float | None, from_null: bool) -> dict[str, float]:
        """The scale, under the name that the call has for guidance away from null features, else for any.

        Raises:
            ValueError: if there is guidance, but nothing that it could lead away from.
        """
        name = self._guidance_argument
        if not from_null and "negative_prompt_embeds" in self.parameters:
            if guidance_scale is not None and guidance_scale > 1:
                raise ValueError(f"{self.name} is to be guided by {guidance_scale}, but there are no null features")
            guidance_scale = 1.0 if guidance_scale is None else guidance_scale
        return {} if name is None or guidance_scale is None else {name: guidance_scale}

    def rows(self, null: dict[str, torch.Tensor], conditioning: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Null features as many times as there are pictures."""
        return {name: null[name].expand_as(value) for name, value in conditioning.items()}

    def inputs(self, conditioning: dict[str, torch.Tensor]) -> dict[str, Any]:
        """The denoiser's arguments that the conditioning goes into.

        Raises:
            ValueError: if that is not known of this pipeline.
        """
        raise ValueError(
            f"{self.name} is guided by its own call only: what its denoiser is conditioned with is not known here"
        )


@contextmanager
def _in_the_place_of(pipeline: DiffusionPipeline, parts: dict[str, Any]) -> Iterator[None]:
    """Other parts in a pipeline for a while.

    Text encoders are left out of a call that has no text: some pipelines would take type and device from them.
    """
    own = {name: pipeline.__dict__[name] for name in parts}
    pipeline.__dict__.update(parts)
    try:
        yield
    finally:
        pipeline.__dict__.update(own)
