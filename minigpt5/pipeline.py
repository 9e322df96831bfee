"""`MiniGPT5Pipeline`: prompts and pictures in, text and pictures out.

The comprehension stack reads the prompt and speaks; where it speaks a block of vokens, the mapper turns their features
into what a text encoder would have said, and the diffusion model paints it (MiniGPT-5, arXiv 2310.02239).
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin, UNet2DConditionModel
from diffusers.guiders.guider_utils import BaseGuidance
from diffusers.pipelines import pipeline_loading_utils
from torch import nn
from transformers import BatchFeature, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from minigpt5.output import MiniGPT5PipelineOutput, Segment
from minigpt5.painters import PARTS, TrainablePainter, build_painter, painter_of, take_apart
from minigpt5.readers import Reader, ReaderCache, reader_of
from minigpt5.readers.conversation import template_of
from minigpt5.readers.lora import base_state, is_layered
from minigpt5.readers.minigpt4 import MiniGPT4ForConditionalGeneration
from minigpt5.readers.prompts import Message, Prompt, as_batch
from minigpt5.utils.agreement import disagreements
from minigpt5.utils.checks import check_tensor, one_of, real_number, whole_number, yes_or_no
from minigpt5.utils.integrity import load_whole_pipeline, local_folder, without_code
from minigpt5.utils.model_card import model_card
from minigpt5.utils.tensors import weight_files
from minigpt5.vokens.adapter_folder import load_adapter
from minigpt5.vokens.adapters import fuse_adapter, is_adapted
from minigpt5.vokens.connector import Connector
from minigpt5.vokens.decoding import (
    DecodingConfig,
    Generators,
    InterleavedDecoder,
    TextEvent,
    VokenEvent,
    as_segments,
)
from minigpt5.vokens.modality import Modality
from minigpt5.weights import shipped_model

if TYPE_CHECKING:
    from minigpt5.chat import Chat

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
# Pictures of more times the size that a painter was trained for would take all memory before they showed anything.
LARGEST = 8

# Recorded as ["minigpt5", class name] in model_index.json, these parts load again wherever minigpt5 is installed.
_OWN = (
    "ComposedForConditionalGeneration",
    "ComposedProcessor",
    "MiniGPT4ForConditionalGeneration",
    "MiniGPT5Processor",
    "QueryConnector",
    "VokenMapper",
)
_LOADABLE = {name: ["save_pretrained", "from_pretrained"] for name in _OWN}
pipeline_loading_utils.LOADABLE_CLASSES["minigpt5"] = _LOADABLE
pipeline_loading_utils.ALL_IMPORTABLE_CLASSES.update(_LOADABLE)


@dataclass(frozen=True)
class ImageEvent:
    """A painted picture of a row's reply."""

    row: int
    image: Any


class MiniGPT5Pipeline(DiffusionPipeline):
    """Reads interleaved text and pictures, and replies with interleaved text and pictures.

    Args:
        processor: of the model that reads; a tokenizer, if it reads no pictures.
        comprehension: the model that reads and speaks, MiniGPT-4 or any vision-language or causal language model.
        mapper: voken features to text features.
        unet or transformer, vae, scheduler: a diffusion model conditioned on text features.
        text_encoder and tokenizer, and their second and third: the diffusion model's own, for training and baselines;
            the call needs none.
        guider: an object of `diffusers.guiders`, in the place of plain guidance.
        guidance_scale, num_inference_steps: defaults of the call, 7.5 and 50 for Stable Diffusion 2.1.
        painter_class: name of the diffusers pipeline that these parts make, and paint by.
        painter_settings: plain values that its class takes besides.

    Raises:
        ValueError: if counts or widths of the parts contradict each other.
    """

    input_modalities, output_modalities = ("image", "text"), ("image", "text")
    model_cpu_offload_seq = "comprehension->mapper->unet->vae"
    _optional_components: ClassVar[list[str]] = list(PARTS)

    def __init__(
        self,
        processor: ProcessorMixin | PreTrainedTokenizerBase,
        comprehension: PreTrainedModel,
        mapper: Connector,
        unet: UNet2DConditionModel | None = None,
        vae: ModelMixin | None = None,
        scheduler: SchedulerMixin | None = None,
        text_encoder: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        transformer: ModelMixin | None = None,
        text_encoder_2: PreTrainedModel | None = None,
        tokenizer_2: PreTrainedTokenizerBase | None = None,
        text_encoder_3: PreTrainedModel | None = None,
        tokenizer_3: PreTrainedTokenizerBase | None = None,
        guider: BaseGuidance | None = None,
        guidance_scale: float = 7.5,
        num_inference_steps: int = 50,
        painter_class: str = "StableDiffusionPipeline",
        painter_settings: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.register_modules(
            processor=processor,
            comprehension=comprehension,
            mapper=mapper,
            unet=unet,
            vae=vae,
            scheduler=scheduler,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            transformer=transformer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            text_encoder_3=text_encoder_3,
            tokenizer_3=tokenizer_3,
            guider=guider,
        )
        found = disagreements(self.components)
        if found:
            raise ValueError(f"the parts do not belong together: {'; '.join(found)}")
        self.register_to_config(
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            painter_class=painter_class,
            painter_settings=painter_settings,
        )
        if transformer is not None:
            self.model_cpu_offload_seq = "comprehension->mapper->transformer->vae"
        self._painter: DiffusionPipeline | None = None
        self._picture: tuple[Any, Modality] | None = None
        self._own_card: str | None = None
        self._reader: tuple[Any, Reader] | None = None
        self._guidance_scale, self._num_timesteps, self._interrupt = guidance_scale, 0, False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> MiniGPT5Pipeline:
        """Open a pipeline folder, a hub repository, or by its name a model that ships with the package.

        Weights are read from safetensors only, in fp32 unless `dtype` says otherwise. A repository's code is never run.

        Raises:
            OSError: if the folder or repository, or a file of it, is missing or cannot be read.
            ValueError: if a file is broken; if tensors are missing, surplus, of another shape or not finite; or if
                counts or widths of the parts contradict each other. The message names them.
        """
        if "torch_dtype" not in kwargs:
            kwargs.setdefault("dtype", torch.float32)
        kwargs.setdefault("use_safetensors", True)
        options = without_code(kwargs)
        name = shipped_model(pretrained_model_name_or_path)
        folder = local_folder(cls, name, **kwargs)
        parts = [part for part in inspect.signature(cls.__init__).parameters if part not in kwargs]
        pipe = load_whole_pipeline(
            lambda: super(MiniGPT5Pipeline, cls).from_pretrained(folder, **options),
            folder,
            parts,
            kwargs.get("variant"),
            base_state,
        )
        # Of a repository, its id in place of the download's folder.
        pipe.register_to_config(_name_or_path=str(name))
        return pipe

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> MiniGPT5Pipeline:
        """A pipeline over the parts and settings of another one, with what is given in their places."""
        # Left to itself diffusers takes over models of the annotated classes only, and here they may be of many.
        own = {name: part for name, part in pipeline.components.items() if name in cls._get_signature_types()}
        if not isinstance(pipeline, MiniGPT5Pipeline):
            _, settings = take_apart(pipeline)
            own |= {"painter_class": type(pipeline).__name__, "painter_settings": settings}
        return cast(MiniGPT5Pipeline, super().from_pipe(pipeline, **own | kwargs))

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        safe_serialization: bool = True,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write the pipeline to a folder, with a model card unless one is there; see `DiffusionPipeline`.

        Args:
            save_directory: the folder, made if it is not there.
            safe_serialization: as safetensors; there is no other way.
            push_to_hub: also send the folder to `repo_id`, by default named as the folder is. Its card takes the place
                of the one there.

        Raises:
            ValueError: if an adapter is attached, or weights are to be pickled.
        """
        if is_adapted(self.comprehension):
            raise ValueError("an adapter is attached, which a pipeline folder cannot hold: call fuse_adapter() first")
        for name, part in self.components.items():
            # MiniGPT-4 writes its own beside its weights.
            if is_layered(part) and not isinstance(part, MiniGPT4ForConditionalGeneration):
                raise ValueError(
                    f"a LoRA adapter is attached to {name}, which a pipeline folder cannot hold: fold it in and take "
                    "it off first, as by fuse_lora() and then unload_lora_weights() of a painter"
                )
        if not safe_serialization:
            raise ValueError("safe_serialization=False would pickle the weights, which from_pretrained does not read")
        # diffusers writes parts as they were told at first: one that came later in the place of none would be left out.
        self.register_modules(**self.components)
        folder = Path(save_directory)
        card = folder / "README.md"
        self._own_card = card.read_text(encoding="utf-8") if card.exists() else None
        if self._own_card is None:
            folder.mkdir(parents=True, exist_ok=True)
            card.write_text(model_card(self), encoding="utf-8")
        if push_to_hub:
            kwargs.setdefault("repo_id", folder.resolve().name)
        models = [folder / name for name, part in self.components.items() if isinstance(part, nn.Module)]
        variant = kwargs.get("variant")
        before = [weight_files(model, variant) for model in models]
        super().save_pretrained(str(folder), push_to_hub=push_to_hub, **kwargs)
        # What an earlier saving in other shards left would be read in the place of what is new, or beside it.
        for model, old in zip(models, before, strict=True):
            for path, mark in weight_files(model, variant).items():
                if old.get(path) == mark:
                    path.unlink()

    def _upload_folder(self, working_dir: str | os.PathLike, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        # Both ways to the hub put a card of diffusers' own into the folder just before.
        card = model_card(self, repo_id) if self._own_card is None else self._own_card
        (Path(working_dir) / "README.md").write_text(card, encoding="utf-8")
        return super()._upload_folder(working_dir, repo_id, *args, **kwargs)

    @classmethod
    def join(cls, reader: Any, painter: Any, n_vokens: int = 8, **options: Any) -> MiniGPT5Pipeline:
        """An untrained pipeline of any reader and any painter: folders, hub ids or open objects.

        Vokens and connector are fresh and are to be trained; see `minigpt5.joining.join` for all that may be said.

        Raises:
            ValueError: if the two cannot be joined; says why.
        """
        from minigpt5.joining import join

        return join(reader, painter, n_vokens, **options)

    def load_adapter(self, folder: str | os.PathLike) -> None:
        """Attach what training made beside this base: voken rows, LoRA or prefix, mapper.

        Raises:
            ValueError: if the adapter is of another base, or one is attached already.
        """
        load_adapter(self, folder)

    def fuse_adapter(self) -> None:
        """Fold the adapter that is attached into the weights.

        Raises:
            ValueError: if it has a prefix.
        """
        fuse_adapter(self.comprehension)

    def chat(self, messages: Sequence[Message] = ()) -> Chat:
        """A conversation in which nothing that was read before is read again; see `Chat`."""
        from minigpt5.chat import Chat

        return Chat(self, messages)

    def compile(self, **options: Any) -> None:
        """Compile what computes most: the network that denoises, the VAE's decoder and the language model.

        Each is compiled in its place when it is first called, and again for inputs of other shapes. Replies and what is
        saved stay the same, up to rounding. Of the language model the steps that read one token are compiled, and its
        keys and values have room for a whole reply. Of a transformer that denoises the blocks that repeat are compiled,
        which is done once for all of them; of a UNet the whole. Adapters are to be attached before.

        Args:
            options: of `torch.compile`, such as `mode`, `dynamic` or `backend`.
        """
        denoiser: Any = self.picture.painter.denoiser
        if isinstance(denoiser, UNet2DConditionModel) or not getattr(denoiser, "_repeated_blocks", None):
            denoiser.compile(**options)
        else:
            denoiser.compile_repeated_blocks(**options)
        decoder: Any = getattr(self.vae, "decoder", None)
        if decoder is not None:
            decoder.compile(**options)
        self.reader.language_model.compile(**options)

    @property
    def reader(self) -> Reader:
        """Processor and comprehension as that which reads and speaks."""
        parts = (self.comprehension, self.processor, tuple(self.mapper.config.get("reader_layers", (-1,))))
        # What a reader asks once, and a user may change at any time.
        ends = getattr(self.comprehension.generation_config, "eos_token_id", None)
        told = (*parts, template_of(self.processor), str(ends))
        if self._reader is None or self._reader[0] != told:
            self._reader = (told, reader_of(*parts))
        return self._reader[1]

    @property
    def painter(self) -> DiffusionPipeline:
        """The diffusers pipeline of the painting parts, over the very same modules: what paints every picture.

        It may be called with a prompt, as long as the text encoder is here, and given whatever works on its modules,
        such as LoRA. It is made anew when one of the parts is another.
        """
        parts = {name: getattr(self, name) for name in PARTS}
        painter: DiffusionPipeline | None = self._painter
        own = {} if painter is None else painter.components
        if painter is None or any(own[name] is not part for name, part in parts.items() if name in own):
            painter = self._painter = build_painter(
                self.config["painter_class"], parts, self.config["painter_settings"]
            )
        if hasattr(self, "_progress_bar_config"):
            painter.set_progress_bar_config(**self._progress_bar_config)
        return painter

    @property
    def picture(self) -> Modality:
        """What a block of vokens becomes: connector and painter, and the ids that ask for them."""
        parts = (tuple(self.reader.voken_ids), self.mapper, self.painter)
        if self._picture is None or self._picture[0] != parts:
            tokens, connector, painter = parts
            self._picture = (parts, Modality("image", tokens, connector, painter_of(painter)))
        return self._picture[1]

    @property
    def guidance_scale(self) -> float:
        """Of the call in progress."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Guidance of 1 or less needs no unconditional half."""
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        """Of the call in progress."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Set `_interrupt` in a callback to leave out the remaining denoising steps.

        A painter whose diffusers pipeline has no `interrupt`, such as PixArt, Lumina or LCM, goes on to the last one.
        """
        return self._interrupt

    def decoding_config(self, **given: Any) -> DecodingConfig:
        """What is given, else what the model's generation config says, else `DecodingConfig`'s own.

        Raises:
            TypeError, ValueError: for a setting of another kind or out of its range.
        """
        folder = self.comprehension.generation_config
        own = {name: getattr(folder, name, None) for name in DecodingConfig.__dataclass_fields__}
        settings = own | {name: value for name, value in given.items() if value is not None}
        if given.get("max_new_tokens") is not None:
            whole_number("max_new_tokens", given["max_new_tokens"], 1, self.reader.context_length)
        return DecodingConfig(**{name: value for name, value in settings.items() if value is not None})

    def check_inputs(
        self,
        count: int,
        generator: Generators,
        latents: torch.Tensor | None,
        height: int,
        width: int,
        output_type: str,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = (),
    ) -> None:
        """Refuse what cannot be run, before anything is.

        Args:
            count: of the prompts; the others are the call's.

        Raises:
            TypeError, ValueError: naming the argument.
        """
        one_of("output_type", output_type, OUTPUT_TYPES)
        own = generator if isinstance(generator, (list, tuple)) else [generator] * count
        if len(own) != count:
            raise ValueError(f"{count} prompt(s) need one generator or a list of {count}, got a list of {len(own)}")
        for one in own:
            if one is None and generator is None:
                continue
            if not isinstance(one, torch.Generator):
                raise TypeError(f"generator must be a torch.Generator or a list of them, got {type(one).__name__}")
            if one.device.type != "cpu" and one.device.type != self._execution_device.type:
                raise ValueError(f"a generator is on {one.device}, but the pipeline runs on {self._execution_device}")
        if latents is not None:
            check_tensor("latents", latents)
            painter = self.picture.painter
            if isinstance(painter, TrainablePainter):
                own = painter.latent_shape(height, width)
                if tuple(latents.shape[1:]) != own:
                    expected = ", ".join(map(str, own))
                    raise ValueError(f"latents must be (pictures, {expected}), got {tuple(latents.shape)}")
        if callback_on_step_end is not None and not callable(callback_on_step_end):
            raise TypeError(f"callback_on_step_end must be callable, got {type(callback_on_step_end).__name__}")
        names = callback_on_step_end_tensor_inputs
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"callback_on_step_end_tensor_inputs must be a list of names, got {type(names).__name__}")
        known = self._callback_tensor_inputs
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(f"callback_on_step_end_tensor_inputs may name {', '.join(known)}, got {unknown}")

    def encode_prompt(
        self, prompts: Sequence[Prompt], images: Sequence[Any] | None = None, prompt_cache: ReaderCache | None = None
    ) -> BatchFeature:
        """Prompts and their pictures as a left-padded batch on the pipeline's device; a string is a user's turn.

        Args:
            prompt_cache: what was read of a single prompt; the batch is what stands behind it.

        Raises:
            TypeError: if the cache is none.
            ValueError: where pictures and marks do not match, for several prompts with one cache or another model's, or
                if a prompt is longer than the model's context.
        """
        # Asked once, as diffusers looks through all parts for it.
        reader, read, device = self.reader, 0, self._execution_device
        if prompt_cache is None:
            inputs = reader.encode(prompts, images)
        elif not isinstance(prompt_cache, ReaderCache):
            raise TypeError(f"prompt_cache must be a ReaderCache, got {type(prompt_cache).__name__}")
        elif len(prompts) == 1:
            inputs = reader.unread(prompts[0], images[0] if images else None, prompt_cache, device)
            read = len(prompt_cache)
        else:
            raise ValueError(f"a prompt_cache is of one prompt, got {len(prompts)}")
        self.check_length(read + inputs["input_ids"].shape[1])
        return inputs.to(device)

    def check_length(self, length: int) -> None:
        """See that a prompt of so many tokens fits.

        Raises:
            PromptTooLongError: if it is longer than the model's context.
        """
        self.reader.check_length(length)

    @property
    def _callback_tensor_inputs(self) -> list[str]:
        return getattr(self.painter, "_callback_tensor_inputs", ["latents"])

    @torch.no_grad()
    def conditioning(self, voken_features: torch.Tensor) -> dict[str, torch.Tensor]:
        """All that the painter is conditioned on, made of voken features `(pictures, n_vokens, hidden)`.

        Returns:
            By the painter's names one row a picture: `prompt_embeds` `(pictures, text_length, text_dim)`, and for some
            painters `pooled_prompt_embeds` `(pictures, pooled_dim)`.

        Raises:
            TypeError, ValueError: for features of another shape or kind, or that are not finite, and if the mapper does
                not make what the painter wants.
        """
        check_tensor("voken_features", voken_features)
        return self.picture.conditioning(voken_features.to(self._execution_device))

    def null_conditioning(self) -> dict[str, torch.Tensor]:
        """What guidance leads away from: what the mapper makes of zero features, one row of each tensor."""
        return self.conditioning(torch.zeros(1, self.reader.n_vokens, self.mapper.config.voken_dim))

    def encode_vokens(self, voken_features: torch.Tensor) -> torch.Tensor:
        """The `prompt_embeds` `(pictures, text_length, text_dim)` of `conditioning`."""
        return self.conditioning(voken_features)["prompt_embeds"]

    def null_embeds(self) -> torch.Tensor:
        """The `prompt_embeds` `(1, text_length, text_dim)` of `null_conditioning`."""
        return self.null_conditioning()["prompt_embeds"]

    def _paint(
        self,
        voken_features: torch.Tensor,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        **options: Any,
    ) -> list[Any]:
        """Pictures of voken features `(pictures, n_vokens, hidden)`, by the painter's own call.

        Args:
            latents: noise to start from, one a picture.
            output_type: "pil", "np", "pt" or "latent".
            options: further arguments of the painter's call.

        Raises:
            ValueError: if latents of another shape are given.
        """
        painter = self.picture.painter
        conditioning = self.conditioning(voken_features)
        if latents is not None:
            if len(latents) != len(voken_features):
                shape, given = (len(voken_features), *latents.shape[1:]), tuple(latents.shape)
                raise ValueError(f"the replies hold {shape[0]} picture(s), so latents must be {shape}, got {given}")
            latents = latents.to(conditioning["prompt_embeds"])
        led = self.guider is not None or painter.guides(self.guidance_scale)
        pictures = painter.paint(
            conditioning,
            self.null_conditioning() if led else None,
            self.guidance_scale,
            guider=self.guider,
            owner=self,
            latents=latents,
            output_type=output_type,
            **options,
        )
        self._num_timesteps = len(self.scheduler.timesteps)
        return pictures

    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompt | Sequence[Prompt],
        images: Any = None,
        *,
        max_new_tokens: int | None = None,
        do_sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float | None = None,
        image_mode: str | None = None,
        max_images: int | None = None,
        suppress_marks: bool | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
        generator: Generators = None,
        latents: torch.Tensor | None = None,
        prompt_cache: ReaderCache | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, int, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> MiniGPT5PipelineOutput:
        """Reply to one prompt or a batch of them. What is `None` comes from the model's own folder.

        Args:
            prompt: a string with `<ImageHere>` where a picture stands, chat messages, or an `Example`, of which only
                the source is read; or a list of these.
            images: the prompt's pictures (PIL, array or tensor), one or a list; for a batch a list of such lists.
            max_new_tokens, do_sample, temperature, top_k, top_p, repetition_penalty: see `DecodingConfig`.
            image_mode, max_images, suppress_marks: see `DecodingConfig`.
            num_inference_steps, guidance_scale: of the diffusion; guidance of 1 or less runs without the negative half.
            height, width: of the pictures, in pixels.
            generator: one for all prompts, or a list with one a prompt, which makes the replies independent.
            latents: noise to start from, `(pictures, channels, height / f, width / f)` for all pictures of all replies.
            prompt_cache: keeps what is read of a single prompt from call to call, so that what the next one has in
                common with it from the beginning on, pictures and all, is not read again. Start with `ReaderCache()`.
            output_type: "pil", "np", "pt" or "latent".
            return_dict: whether to return an output object or a tuple of its fields.
            callback_on_step_end: called as `(pipeline, step, timestep, tensors)` after each denoising step; what it
                returns replaces the tensors.
            callback_on_step_end_tensor_inputs: which of latents, prompt_embeds and negative_prompt_embeds it is given.

        Returns:
            `MiniGPT5PipelineOutput`, or `(text, images, segments)`.

        Raises:
            TypeError, ValueError: for inputs that do not fit; the message names the argument.
        """
        prompts, image_lists = as_batch(prompt, images)
        height, width = self._size(height, width)
        steps = self._steps(num_inference_steps)
        return_dict = yes_or_no("return_dict", return_dict)
        # diffusers' own callbacks bring the names of their tensors.
        tensor_inputs = getattr(callback_on_step_end, "tensor_inputs", callback_on_step_end_tensor_inputs)
        self.check_inputs(
            len(prompts), generator, latents, height, width, output_type, callback_on_step_end, tensor_inputs
        )
        config = self.decoding_config(
            max_new_tokens=max_new_tokens,
            do_sample=do_sample,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            image_mode=image_mode,
            max_images=max_images,
            suppress_marks=suppress_marks,
        )
        self._set_guidance(guidance_scale)

        inputs = self.encode_prompt(prompts, image_lists, prompt_cache)
        decoder = InterleavedDecoder(self.reader, config, generator)
        replies: list[list[Segment]] = [[] for _ in prompts]
        for event in decoder.events(inputs, prompt_cache):
            replies[event.row].append(event if isinstance(event, VokenEvent) else event.text)

        # In the order of the prompts, so that latents and generators do not depend on who finished first.
        blocks = [part for reply in replies for part in reply if isinstance(part, VokenEvent)]
        if blocks:
            pictures = self._paint(
                torch.stack([block.features for block in blocks]),
                latents,
                output_type,
                num_inference_steps=steps,
                height=height,
                width=width,
                generator=_own_generators(generator, blocks),
                callback_on_step_end=callback_on_step_end,
                callback_on_step_end_tensor_inputs=tensor_inputs,
            )
            painted = iter(pictures)
            replies = [[next(painted) if isinstance(part, VokenEvent) else part for part in reply] for reply in replies]
        self.maybe_free_model_hooks()

        segments = [as_segments(reply) for reply in replies]
        text = [" ".join(part for part in reply if isinstance(part, str)) for reply in segments]
        painted = [[part for part in reply if not isinstance(part, str)] for reply in segments]
        if not return_dict:
            return cast(Any, (text, painted, segments))
        output: Any = MiniGPT5PipelineOutput(text=text, images=painted, segments=segments)
        output.prompts = list(zip(prompts, image_lists, strict=True))
        return output

    def stream(
        self,
        prompt: Prompt | Sequence[Prompt],
        images: Any = None,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
        generator: Generators = None,
        prompt_cache: ReaderCache | None = None,
        output_type: str = "pil",
        **decoding: Any,
    ) -> Iterator[TextEvent | ImageEvent]:
        """The reply as it comes: pieces of text, and each picture as soon as it is spoken and painted.

        Arguments as for the call; `decoding` are those of `DecodingConfig`.

        Raises:
            TypeError, ValueError: at once, for inputs that do not fit; the message names the argument.
            RuntimeError: on the way, if `prompt_cache` is used for something else meanwhile.
        """
        prompts, image_lists = as_batch(prompt, images)
        height, width = self._size(height, width)
        steps = self._steps(num_inference_steps)
        self.check_inputs(len(prompts), generator, None, height, width, output_type)
        config = self.decoding_config(**decoding)
        scale = self._guidance(guidance_scale)
        inputs = self.encode_prompt(prompts, image_lists, prompt_cache)
        events = InterleavedDecoder(self.reader, config, generator).events(inputs, prompt_cache)
        return self._stream(events, generator, scale, height, width, steps, output_type)

    @torch.no_grad()
    def _stream(
        self,
        events: Iterator[TextEvent | VokenEvent],
        generator: Generators,
        guidance_scale: float,
        height: int,
        width: int,
        steps: int,
        output_type: str,
    ) -> Iterator[TextEvent | ImageEvent]:
        try:
            for event in events:
                if isinstance(event, TextEvent):
                    yield event
                    continue
                # Since the last picture another call may have been in progress.
                self._guidance_scale = guidance_scale
                pictures = self._paint(
                    event.features.unsqueeze(0),
                    output_type=output_type,
                    num_inference_steps=steps,
                    height=height,
                    width=width,
                    generator=_own_generators(generator, [event]),
                )
                yield ImageEvent(event.row, pictures[0])
        finally:
            self.maybe_free_model_hooks()

    def _size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """The pictures' size: what is given, else the painter's own."""
        painter = self.picture.painter
        (own_height, own_width), least = painter.default_size, painter.size_multiple
        height = whole_number("height", own_height if height is None else height, most=LARGEST * own_height)
        width = whole_number("width", own_width if width is None else width, most=LARGEST * own_width)
        if height % least or width % least or height <= 0 or width <= 0:
            raise ValueError(f"height and width must be positive multiples of {least}, got {height} and {width}")
        return height, width

    def _set_guidance(self, guidance_scale: float | None) -> None:
        self._guidance_scale = self._guidance(guidance_scale)
        self._interrupt = False

    def _guidance(self, guidance_scale: float | None) -> float:
        if self.guider is not None and guidance_scale is not None:
            raise ValueError(
                f"a {type(self.guider).__name__} guides this pipeline: give the scale to it, or set guider to None"
            )
        scale = self.config["guidance_scale"] if guidance_scale is None else guidance_scale
        return real_number("guidance_scale", scale, 0, 100)

    def _steps(self, num_inference_steps: int | None) -> int:
        steps = self.config["num_inference_steps"] if num_inference_steps is None else num_inference_steps
        most = self.scheduler.config.get("num_train_timesteps", 1000)
        steps = whole_number("num_inference_steps", steps, 1, most)
        self.picture.painter.check_steps(steps)
        return steps


def _own_generators(generator: Generators, blocks: Sequence[VokenEvent]) -> Generators:
    """The generators of the pictures' rows, or the one for all."""
    return [generator[block.row] for block in blocks] if isinstance(generator, (list, tuple)) else generator
