"""How the Train tab orders the options of a run: what is always in view, and the subjects the rest is folded under."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lib_dsm.training.config import EMBEDDING, EMBEDDING_ONLY, HYPERNETWORK, HYPERNETWORK_ONLY


@dataclass(frozen=True)
class Group:
    """Options under one subject, in the order of the form."""

    title: str
    elem_id: str
    options: tuple[str, ...]


# Given by the project, the list of checkpoints and the editor of previews; runs of the page lie in the host's folder.
NOT_ASKED = frozenset({"version", "dataset", "checkpoint", "previews", "output"})
ESSENTIAL = (
    "kind", "name", "init_text", "vectors", "layer_structure", "activation", "learning_rate", "max_steps",
)  # fmt: skip
GROUPS = (
    Group(
        "Rate",
        "dsm_train_group_rate",
        (
            "schedule", "warmup_steps", "warmup_repeat", "rate_floor", "cycle_length", "cycle_multiplier",
            "cycle_decay", "clip_gradient", "clip_bound", "clip_norm", "optimizer", "weight_decay", "adam_beta1",
            "adam_beta2", "adam_epsilon",
        ),
    ),
    Group(
        "Batches & sizes",
        "dsm_train_group_sizes",
        (
            "batch_size", "gradient_accumulation", "recompute", "width", "height", "size_step", "variable_aspect",
            "enlarge", "batch_by_size", "flip", "repeats", "seed",
        ),
    ),
    Group(
        "Captions",
        "dsm_train_group_captions",
        (
            "template", "template_source", "template_file", "shuffle_tags", "keep_tags", "tag_dropout", "clip_skip",
            "filename_regex", "filename_join",
        ),
    ),
    Group(
        "Latents & loss",
        "dsm_train_group_latents",
        (
            "latent_sampling", "latent_deviation", "latent_deviation_least", "alpha_loss", "loss_weighting",
            "snr_gamma", "timestep_sampling", "timestep_min", "timestep_max", "logit_mean", "logit_spread",
        ),
    ),
    Group(
        "Network",
        "dsm_train_group_vectors",
        (
            "init_embedding", "init_hypernetwork", "init_continue", "widths", "dropout_structure", "layer_norm",
            "weight_init", "weight_init_deviation", "weight_init_seed", "activate_output", "skip_connection",
            "upsample_linear", "init_mode", "norm_control", "norm_decay", "norm_target",
        ),
    ),
    Group(
        "Saving & previews",
        "dsm_train_group_saving",
        (
            "save_every", "preview_every", "preview_strength", "cycle_save", "cycle_preview", "save_optimizer",
            "overwrite",
        ),
    ),
    Group(
        "Watching",
        "dsm_train_group_watching",
        ("validate_every", "validation_share", "stop_when", "tensorboard", "override"),
    ),
)  # fmt: skip
OTHERS = Group("More", "dsm_train_group_more", ())

# Options that act only where another one has one of these values; elsewhere the form shows them pale.
ONLY_WITH: Mapping[str, tuple[str, tuple[object, ...]]] = {
    "warmup_repeat": ("schedule", ("cosine restarts",)),
    "rate_floor": ("schedule", ("cosine", "cosine restarts")),
    "cycle_length": ("schedule", ("cosine restarts",)),
    "cycle_multiplier": ("schedule", ("cosine restarts",)),
    "cycle_decay": ("schedule", ("cosine restarts",)),
    "cycle_save": ("schedule", ("cosine restarts",)),
    "cycle_preview": ("schedule", ("cosine restarts",)),
    "clip_bound": ("clip_gradient", ("value", "norm")),
    "clip_norm": ("clip_gradient", ("norm",)),
    "template": ("template_source", ("lines",)),
    "template_file": ("template_source", ("file",)),
    "size_step": ("variable_aspect", (True,)),
    "latent_deviation": ("latent_sampling", ("once", "random")),
    "latent_deviation_least": ("latent_sampling", ("once", "random")),
    "snr_gamma": ("loss_weighting", ("min-snr", "soft-min-snr")),
    "timestep_min": ("timestep_sampling", ("range",)),
    "timestep_max": ("timestep_sampling", ("range",)),
    "logit_mean": ("timestep_sampling", ("logit-normal",)),
    "logit_spread": ("timestep_sampling", ("logit-normal",)),
    "norm_decay": ("norm_control", ("decay",)),
    "upsample_linear": ("skip_connection", (True,)),
    "weight_init_deviation": ("weight_init", ("Normal",)),
    "save_optimizer": ("optimizer", ("adamw",)),
    "norm_target": ("norm_control", ("fixed",)),
}

# What there is only for one kind of network; for the other the form does not show it.
KIND_OF: Mapping[str, str] = {
    **dict.fromkeys(EMBEDDING_ONLY, EMBEDDING),
    **dict.fromkeys(HYPERNETWORK_ONLY, HYPERNETWORK),
}


def groups_of(options: Collection[str]) -> Mapping[Group, tuple[str, ...]]:
    """The groups with those of `options` that belong to them, none empty; what no group names is under "More"."""
    placed = NOT_ASKED | {*ESSENTIAL} | {name for group in GROUPS for name in group.options}
    found = {group: tuple(name for name in group.options if name in options) for group in GROUPS}
    found[OTHERS] = tuple(name for name in options if name not in placed)
    return {group: members for group, members in found.items() if members}
