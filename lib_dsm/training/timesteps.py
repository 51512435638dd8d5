"""Which timesteps training draws, and how much the loss at each of them counts.

Weights are for the loss as it is measured, of the noise (epsilon) or of the velocity (v). All follow from a weight w on
the error of the clean latent, since its squared error is that of epsilon divided by SNR, and that of v divided by
SNR + 1 (Salimans and Ho, "Progressive Distillation", 2022, section 4).
"""

from __future__ import annotations

import math

import torch

from lib_dsm.training.config import RunConfig
from lib_dsm.training.draws import generator, timestep

_SMALLEST_SNR = 1e-8  # a schedule that ends in pure noise has 0


def draw_timestep(config: RunConfig, place: int, count: int) -> int:
    """The timestep, 0 … count - 1, of showing `place`.

    "stratified" gives each picture of a step a part of the range of its own, so that a step's gradient owes less to
    luck: Kingma et al., "Variational Diffusion Models", 2021, appendix I.1. "logit-normal" is Esser et al., "Scaling
    Rectified Flow Transformers", 2024, section 3.1, over the timesteps.
    """
    if config.timestep_sampling == "range":
        low = min(config.timestep_min, count - 1)
        return low + timestep(config.seed, "timestep", place, min(config.timestep_max, count - 1) - low + 1)
    if config.timestep_sampling == "logit-normal":
        drawn = config.logit_mean + config.logit_spread * generator(config.seed, "timestep", place).standard_normal()
        return min(int(count / (1.0 + math.exp(-drawn))), count - 1)
    if config.timestep_sampling == "stratified":
        step, index = divmod(place, config.pictures_per_step)
        part = int(generator(config.seed, "strata", step).permutation(config.pictures_per_step)[index])
        within = generator(config.seed, "timestep", place).random()
        return min(int((part + within) / config.pictures_per_step * count), count - 1)
    return timestep(config.seed, "timestep", place, count)


def loss_weights(kind: str, gamma: float, prediction_type: str, alphas_cumprod: torch.Tensor) -> torch.Tensor | None:
    """The weight of the loss at each timestep, T float32 on the CPU; None where all are 1.

    - "min-snr": w = min(SNR, γ); Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023.
    - "soft-min-snr": w = SNR γ / (SNR + γ); Crowson et al., "Hourglass Diffusion Transformers", 2024.
    - "debiased": w = √SNR; Yu et al., "Unmasking Bias in Diffusion Model Training", 2023.
    - "p2": w = SNR / (1 + SNR); Choi et al., "Perception Prioritized Training of Diffusion Models", 2022, k = γ = 1.
    """
    if kind == "none":
        return None
    alphas = alphas_cumprod.double().cpu()
    snr = (alphas / (1.0 - alphas)).clamp(min=_SMALLEST_SNR)
    weight = {
        "min-snr": snr.clamp(max=gamma),
        "soft-min-snr": snr * gamma / (snr + gamma),
        "debiased": snr.sqrt(),
        "p2": snr / (1.0 + snr),
    }[kind]
    return (weight / (snr if prediction_type == "epsilon" else snr + 1.0)).float()
