"""The noise that a diffusion model trains on: made from its scheduler's configuration, never from the sampler's state.

Samplers spread the noise levels that a model was trained on over their own few steps, some in the other order, some
unscaled. A training schedule is that of the model: how much picture and how much noise there is at a time, what the
model is told of it, and what it has to predict (after `external.py` of k-diffusion).
"""

from __future__ import annotations

import math
from typing import Any

import torch

# Rectified flows whose models predict the velocity from latents to noise.
FLOWS = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "LTXEulerAncestralRFScheduler",
)
PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction")


def stratified(count: int, device: torch.device | str) -> torch.Tensor:
    """One random number from each of `count` equal parts of [0, 1]: `(count,)`, in random order."""
    return (torch.randperm(count, device=device) + torch.rand(count, device=device)) / count


class NoiseSchedule:
    """Noised latents are `signal · latents + spread · noise`; subclasses say how much of each there is at a time.

    Times are `(pictures,)`, in whatever the schedule counts: timesteps, or noise levels.

    Args:
        prediction_type: what the model predicts, by diffusers' names.
    """

    def __init__(self, prediction_type: str):
        self.prediction_type = prediction_type

    def draw(self, count: int, device: torch.device | str, tokens: int = 0) -> torch.Tensor:
        """Random times of `count` pictures, evenly spread over the schedule.

        Args:
            tokens: that the model makes of a picture; of flows the larger ones are noised more.
        """
        raise NotImplementedError

    def levels(self, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Signal and spread at these times, each `(pictures,)`."""
        raise NotImplementedError

    def told(self, times: torch.Tensor) -> torch.Tensor:
        """The timestep that the scheduler would give for these times `(pictures,)`."""
        return times

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """What the model sees, of the latents' shape."""
        signal, spread = (_like(level, latents) for level in self.levels(times))
        return signal * latents + spread * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """What the model has to predict, of the latents' shape."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return latents
        if self.prediction_type == "flow_prediction":
            return noise - latents
        signal, spread = (_like(level, latents) for level in self.levels(times))
        return signal * noise - spread * latents

    def weights(self, times: torch.Tensor, snr_gamma: float | None) -> torch.Tensor:
        """What each picture's squared error counts `(pictures,)`.

        Min-SNR weighting (arXiv 2303.09556) counts the error of the latents at most `snr_gamma` times; as an error of
        the noise or the velocity that is min(SNR, gamma) / SNR or / (SNR + 1). `None` counts all alike, and so do
        flows, which weight by how they draw their times.
        """
        if snr_gamma is None or self.prediction_type == "flow_prediction":
            return torch.ones_like(times, dtype=torch.float32)
        signal, spread = self.levels(times)
        snr = (signal / spread) ** 2
        if self.prediction_type == "epsilon":
            return (snr_gamma / snr).clamp(max=1)
        return snr.clamp(max=snr_gamma) / (snr + 1 if self.prediction_type == "v_prediction" else 1)


class BetaSchedule(NoiseSchedule):
    """A ladder of timesteps with signal² + spread² = 1 (DDPM, arXiv 2006.11239)."""

    def __init__(self, scheduler: Any):
        # RePaint has no setting for it, and predicts noise.
        kind = scheduler.config.get("prediction_type", "epsilon")
        super().__init__("sample" if kind == "original_sample" else kind)
        self.alphas_cumprod = type(scheduler).from_config(scheduler.config).alphas_cumprod.float()
        self.continuous = scheduler.config.get("timestep_type") == "continuous"

    def draw(self, count: int, device: torch.device | str, tokens: int = 0) -> torch.Tensor:
        """One timestep from each of `count` equal parts of the ladder."""
        steps = len(self.alphas_cumprod)
        return (stratified(count, device) * steps).long().clamp(max=steps - 1)

    def levels(self, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The square roots of the signal's and the noise's share of the variance."""
        share = self.alphas_cumprod.to(times.device)[times]
        return share.sqrt(), (1 - share).sqrt()

    def split(
        self, answer: torch.Tensor, noisy: torch.Tensor, times: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The latents and the noise that a model's answer says noised latents are made of, each of their shape."""
        signal, spread = (_like(level, noisy) for level in self.levels(times))
        if self.prediction_type == "v_prediction":
            return signal * noisy - spread * answer, signal * answer + spread * noisy
        if self.prediction_type == "sample":
            return answer, (noisy - signal * answer) / spread
        return (noisy - spread * answer) / signal, answer

    def told(self, times: torch.Tensor) -> torch.Tensor:
        """The timestep; of a model that reads noise levels a quarter of the logarithm of theirs."""
        if not self.continuous:
            return times
        signal, spread = self.levels(times)
        return 0.25 * (spread / signal).log()


class FlowSchedule(NoiseSchedule):
    """A straight line from latents to noise, its times the noise's share (rectified flow, arXiv 2209.03003).

    Args:
        logit_normal: whether times are drawn around the middle (Stable Diffusion 3, arXiv 2403.03206, section 3.1) or
            evenly. Either way they are shifted towards the noise as the scheduler's configuration says.
    """

    def __init__(self, scheduler: Any, logit_normal: bool = True):
        super().__init__(scheduler.config.get("prediction_type", "flow_prediction"))
        self.config, self.logit_normal = scheduler.config, logit_normal

    def shift(self, tokens: int) -> float:
        """How far times are shifted, for a picture of so many tokens."""
        config = self.config
        if not config.get("use_dynamic_shifting"):
            return config.get("shift") or config.get("flow_shift") or 1.0
        least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        mu = low + (high - low) * (tokens - least) / (most - least)
        return mu if config.get("time_shift_type") == "linear" else math.exp(mu)

    def draw(self, count: int, device: torch.device | str, tokens: int = 0) -> torch.Tensor:
        """Noise levels in [0, 1]."""
        times, shift = stratified(count, device), self.shift(tokens)
        if self.logit_normal:
            times = torch.special.ndtri(times).sigmoid()
        return shift * times / (1 + (shift - 1) * times)

    def levels(self, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The two shares, which add up to 1."""
        return 1 - times, times

    def told(self, times: torch.Tensor) -> torch.Tensor:
        """The time as a timestep of 1,000, or of how many there are."""
        return times * self.config.num_train_timesteps


class EDMSchedule(NoiseSchedule):
    """Noise levels without a bound; what goes into the model and comes out is scaled (EDM, arXiv 2206.00364)."""

    def __init__(self, scheduler: Any):
        super().__init__(scheduler.config.prediction_type)
        self.scheduler = type(scheduler).from_config(scheduler.config)
        self.sigmas = self.scheduler.sigmas[: scheduler.config.num_train_timesteps].float()

    def draw(self, count: int, device: torch.device | str, tokens: int = 0) -> torch.Tensor:
        """One noise level from each of `count` equal parts of the scheduler's ladder."""
        steps = len(self.sigmas)
        return self.sigmas.to(device)[(stratified(count, device) * steps).long().clamp(max=steps - 1)]

    def levels(self, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents plus noise of the level, scaled as the model sees them."""
        scale = self.scheduler.precondition_inputs(torch.ones_like(times), times)
        return scale, scale * times

    def told(self, times: torch.Tensor) -> torch.Tensor:
        """The noise level as the model reads it."""
        return self.scheduler.precondition_noise(times)

    def target(self, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """The output from which the scheduler would make just these latents."""
        one, none = torch.ones_like(times), torch.zeros_like(times)
        skip = _like(self.scheduler.precondition_outputs(one, none, times), latents)
        scale = _like(self.scheduler.precondition_outputs(none, one, times), latents)
        return (latents - skip * (latents + _like(times, latents) * noise)) / scale

    def weights(self, times: torch.Tensor, snr_gamma: float | None) -> torch.Tensor:
        """All alike: the scaling of the outputs is the weighting."""
        return torch.ones_like(times)


def training_schedule(scheduler: Any, logit_normal: bool = True) -> NoiseSchedule:
    """The noise schedule of the model that this scheduler, whichever it is, samples from.

    Args:
        scheduler: only its class and its configuration are read.
        logit_normal: how a flow draws its times; see `FlowSchedule`.

    Raises:
        ValueError: if the scheduler's configuration tells no noise schedule, or none for its kind of prediction.
    """
    name, config = type(scheduler).__name__, scheduler.config
    betas, flow = hasattr(scheduler, "alphas_cumprod"), name in FLOWS
    if hasattr(scheduler, "precondition_outputs"):
        schedule, known = EDMSchedule, PREDICTIONS[:2]
    elif flow or (betas and config.get("use_flow_sigmas")):
        schedule, known = FlowSchedule, PREDICTIONS
    elif betas:
        schedule, known = BetaSchedule, (*PREDICTIONS[:3], "original_sample")
    else:
        raise ValueError(
            f"{name} tells of no noise that a model could be trained on; training needs a scheduler made of betas "
            "(such as DDPMScheduler), a flow's (FlowMatchEulerDiscreteScheduler) or EDM's (EDMEulerScheduler)"
        )
    kind = config.get("prediction_type", "flow_prediction" if flow else "epsilon")
    if kind not in known:
        raise ValueError(
            f"{name} has no noise schedule for a model with prediction_type {kind!r}, only for {', '.join(known)}"
        )
    return schedule(scheduler, logit_normal) if schedule is FlowSchedule else schedule(scheduler)


def _like(levels: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """A number a picture, to be multiplied with its latents."""
    return levels.to(latents.dtype).view(-1, *[1] * (latents.ndim - 1))
