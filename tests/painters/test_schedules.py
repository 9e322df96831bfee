"""The noise of training: what it is for every scheduler of diffusers, and that no sampler has a part in it."""

import inspect
import math
from types import SimpleNamespace

import diffusers
import pytest
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from scipy.stats import kstest, norm

from minigpt5.painters.schedules import (
    BetaSchedule,
    EDMSchedule,
    FlowSchedule,
    NoiseSchedule,
    stratified,
    training_schedule,
)

SCHEDULERS = {
    name: kind
    for name in dir(diffusers)
    if name.endswith("Scheduler")
    and inspect.isclass(kind := getattr(diffusers, name))
    and issubclass(kind, diffusers.SchedulerMixin)
    and kind is not diffusers.SchedulerMixin
}
BETAS = {
    *("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler", "DDIMInverseScheduler", "DDIMParallelScheduler"),
    *("DDIMScheduler", "DDPMParallelScheduler", "DDPMScheduler", "DEISMultistepScheduler"),
    *("DPMSolverMultistepInverseScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"),
    *("DPMSolverSDEScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"),
    *("KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler"),
    *("PNDMScheduler", "SASolverScheduler", "TCDScheduler", "UnCLIPScheduler", "UniPCMultistepScheduler"),
}
FLOWS = {
    *("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"),
    "LTXEulerAncestralRFScheduler",
}
EDM = {"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "CosineDPMSolverMultistepScheduler"}
TYPES = ("epsilon", "v_prediction", "sample", "flow_prediction")


def build(kind, **settings):
    """A scheduler with as much of the settings as its class knows, or a test that is passed over."""
    known = inspect.signature(kind.__init__).parameters
    needed = {"VQDiffusionScheduler": {"num_vec_classes": 4}, "AmusedScheduler": {"mask_token_id": 0}}
    if kind.__name__ == "RFD4ProteinaScheduler":
        pytest.skip("not of pictures")
    return kind(**needed.get(kind.__name__, {}), **{name: value for name, value in settings.items() if name in known})


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_every_scheduler_gives_the_right_noise_and_target_or_is_refused(name, prediction_type):
    kind = SCHEDULERS[name]
    if "DPMSolverSDE" in name or "CosineDPM" in name:
        pytest.importorskip("torchsde")
    flow = prediction_type == "flow_prediction"
    scheduler = build(
        kind, prediction_type=prediction_type, use_flow_sigmas=flow, flow_shift=3.0, num_train_timesteps=8
    )
    latents, noise = torch.full((3, 1, 2, 2), 2.0), torch.full((3, 1, 2, 2), -1.0)

    takes_flow = name in FLOWS or (flow and "use_flow_sigmas" in scheduler.config and name in BETAS)
    if name == "RePaintScheduler":
        prediction_type = "epsilon"
    elif not (takes_flow or (name in BETAS and not flow) or (name in EDM and prediction_type in TYPES[:2])):
        with pytest.raises(ValueError, match=f"{name} (tells of no noise|has no noise schedule)") as refusal:
            training_schedule(scheduler)
        assert "\n" not in str(refusal.value)
        return

    schedule = training_schedule(scheduler)
    if takes_flow:
        times = torch.tensor([0.0, 0.25, 1.0])
        expected = {"noised": (1 - times, times), "flow": noise - latents}
        signal, spread = expected["noised"]
        assert schedule.told(times).tolist() == [0.0, 2.0, 8.0]
        target = expected["flow"]
    elif name in EDM:
        times = torch.tensor([0.1, 1.0, 20.0])
        data = scheduler.config.sigma_data
        # EDM, table 1: c_in, c_skip and c_out; the target is what makes the denoised latents right.
        scale = 1 / (times**2 + data**2).sqrt()
        signal, spread = scale, scale * times
        out = times * data * scale * (1 if prediction_type == "epsilon" else -1)
        skip = data**2 * scale**2
        whole = lambda value: value.view(-1, 1, 1, 1)  # noqa: E731
        target = (latents - whole(skip) * (latents + whole(times) * noise)) / whole(out)
    else:
        times = torch.tensor([0, 3, 7])
        config = scheduler.config
        named = ("beta_schedule", "beta_start", "beta_end", "num_train_timesteps")
        share = DDPMScheduler(**{key: config[key] for key in named if key in config}).alphas_cumprod
        if name.startswith("CogVideoX"):
            share = share / (config.snr_shift_scale + (1 - config.snr_shift_scale) * share)
        share = share[times]
        signal, spread = share.sqrt(), (1 - share).sqrt()
        assert torch.equal(schedule.told(times), times)
        velocity = signal.view(-1, 1, 1, 1) * noise - spread.view(-1, 1, 1, 1) * latents
        target = {"epsilon": noise, "sample": latents, "v_prediction": velocity}[prediction_type]
    for ours, theirs in zip(schedule.levels(times), (signal, spread), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    noised = signal.view(-1, 1, 1, 1) * latents + spread.view(-1, 1, 1, 1) * noise
    torch.testing.assert_close(schedule.noised(latents, noise, times), noised, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(schedule.target(latents, noise, times), target, atol=1e-5, rtol=1e-5)


SAMPLERS = sorted(
    (BETAS | FLOWS | {"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"})
    - {
        # These go from latents to noise, or add noise of their own in the last step.
        "DDIMInverseScheduler",
        "DPMSolverMultistepInverseScheduler",
        "DPMSolverSDEScheduler",
        "CogVideoXDPMScheduler",
        "UnCLIPScheduler",
    }
)


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_given_the_targets_of_training_arrives_at_the_latents(name, prediction_type):
    """From any noise: one step with the prediction that training asks for."""
    flow = prediction_type == "flow_prediction"
    if flow and name in ("DEISMultistepScheduler", "SASolverScheduler"):
        pytest.skip("its flow ends at the last but one noise level, which of one step is the first")
    scheduler = build(
        SCHEDULERS[name],
        prediction_type=prediction_type,
        use_flow_sigmas=flow,
        flow_shift=3.0,
        clip_sample=False,
        skip_prk_steps=True,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )
    try:
        schedule = training_schedule(scheduler)
    except ValueError:
        pytest.skip("refused")
    scheduler.set_timesteps(1)
    t = scheduler.timesteps[0]
    if isinstance(schedule, FlowSchedule):
        times = scheduler.sigmas[:1].float()
    elif isinstance(schedule, EDMSchedule):
        times = scheduler.sigmas[:1]
    else:
        times = t.long().view(1)
    latents, noise = torch.randn(2, 1, 4, 4, 4).unbind()
    seen = schedule.noised(latents, noise, times)
    # What the sampler holds is the same on its own scale.
    ones = torch.ones(1, 1, 1, 1)
    scale = scheduler.scale_model_input(ones, t) if hasattr(scheduler, "scale_model_input") else ones
    options = {"eta": 0.0} if name == "TCDScheduler" else {}
    try:
        ended = scheduler.step(schedule.target(latents, noise, times), t, seen / scale, **options)
    except (NotImplementedError, ValueError):
        pytest.skip("the sampler knows no such prediction")
    result = getattr(ended, "denoised", None)
    result = ended.prev_sample if result is None else result
    # TCD stops at the first timestep, the others at no noise at all; anything else would be off by about 1.
    assert (result - latents).abs().mean() < 0.05


def test_the_state_of_a_sampler_has_no_part_in_training():
    scheduler = EulerDiscreteScheduler(prediction_type="v_prediction", use_karras_sigmas=True)
    latents, noise, times = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2), torch.tensor([3, 900])
    before = training_schedule(scheduler).noised(latents, noise, times)
    scheduler.set_timesteps(5)
    assert torch.equal(training_schedule(scheduler).noised(latents, noise, times), before)


def test_zero_terminal_snr_is_nothing_but_noise_whatever_the_sampler():
    for name in ("DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"):
        scheduler = SCHEDULERS[name](rescale_betas_zero_snr=True, prediction_type="v_prediction")
        signal, spread = training_schedule(scheduler).levels(torch.tensor([999]))
        assert signal.item() < 3e-4 and spread.item() == pytest.approx(1)


def test_a_model_that_reads_noise_levels_is_told_them():
    scheduler = EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction")
    schedule, times = training_schedule(scheduler), torch.tensor([10, 500])
    sigmas = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()[times]
    torch.testing.assert_close(schedule.told(times), 0.25 * sigmas.log())


# Times


@pytest.mark.parametrize("count", [1, 7, 40])
def test_timesteps_take_one_from_each_part_of_the_ladder(count):
    steps = training_schedule(DDPMScheduler()).draw(count, "cpu")
    assert steps.dtype == torch.long and steps.min() >= 0 and steps.max() < 1000
    # A part may end within a timestep, so its share is taken from the timestep's upper edge downwards.
    for part, step in enumerate(steps.sort().values.tolist()):
        assert part * 1000 // count <= step <= (part + 1) * 1000 / count


def test_times_are_shuffled():
    torch.manual_seed(0)
    times = stratified(40, "cpu")
    assert not torch.equal(times, times.sort().values)


def test_a_flow_draws_logit_normal_times_shifted_as_its_scheduler_says():
    torch.manual_seed(0)
    times = training_schedule(FlowMatchEulerDiscreteScheduler(shift=3.0)).draw(2000, "cpu").double()
    assert kstest(times / (3 - 2 * times), lambda t: norm.cdf(torch.tensor(t).logit())).pvalue > 0.01


def test_a_flow_may_draw_evenly_and_shift_by_the_number_of_tokens():
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.5)
    torch.manual_seed(0)
    times = training_schedule(scheduler, logit_normal=False).draw(2000, "cpu", tokens=4096).double()
    expected = lambda t: t / (math.exp(1.5) - (math.exp(1.5) - 1) * t)  # noqa: E731
    assert kstest(times, expected).pvalue > 0.01
    assert training_schedule(scheduler).shift(256) == pytest.approx(math.exp(0.5))


def test_linear_shifting_is_no_exponential():
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="linear", base_shift=2.0)
    assert training_schedule(scheduler).shift(256) == pytest.approx(2.0)


def test_edm_draws_noise_levels_of_its_ladder():
    levels = training_schedule(EDMEulerScheduler()).draw(1000, "cpu").sort().values
    torch.testing.assert_close(levels, EDMEulerScheduler().sigmas[:1000].flip(0), atol=1e-6, rtol=1e-5)


# Min-SNR


def weight(prediction_type, share, gamma):
    scheduler = DDPMScheduler(num_train_timesteps=1, trained_betas=[1 - share], prediction_type=prediction_type)
    return training_schedule(scheduler).weights(torch.tensor([0]), gamma).item()


@pytest.mark.parametrize(
    ("prediction_type", "share", "expected"),
    [
        # Signal to noise 4 is below a gamma of 5, 9 is above.
        ("epsilon", 0.8, 1.0),
        ("epsilon", 0.9, 5 / 9),
        ("v_prediction", 0.8, 4 / 5),
        ("v_prediction", 0.9, 5 / 10),
        ("sample", 0.8, 4.0),
        ("sample", 0.9, 5.0),
        # In pure noise nothing is divided by nothing.
        ("epsilon", 0.0, 1.0),
        ("v_prediction", 0.0, 0.0),
    ],
)
def test_min_snr_weights(prediction_type, share, expected):
    assert weight(prediction_type, share, 5.0) == pytest.approx(expected, rel=1e-4)
    assert weight(prediction_type, share, None) == 1.0


def test_flows_and_edm_are_weighted_by_how_times_are_drawn_and_outputs_scaled():
    for scheduler in (FlowMatchEulerDiscreteScheduler(), EDMEulerScheduler()):
        assert training_schedule(scheduler).weights(torch.tensor([0.1, 0.9]), 5.0).tolist() == [1.0, 1.0]


def test_a_new_kind_of_scheduler_is_refused():
    with pytest.raises(ValueError, match="SimpleNamespace tells of no noise"):
        training_schedule(SimpleNamespace(config={}))
    assert issubclass(BetaSchedule, NoiseSchedule)
