"""All guards at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lib_dsm.guards import (
    rules_captions,
    rules_config,
    rules_content,
    rules_dataset,
    rules_hypernetwork,
    rules_model,
    rules_rates,
    rules_session,
    rules_storage,
)
from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Finding, Severity
from lib_dsm.training.config import EMBEDDING, HYPERNETWORK, KINDS
from lib_dsm.training.pictures import TrainingSet


def _always(facts: RunFacts) -> bool:
    return True


def _resumed(facts: RunFacts) -> bool:
    return facts.record is not None


def _anew(facts: RunFacts) -> bool:
    return facts.record is None


def _from_network(facts: RunFacts) -> bool:
    return facts.start is not None


def _compared(facts: RunFacts) -> bool:
    return bool(facts.looks)


def _tagged(facts: RunFacts) -> bool:
    return any(picture.tags for picture in facts.plan.pictures)


@dataclass(frozen=True)
class Guard:
    """A rule, the ids of what it may find, what is in order where it finds nothing, and when it has anything to say.

    `kinds` are those of networks that it is about.
    """

    rule: Callable[[RunFacts], Iterator[Finding]]
    ids: tuple[str, ...]
    fine: str
    concerns: Callable[[RunFacts], bool] = _always
    kinds: tuple[str, ...] = KINDS


_EMBEDDING, _HYPERNETWORK = (EMBEDDING,), (HYPERNETWORK,)
RULES: tuple[Guard, ...] = (
    Guard(
        rules_config.template_without_name,
        ("template-without-name",),
        "Every template line has [name]",
        kinds=_EMBEDDING,
    ),
    Guard(rules_config.init_too_long, ("init-too-long",), "The initialization words fit the vectors", kinds=_EMBEDDING),
    Guard(rules_config.init_zero, ("init-zero",), "The vectors start from something", _anew, kinds=_EMBEDDING),
    Guard(
        rules_config.odd_vectors, ("vectors-odd",), "The number of vectors is one the guides advise", kinds=_EMBEDDING
    ),
    Guard(
        rules_config.name_is_a_word, ("name-is-a-word", "name-taken"), "The name means nothing else", kinds=_EMBEDDING
    ),
    Guard(rules_config.continued_beyond_steps, ("continue-beyond-steps",), "Steps are left to train", _from_network),
    Guard(rules_config.nothing_to_continue, ("continue-nothing",), "What is to be continued is named"),
    Guard(
        rules_config.fixed_length_of_nothing,
        ("norm-fixed-zero",),
        "Fixed lengths are no zeros",
        _anew,
        kinds=_EMBEDDING,
    ),
    Guard(
        rules_config.trained_otherwise_before,
        ("init-clip-skip", "init-checkpoint"),
        "The embedding to start from was trained alike",
        _from_network,
        kinds=_EMBEDDING,
    ),
    Guard(rules_hypernetwork.empty_template, ("template-empty",), "There is a template line", kinds=_HYPERNETWORK),
    Guard(
        rules_hypernetwork.named_in_template,
        ("hyper-name-in-template",),
        "No template line has [name]",
        kinds=_HYPERNETWORK,
    ),
    Guard(rules_hypernetwork.name_taken, ("hyper-name-taken",), "The name is free", kinds=_HYPERNETWORK),
    Guard(
        rules_hypernetwork.not_applied,
        ("hyper-not-applied",),
        "The WebUI applies hypernetworks",
        kinds=_HYPERNETWORK,
    ),
    Guard(
        rules_hypernetwork.unloadable_structure,
        ("hyper-unloadable",),
        "The WebUI can load what is built so",
        kinds=_HYPERNETWORK,
    ),
    Guard(
        rules_hypernetwork.widths_of_another_model,
        ("hyper-widths",),
        "The model has layers of every width",
        kinds=_HYPERNETWORK,
    ),
    Guard(
        rules_hypernetwork.across_pictures,
        ("hyper-across-batch",),
        "Pictures do not act on each other",
        kinds=_HYPERNETWORK,
    ),
    Guard(
        rules_hypernetwork.deadly_rate,
        ("hyper-rate",),
        "The learning rate is one for hypernetworks",
        kinds=_HYPERNETWORK,
    ),
    Guard(
        rules_hypernetwork.structure_changed,
        ("hyper-structure-changed",),
        "It is built as in the beginning",
        _resumed,
        kinds=_HYPERNETWORK,
    ),
    Guard(
        rules_hypernetwork.optimizer_of_another,
        ("stale-optimizer",),
        "The optimizer's state is the network's own",
        _from_network,
        kinds=_HYPERNETWORK,
    ),
    Guard(rules_hypernetwork.rate_as_factor, ("adaptive-rate",), "The rate is one for the optimizer"),
    Guard(rules_hypernetwork.optimizer_missing, ("optimizer-missing",), "The optimizer is there"),
    Guard(rules_hypernetwork.optimizer_changed, ("optimizer-changed",), "The optimizer is that of the start", _resumed),
    Guard(rules_config.flipped_asymmetry, ("flip-asymmetric",), "Nothing one-sided is mirrored"),
    Guard(rules_rates.schedule_ends_early, ("schedule-ends-early",), "The learning rate lasts to the last step"),
    Guard(rules_rates.warmup_too_long, ("warmup-too-long",), "The warm-up ends before the run"),
    Guard(rules_rates.cosine_with_steps, ("cosine-jumps",), "Cosines run over a single rate"),
    Guard(rules_rates.cycle_cut_off, ("cycle-cut",), "The last cycle of the rate is whole"),
    Guard(rules_rates.adam_out_of_order, ("adam-betas",), "AdamW's betas converge"),
    Guard(
        rules_rates.decay_without_effect,
        ("decay-fixed",),
        "The weight decay has an effect, or is off",
        kinds=_EMBEDDING,
    ),
    Guard(rules_rates.few_timesteps, ("few-timesteps",), "Enough of the timesteps are trained"),
    Guard(
        rules_model.listed_as_unsuitable,
        ("wrong-model", "model-list"),
        "The checkpoint is no listed merge",
        kinds=_EMBEDDING,
    ),
    Guard(rules_model.attention_upcast, ("sd21-fp16",), "The model's attention is precise enough"),
    Guard(rules_model.clip_skip_unknown, ("clip-skip-unknown",), "The model knows the CLIP skip"),
    Guard(rules_model.clip_skip_changed, ("clip-skip-changed",), "The CLIP skip is that of the start", _resumed),
    Guard(rules_model.resume_beyond_steps, ("resume-beyond-steps",), "Steps are left to train", _resumed),
    Guard(rules_model.checkpoint_changed, ("checkpoint-changed",), "The checkpoint is that of the start", _resumed),
    Guard(rules_model.vae_changed, ("vae-changed",), "The autoencoder is that of the start", _resumed),
    Guard(rules_model.dataset_changed, ("dataset-changed",), "The pictures are those of the start", _resumed),
    Guard(rules_model.held_out_changed, ("held-out-changed",), "The held-out pictures are the same", _resumed),
    Guard(rules_session.vae_loaded, ("vae-loaded",), "No external VAE is loaded"),
    Guard(rules_session.stale_networks, ("stale-networks",), "No LoRA or hypernetwork is left on the model"),
    Guard(rules_session.other_unet, ("tensor-rt",), "No other engine stands for the U-Net"),
    Guard(rules_session.hypertile, ("hypertile",), "Attention is not cut into tiles"),
    Guard(rules_session.tiling, ("tiling",), "Convolutions do not wrap around"),
    Guard(rules_session.model_unloaded, ("model-in-ram",), "The model lies where it computes"),
    Guard(rules_session.offloaded, ("medvram",), "The model's parts stay where they compute"),
    Guard(rules_session.eight_bits, ("fp8-weights",), "The weights are in their own precision"),
    Guard(rules_session.patched_unet, ("patched-unet",), "No extension has its hands in the U-Net"),
    Guard(rules_storage.unwritable, ("output-unwritable",), "All folders can be written"),
    Guard(rules_storage.disk_full, ("disk-full",), "The disk has room for the run"),
    Guard(rules_dataset.unusable_pictures, ("corrupt-image", "dataset-note"), "All files can be used"),
    Guard(rules_captions.captions_missing, ("caption-missing",), "Every picture has a caption"),
    Guard(rules_captions.guessed_encodings, ("caption-encoding",), "All captions are in UTF-8 or UTF-16"),
    Guard(rules_dataset.extreme_aspect, ("extreme-aspect",), "No picture is extremely long"),
    Guard(rules_dataset.much_cropped, ("much-cropped",), "No picture is cropped much"),
    Guard(rules_dataset.huge_pictures, ("huge-images",), "No picture is huge"),
    Guard(rules_dataset.near_identical, ("dedupe", "not-compared"), "No two pictures look nearly equal", _compared),
    Guard(rules_captions.brackets, ("brackets",), "Brackets in tags are escaped"),
    Guard(
        rules_captions.long_captions,
        ("long-caption",),
        "Every caption fits one chunk with the vectors",
        kinds=_EMBEDDING,
    ),
    Guard(rules_captions.other_embeddings, ("other-embedding-in-caption",), "No caption names another embedding"),
    Guard(
        rules_content.several_characters,
        ("several-characters",),
        "By the tags every picture shows one character",
        _tagged,
    ),
    Guard(rules_dataset.few_pictures, ("few-images",), "There are enough pictures", kinds=_EMBEDDING),
    Guard(rules_content.hidden_faces, ("face-hidden",), "By the tags every face can be seen", _tagged),
    Guard(rules_content.one_angle, ("one-angle",), "There are views from the side and from behind", _tagged),
    Guard(rules_content.mixed_styles, ("mixed-styles",), "By the tags all pictures are drawn alike", _tagged),
    Guard(rules_content.sfw_ratio, ("sfw-ratio",), "By the tags there is no nudity", _tagged),
)
# What an untrained network is checked by.
IN_CREATION = (
    rules_config.name_is_a_word,
    rules_config.init_too_long,
    rules_config.init_zero,
    rules_config.odd_vectors,
    rules_hypernetwork.name_taken,
    rules_hypernetwork.unloadable_structure,
    rules_hypernetwork.widths_of_another_model,
    rules_hypernetwork.across_pictures,
)
# These need the pictures read, and look again then.
_LATER = (rules_model.dataset_changed, rules_config.alpha_without_effect)
_ORDER = (Severity.BLOCK, Severity.FIX, Severity.WARN, Severity.INFO)


def guards_of(facts: RunFacts) -> list[Guard]:
    """The guards that are about such a network."""
    return [guard for guard in RULES if facts.config.kind in guard.kinds]


def check(facts: RunFacts) -> list[Finding]:
    """What every guard says of a run, the gravest first."""
    findings = [finding for guard in guards_of(facts) for finding in guard.rule(facts)]
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))


def passed(facts: RunFacts, findings: Iterable[Finding]) -> list[Guard]:
    """The guards that looked and are none of those whose `findings` these are."""
    found = {finding.id for finding in findings}
    looked = (guard for guard in guards_of(facts) if guard.rule not in _LATER and guard.concerns(facts))
    return [guard for guard in looked if found.isdisjoint(guard.ids)]


def check_pictures(facts: RunFacts, pictures: TrainingSet) -> list[Finding]:
    """What the guards have to say once the pictures are read, and not before."""
    weighted = sum(picture.weights is not None for picture in pictures.pictures)
    known = dataclasses.replace(facts, fingerprint=pictures.fingerprint(), weighted=weighted)
    return [finding for rule in _LATER for finding in rule(known)]
