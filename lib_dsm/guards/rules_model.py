"""Guards on the model and on a resumed run's past. One rule, one function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Finding, Severity
from lib_dsm.guards.unsuitable import UNSUITABLE_FILE


def listed_as_unsuitable(facts: RunFacts) -> Iterator[Finding]:
    """A merge such as AnythingV3 ruins embeddings, whatever else is right."""
    if facts.unsuitable:
        yield Finding(
            "wrong-model",
            Severity.WARN,
            f'The checkpoint is listed by "{facts.unsuitable}" among the merges that are known to ruin embeddings.',
            f"Train on the base model it comes from and generate with the merge; {UNSUITABLE_FILE} in "
            f"{facts.data_folder or 'the data folder'} holds what you add to the list or take off it.",
        )
    if facts.unsuitable_note:
        yield Finding("model-list", Severity.INFO, facts.unsuitable_note, "Correct the file, or delete it.")


def attention_upcast(facts: RunFacts) -> Iterator[Finding]:
    """In half precision SD2.1's attention overflows: the session computes it in float32."""
    if facts.attention_upcast:
        yield Finding(
            "sd21-fp16",
            Severity.FIX,
            "This is a Stable Diffusion 2 model in half precision, whose attention is computed in float32 meanwhile.",
            "Where its pictures come out black, let the WebUI upcast cross attention, or start it with --no-half.",
        )


def clip_skip_unknown(facts: RunFacts) -> Iterator[Finding]:
    """A setting that has no effect on this model is said."""
    if not facts.has_clip_skip and facts.config.clip_skip != 1:
        yield Finding(
            "clip-skip-unknown",
            Severity.INFO,
            f"CLIP skip {facts.config.clip_skip} has no effect on a Stable Diffusion 2 model, here as in the WebUI.",
        )


def clip_skip_changed(facts: RunFacts) -> Iterator[Finding]:
    """A run must go on with the CLIP skip it began with."""
    before = _past(facts, "config", {}).get("clip_skip")
    if facts.has_clip_skip and before is not None and before != facts.config.clip_skip:
        yield Finding(
            "clip-skip-changed",
            Severity.BLOCK,
            f"The run was started with CLIP skip {before}; the settings now say {facts.config.clip_skip}.",
            f"Set CLIP skip to {before}.",
            {"clip_skip": before},
        )


def resume_beyond_steps(facts: RunFacts) -> Iterator[Finding]:
    """Nothing is left to do; a run that ended before its result was published may do that."""
    if facts.record is not None and facts.published and facts.saved_step >= facts.config.max_steps:
        more = facts.saved_step + max(1, facts.saved_step // 5)
        yield Finding(
            "resume-beyond-steps",
            Severity.BLOCK,
            f"The run has finished {facts.saved_step} of {facts.config.max_steps} steps.",
            f"Raise the steps above {facts.saved_step} to go on, for example to {more}.",
            {"max_steps": more},
        )


def checkpoint_changed(facts: RunFacts) -> Iterator[Finding]:
    """An embedding belongs to the model it was begun on."""
    before = _past(facts, "checkpoint", {})
    if before.get("sha256") and facts.checkpoint_hash and before["sha256"] != facts.checkpoint_hash:
        yield Finding(
            "checkpoint-changed",
            Severity.BLOCK,
            f'The run was started on the checkpoint "{before.get("name")}", and this is another file.',
            "Choose the checkpoint it was started on.",
            {"checkpoint": before["name"]} if before.get("name") else {},
        )


def vae_changed(facts: RunFacts) -> Iterator[Finding]:
    """Latents of another autoencoder mean something else."""
    before = _past(facts, "vae", "")
    if before and facts.vae_hash and before != facts.vae_hash:
        yield Finding(
            "vae-changed",
            Severity.BLOCK,
            "The run was started with another VAE than the one that would be used now.",
            "Remove the external VAE, or start a new run.",
        )


def dataset_changed(facts: RunFacts) -> Iterator[Finding]:
    """Going on with other pictures or captions is allowed, and said."""
    before = _past(facts, "dataset", {}).get("fingerprint")
    if before and facts.fingerprint and before != facts.fingerprint:
        yield Finding(
            "dataset-changed",
            Severity.WARN,
            "Pictures or captions changed since the run was started; it goes on with what is there now.",
            "Start a new run if that is not meant.",
        )


def held_out_changed(facts: RunFacts) -> Iterator[Finding]:
    """Pictures that were trained on tell nothing new when they are held out later."""
    config = facts.config
    before = _past(facts, "config", {})
    share, seed = before.get("validation_share", 0.0), before.get("seed", config.seed)
    if (
        facts.record is not None
        and config.validation_share > 0
        and (share, seed)
        != (
            config.validation_share,
            config.seed,
        )
    ):
        yield Finding(
            "held-out-changed",
            Severity.WARN,
            f"{config.validation_share:.0%} of the pictures are to be held out now, but the run was started with "
            f"{share:.0%} and seed {seed}, so it has been trained on some of them.",
            "Keep both as they were, or start a new run.",
            {"validation_share": share, "seed": seed},
        )


def _past(facts: RunFacts, key: str, default: Any) -> Any:
    return facts.record.get(key, default) if facts.record is not None else default
