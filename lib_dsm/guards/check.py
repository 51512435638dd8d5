"""All guards at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from lib_dsm.guards import rules_config, rules_dataset, rules_model
from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Finding, Severity
from lib_dsm.training.pictures import TrainingSet

RULES: tuple[Callable[[RunFacts], Iterator[Finding]], ...] = (
    rules_config.template_without_name,
    rules_config.init_too_long,
    rules_config.init_zero,
    rules_config.many_vectors,
    rules_config.name_is_a_word,
    rules_config.continued_beyond_steps,
    rules_config.nothing_to_continue,
    rules_config.fixed_length_of_nothing,
    rules_config.trained_otherwise_before,
    rules_config.schedule_ends_early,
    rules_config.warmup_too_long,
    rules_config.cosine_with_steps,
    rules_config.cycle_cut_off,
    rules_config.adam_out_of_order,
    rules_config.decay_without_effect,
    rules_config.few_timesteps,
    rules_config.flipped_asymmetry,
    rules_model.vae_loaded,
    rules_model.attention_upcast,
    rules_model.clip_skip_changed,
    rules_model.clip_skip_unknown,
    rules_model.resume_beyond_steps,
    rules_model.checkpoint_changed,
    rules_model.vae_changed,
    rules_model.dataset_changed,
    rules_model.held_out_changed,
    rules_dataset.unusable_pictures,
    rules_dataset.captions_missing,
    rules_dataset.extreme_aspect,
    rules_dataset.much_cropped,
    rules_dataset.brackets,
    rules_dataset.long_captions,
    rules_dataset.several_characters,
    rules_dataset.few_pictures,
)
_ORDER = (Severity.BLOCK, Severity.FIX, Severity.WARN, Severity.INFO)


def check(facts: RunFacts) -> list[Finding]:
    """What every guard says of a run, the gravest first."""
    findings = [finding for rule in RULES for finding in rule(facts)]
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))


def check_pictures(facts: RunFacts, pictures: TrainingSet) -> list[Finding]:
    """What the guards have to say once the pictures are read, and not before."""
    weighted = sum(picture.weights is not None for picture in pictures.pictures)
    known = dataclasses.replace(facts, fingerprint=pictures.fingerprint(), weighted=weighted)
    return [*rules_model.dataset_changed(known), *rules_config.alpha_without_effect(known)]
