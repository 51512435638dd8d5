"""Guards on the model and on a resumed run's past. One rule, one function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Finding, Severity


def vae_loaded(facts: RunFacts) -> Iterator[Finding]:
    """An external VAE fries the embedding: the session trains with the checkpoint's own."""
    if facts.vae_replaced:
        yield Finding(
            "vae-loaded",
            Severity.FIX,
            f"The VAE {facts.vae_replaced} is set aside while training; the checkpoint's own is used.",
            "It is put back afterwards.",
        )


def clip_skip_changed(facts: RunFacts) -> Iterator[Finding]:
    """A run must go on with the CLIP skip it began with."""
    before = _past(facts, "config", {}).get("clip_skip")
    if before is not None and before != facts.config.clip_skip:
        yield Finding(
            "clip-skip-changed",
            Severity.BLOCK,
            f"The run was started with CLIP skip {before}; the settings now say {facts.config.clip_skip}.",
            f"Set CLIP skip to {before}.",
        )


def resume_beyond_steps(facts: RunFacts) -> Iterator[Finding]:
    """Nothing is left to do; a run that ended before its result was published may do that."""
    if facts.record is not None and facts.published and facts.saved_step >= facts.config.max_steps:
        yield Finding(
            "resume-beyond-steps",
            Severity.BLOCK,
            f"The run has finished {facts.saved_step} of {facts.config.max_steps} steps.",
            f"Raise the steps above {facts.saved_step} to go on.",
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


def _past(facts: RunFacts, key: str, default: Any) -> Any:
    return facts.record.get(key, default) if facts.record is not None else default
