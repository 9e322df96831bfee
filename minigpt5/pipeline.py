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
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines import pipeline_loading_utils
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.utils.torch_utils import randn_tensor
from transformers import BatchFeature, Blip2ForConditionalGeneration, CLIPTextModel, PreTrainedTokenizerBase

from minigpt5.output import MiniGPT5PipelineOutput, Segment
from minigpt5.readers.lora import base_state
from minigpt5.readers.minigpt4 import context_length
from minigpt5.readers.processor import MiniGPT5Processor
from minigpt5.readers.prompts import Prompt, as_batch
from minigpt5.utils.agreement import disagreements
from minigpt5.utils.checks import check_tensor, one_of, real_number, whole_number, yes_or_no
from minigpt5.utils.integrity import load_whole_pipeline
from minigpt5.utils.model_card import model_card
from minigpt5.vokens.adapters import fuse_adapter, is_adapted, load_adapter
from minigpt5.vokens.decoding import DecodingConfig, Generators, InterleavedDecoder, TextEvent, VokenEvent
from minigpt5.vokens.mapper import VokenMapper
from minigpt5.weights import shipped_model

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
# Pictures of more times the size that a UNet was trained for would take all memory before they showed anything.
LARGEST = 8

# Recorded as ["minigpt5", class name] in model_index.json, these parts load again wherever minigpt5 is installed.
_OWN = ("MiniGPT4ForConditionalGeneration", "MiniGPT5Processor", "VokenMapper")
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
        processor: prompts to ids and pixels.
        comprehension: ViT, Q-Former, projection and language model.
        mapper: voken features to text features.
        unet, vae, scheduler: a diffusion model conditioned on text features.
        text_encoder, tokenizer: the diffusion model's own, for training and baselines; the call needs neither.
        guidance_scale, num_inference_steps: defaults of the call, 7.5 and 50 for Stable Diffusion 2.1.

    Raises:
        ValueError: if counts or widths of the parts contradict each other.
    """

    model_cpu_offload_seq = "comprehension->mapper->unet->vae"
    _optional_components: ClassVar[list[str]] = ["text_encoder", "tokenizer"]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents", "prompt_embeds", "negative_prompt_embeds"]

    def __init__(
        self,
        processor: MiniGPT5Processor,
        comprehension: Blip2ForConditionalGeneration,
        mapper: VokenMapper,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler: KarrasDiffusionSchedulers,
        text_encoder: CLIPTextModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        guidance_scale: float = 7.5,
        num_inference_steps: int = 50,
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
        )
        found = disagreements(self.components)
        if found:
            raise ValueError(f"the parts do not belong together: {'; '.join(found)}")
        self.register_to_config(guidance_scale=guidance_scale, num_inference_steps=num_inference_steps)
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1) if vae is not None else 8
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)
        self._null_embeds: tuple[Any, torch.Tensor] | None = None
        self._own_card: str | None = None
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
        if kwargs.pop("trust_remote_code", False):
            raise ValueError("trust_remote_code: the code of a repository is never run")
        name = shipped_model(pretrained_model_name_or_path)
        folder = name if os.path.isdir(name) else cls.download(name, trust_remote_code=False, **kwargs)
        parts = [part for part in inspect.signature(cls.__init__).parameters if part not in kwargs]
        pipe = load_whole_pipeline(
            lambda: super(MiniGPT5Pipeline, cls).from_pretrained(folder, trust_remote_code=False, **kwargs),
            Path(folder),
            parts,
            kwargs.get("variant"),
            base_state,
        )
        # Of a repository, its id in place of the download's folder.
        pipe.register_to_config(_name_or_path=str(name))
        return pipe

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
        if not safe_serialization:
            raise ValueError("safe_serialization=False would pickle the weights, which from_pretrained does not read")
        folder = Path(save_directory)
        card = folder / "README.md"
        self._own_card = card.read_text(encoding="utf-8") if card.exists() else None
        if self._own_card is None:
            folder.mkdir(parents=True, exist_ok=True)
            card.write_text(model_card(self), encoding="utf-8")
        if push_to_hub:
            kwargs.setdefault("repo_id", folder.resolve().name)
        super().save_pretrained(str(folder), push_to_hub=push_to_hub, **kwargs)

    def _upload_folder(self, working_dir: str | os.PathLike, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        # Both ways to the hub put a card of diffusers' own into the folder just before.
        card = model_card(self, repo_id) if self._own_card is None else self._own_card
        (Path(working_dir) / "README.md").write_text(card, encoding="utf-8")
        return super()._upload_folder(working_dir, repo_id, *args, **kwargs)

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
        """Set `_interrupt` in a callback to leave out the remaining denoising steps."""
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
            whole_number("max_new_tokens", given["max_new_tokens"], 1, context_length(self.comprehension))
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
            if one.device.type not in ("cpu", self._execution_device.type):
                raise ValueError(f"a generator is on {one.device}, but the pipeline runs on {self._execution_device}")
        if latents is not None:
            check_tensor("latents", latents)
            _, *own = self._latents_shape(0, height, width)
            if latents.ndim != 4 or list(latents.shape[1:]) != own:
                raise ValueError(f"latents must be (pictures, {', '.join(map(str, own))}), got {tuple(latents.shape)}")
        if callback_on_step_end is not None and not callable(callback_on_step_end):
            raise TypeError(f"callback_on_step_end must be callable, got {type(callback_on_step_end).__name__}")
        names = callback_on_step_end_tensor_inputs
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"callback_on_step_end_tensor_inputs must be a list of names, got {type(names).__name__}")
        unknown = [name for name in names if name not in self._callback_tensor_inputs]
        if unknown:
            known = ", ".join(self._callback_tensor_inputs)
            raise ValueError(f"callback_on_step_end_tensor_inputs may name {known}, got {unknown}")

    def encode_prompt(self, prompts: Sequence[Prompt], images: Sequence[Any] | None = None) -> BatchFeature:
        """Prompts and their pictures as a left-padded batch on the pipeline's device; a string is a user's turn.

        Raises:
            ValueError: where pictures and marks do not match, or a prompt is longer than the model's context.
        """
        inputs = self.processor(list(prompts), images)
        length, context = inputs["input_ids"].shape[1], context_length(self.comprehension)
        if length + self.processor.n_vokens > context:
            raise ValueError(
                f"the prompt is {length} tokens long, but the model's context holds {context}, "
                f"of which {self.processor.n_vokens} are kept for a picture; shorten it"
            )
        return inputs.to(self._execution_device)

    @torch.no_grad()
    def encode_vokens(self, voken_features: torch.Tensor) -> torch.Tensor:
        """Voken features `(pictures, n_vokens, hidden)` as prompt embeddings `(pictures, text_length, text_dim)`.

        Raises:
            TypeError, ValueError: for features of another shape or kind, or that are not finite.
        """
        check_tensor("voken_features", voken_features)
        return self.mapper(voken_features.to(self._execution_device, self.mapper.dtype)).to(self.unet.dtype)

    def null_embeds(self) -> torch.Tensor:
        """The negative prompt embedding `(1, text_length, text_dim)`: what the mapper makes of zero features.

        It depends on the mapper's weights only, so it is computed once and kept until they change.
        """
        weights = tuple((parameter.data_ptr(), parameter._version) for parameter in self.mapper.parameters())
        key = (self.mapper, weights, self.unet.dtype, self._execution_device)
        if self._null_embeds is None or self._null_embeds[0] != key:
            zeros = torch.zeros(1, self.processor.n_vokens, self.mapper.config.voken_dim)
            self._null_embeds = (key, self.encode_vokens(zeros))
        return self._null_embeds[1]

    def prepare_latents(
        self,
        count: int,
        height: int,
        width: int,
        dtype: torch.dtype,
        generator: Generators = None,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Noise of unit variance `(count, channels, height / f, width / f)` to start from, or the latents given.

        Raises:
            ValueError: if latents of another shape are given.
        """
        shape = self._latents_shape(count, height, width)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=dtype)
        elif tuple(latents.shape) != shape:
            given = tuple(latents.shape)
            raise ValueError(f"the replies hold {count} picture(s), so latents must be {shape}, got {given}")
        return latents.to(self._execution_device, dtype)

    @torch.no_grad()
    def denoise(
        self,
        prompt_embeds: torch.Tensor,
        latents: torch.Tensor,
        num_inference_steps: int,
        generator: Generators = None,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> torch.Tensor:
        """All pictures' latents in one loop; with guidance both halves go through the UNet as one batch."""
        negative_prompt_embeds = None
        if self.do_classifier_free_guidance:
            negative_prompt_embeds = self.null_embeds().expand_as(prompt_embeds)
        self.scheduler.set_timesteps(num_inference_steps, device=latents.device)
        timesteps = self.scheduler.timesteps
        # The scale may depend on the timesteps.
        latents = latents * self.scheduler.init_noise_sigma
        self._num_timesteps = len(timesteps)
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generator} if takes_generator else {}
        with self.progress_bar(total=len(timesteps)) as bar:
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    continue
                halves = [prompt_embeds]
                if self.do_classifier_free_guidance:
                    halves = [negative_prompt_embeds, prompt_embeds]
                model_input = self.scheduler.scale_model_input(torch.cat([latents] * len(halves)), t)
                predicted = self.unet(model_input, t, encoder_hidden_states=torch.cat(halves), return_dict=False)[0]
                if self.do_classifier_free_guidance:
                    unconditional, conditional = predicted.chunk(2)
                    predicted = unconditional + self.guidance_scale * (conditional - unconditional)
                latents = self.scheduler.step(predicted, t, latents, **extra, return_dict=False)[0]
                if callback_on_step_end is not None:
                    tensors = {
                        "latents": latents,
                        "prompt_embeds": prompt_embeds,
                        "negative_prompt_embeds": negative_prompt_embeds,
                    }
                    chosen = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
                    changed = callback_on_step_end(self, i, t, chosen)
                    if not isinstance(changed, dict):
                        raise TypeError(
                            "callback_on_step_end must return a dictionary of the tensors that change, "
                            f"got {type(changed).__name__}"
                        )
                    for name in changed:
                        one_of("a tensor that callback_on_step_end returns", name, self._callback_tensor_inputs)
                    latents = changed.pop("latents", latents)
                    prompt_embeds = changed.pop("prompt_embeds", prompt_embeds)
                    negative_prompt_embeds = changed.pop("negative_prompt_embeds", negative_prompt_embeds)
                bar.update()
        return latents

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor, output_type: str = "pil") -> list[Any]:
        """Latents as a list of pictures: PIL, arrays `(height, width, 3)` or tensors `(3, height, width)` in [0, 1]."""
        if output_type == "latent":
            return list(latents)
        latents = latents.to(self.vae.dtype) / self.vae.config.scaling_factor
        pixels = self.vae.decode(latents, return_dict=False)[0]
        return list(self.image_processor.postprocess(pixels.float(), output_type=output_type))

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
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
        generator: Generators = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, int, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> MiniGPT5PipelineOutput | tuple:
        """Reply to one prompt or a batch of them. What is `None` comes from the model's own folder.

        Args:
            prompt: a string with `<ImageHere>` where a picture stands, chat messages, or an `Example`, of which only
                the source is read; or a list of these.
            images: the prompt's pictures (PIL, array or tensor), one or a list; for a batch a list of such lists.
            max_new_tokens, do_sample, temperature, top_k, top_p, repetition_penalty, image_mode, max_images: see
                `DecodingConfig`.
            num_inference_steps, guidance_scale: of the diffusion; guidance of 1 or less runs without the negative half.
            height, width: of the pictures, in pixels.
            generator: one for all prompts, or a list with one a prompt, which makes the replies independent.
            latents: noise to start from, `(pictures, channels, height / f, width / f)` for all pictures of all replies.
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
        )
        self._set_guidance(guidance_scale)

        inputs = self.encode_prompt(prompts, image_lists)
        decoder = InterleavedDecoder(self.comprehension, self.processor, config, generator)
        replies: list[list[Segment]] = [[] for _ in prompts]
        blocks: list[VokenEvent] = []
        for event in decoder.events(inputs):
            if isinstance(event, VokenEvent):
                blocks.append(event)
                replies[event.row].append(event)
            else:
                _append_text(replies[event.row], event.text)

        if blocks:
            # In the order of the prompts, so that latents and generators do not depend on who finished first.
            blocks.sort(key=lambda block: block.row)
            prompt_embeds = self.encode_vokens(torch.stack([block.features for block in blocks]))
            own = [generator[block.row] for block in blocks] if isinstance(generator, (list, tuple)) else generator
            latents = self.prepare_latents(len(blocks), height, width, prompt_embeds.dtype, own, latents)
            latents = self.denoise(prompt_embeds, latents, steps, own, callback_on_step_end, tensor_inputs)
            pictures = dict(zip(map(id, blocks), self.decode_latents(latents, output_type), strict=True))
            replies = [[pictures.get(id(part), part) for part in reply] for reply in replies]
        self.maybe_free_model_hooks()

        segments = [[part.strip() if isinstance(part, str) else part for part in reply] for reply in replies]
        segments = [[part for part in reply if not isinstance(part, str) or part] for reply in segments]
        text = [" ".join(part for part in reply if isinstance(part, str)) for reply in segments]
        painted = [[part for part in reply if not isinstance(part, str)] for reply in segments]
        if not return_dict:
            return text, painted, segments
        return MiniGPT5PipelineOutput(text=text, images=painted, segments=segments)

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
        output_type: str = "pil",
        **decoding: Any,
    ) -> Iterator[TextEvent | ImageEvent]:
        """The reply as it comes: pieces of text, and each picture as soon as it is spoken and painted.

        Arguments as for the call; `decoding` are those of `DecodingConfig`.

        Raises:
            TypeError, ValueError: at once, for inputs that do not fit; the message names the argument.
        """
        prompts, image_lists = as_batch(prompt, images)
        height, width = self._size(height, width)
        steps = self._steps(num_inference_steps)
        self.check_inputs(len(prompts), generator, None, height, width, output_type)
        config = self.decoding_config(**decoding)
        self._set_guidance(guidance_scale)
        inputs = self.encode_prompt(prompts, image_lists)
        return self._stream(inputs, config, generator, height, width, steps, output_type)

    @torch.no_grad()
    def _stream(
        self,
        inputs: BatchFeature,
        config: DecodingConfig,
        generator: Generators,
        height: int,
        width: int,
        steps: int,
        output_type: str,
    ) -> Iterator[TextEvent | ImageEvent]:
        decoder = InterleavedDecoder(self.comprehension, self.processor, config, generator)
        try:
            for event in decoder.events(inputs):
                if isinstance(event, TextEvent):
                    yield event
                    continue
                own = generator[event.row] if isinstance(generator, (list, tuple)) else generator
                prompt_embeds = self.encode_vokens(event.features.unsqueeze(0))
                latents = self.prepare_latents(1, height, width, prompt_embeds.dtype, own)
                latents = self.denoise(prompt_embeds, latents, steps, own)
                yield ImageEvent(event.row, self.decode_latents(latents, output_type)[0])
        finally:
            self.maybe_free_model_hooks()

    def _size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """The pictures' size: what is given, else the UNet's own."""
        size, factor = self.unet.config.sample_size, self.vae_scale_factor
        own_height, own_width = (size * factor,) * 2 if isinstance(size, int) else (side * factor for side in size)
        height = whole_number("height", own_height if height is None else height, most=LARGEST * own_height)
        width = whole_number("width", own_width if width is None else width, most=LARGEST * own_width)
        if height % factor or width % factor or height <= 0 or width <= 0:
            raise ValueError(f"height and width must be positive multiples of {factor}, got {height} and {width}")
        return height, width

    def _latents_shape(self, count: int, height: int, width: int) -> tuple[int, ...]:
        factor = self.vae_scale_factor
        return (count, self.unet.config.in_channels, height // factor, width // factor)

    def _set_guidance(self, guidance_scale: float | None) -> None:
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        self._guidance_scale = real_number("guidance_scale", scale, 0, 100)
        self._interrupt = False

    def _steps(self, num_inference_steps: int | None) -> int:
        steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        return whole_number("num_inference_steps", steps, 1, self.scheduler.config.num_train_timesteps)


def _append_text(reply: list[Segment], text: str) -> None:
    if reply and isinstance(reply[-1], str):
        reply[-1] += text
    else:
        reply.append(text)
