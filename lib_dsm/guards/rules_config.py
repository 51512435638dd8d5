"""Guards on the settings themselves. One rule, one function."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Finding, Severity
from lib_dsm.training.captions import NAME
from lib_dsm.training.config import TIMESTEPS
from lib_dsm.training.schedule import parse_learning_rate, schedule_of

MELTING_VECTORS = 32
FEW_TIMESTEPS = 0.1  # of all
FULL_HASH = 10  # digits of a checkpoint's SHA-256 that embeddings keep; the eight of old files are another hash
_ONE_SIDED = re.compile(
    r"^(heterochromia|eyepatch|monocle|side ponytail|one side up|one eye covered|split-color hair)$"
    r"|^(single|asymmetrical|mismatched|uneven) |^(mole|scar|tattoo) (on|under|above|across|over) |over one eye"
    r"|^(mechanical|prosthetic|cybernetic) (arm|leg|hand|eye)$|^(left|right)\b|\b(left|right)$|^clothes writing$"
)


def template_without_name(facts: RunFacts) -> Iterator[Finding]:
    """A line without `[name]` trains nothing, and neither does a blank one, which others take as a template."""
    if not facts.config.template:
        yield Finding(
            "template-without-name", Severity.BLOCK, "The prompt template is empty.", f"Write {NAME} into it."
        )
    for line in facts.config.template:
        if NAME not in line:
            yield Finding(
                "template-without-name",
                Severity.BLOCK,
                f'The template line "{line}" has no {NAME}, so steps with it would train nothing.',
                f'Write for example "[filewords], {NAME}".',
            )


def init_too_long(facts: RunFacts) -> Iterator[Finding]:
    """Init text with more tokens than vectors: others cut it off in silence."""
    config = facts.config
    tokens = facts.token_counts.get(config.init_text, 0)
    if tokens > config.vectors and config.init_mode == "tokens" and not config.init_embedding:
        yield Finding(
            "init-too-long",
            Severity.BLOCK,
            f'The initialization text "{config.init_text}" has {tokens} tokens for {config.vectors} vectors.',
            f"Shorten it, or use at least {tokens} vectors.",
        )


def init_zero(facts: RunFacts) -> Iterator[Finding]:
    """An empty init text gives zero vectors."""
    if facts.record is None and not facts.config.init_text.strip() and not facts.config.init_embedding:
        yield Finding(
            "init-zero",
            Severity.WARN,
            "The initialization text is empty, so all vectors start at zero.",
            "Name a few key traits of the subject for a head start.",
        )


def many_vectors(facts: RunFacts) -> Iterator[Finding]:
    """32 and more vectors are known for melted features."""
    vectors = facts.config.vectors
    if vectors >= MELTING_VECTORS:
        yield Finding(
            "vectors-odd", Severity.WARN, f"{vectors} vectors are known to melt features.", "16 to 24 are usual."
        )


def name_is_a_word(facts: RunFacts) -> Iterator[Finding]:
    """The embedding's name must not mean anything yet: no known word, no tag of the captions, no other embedding."""
    name = facts.config.name
    lowered = name.lower()
    if facts.token_counts.get(name, 0) == 1:
        yield Finding(
            "name-is-a-word",
            Severity.BLOCK,
            f'"{name}" is a word the model knows; it could no longer be used as such.',
            f'Choose a name of your own, such as "{name}-mine".',
        )
    if any(lowered == tag.lower() for picture in facts.plan.pictures for tag in picture.tags):
        yield Finding(
            "name-is-a-word", Severity.BLOCK, f'"{name}" is a tag in the captions.', "Choose a name that is no tag."
        )
    if facts.record is None and not facts.config.overwrite and lowered in facts.foreign_embeddings:
        yield Finding(
            "name-taken",
            Severity.BLOCK,
            f'There is an embedding "{name}" already.',
            "Choose another name, or allow overwriting: the old file is kept under another name.",
        )


def schedule_ends_early(facts: RunFacts) -> Iterator[Finding]:
    """As in the WebUI, training ends where the learning-rate schedule does."""
    end = parse_learning_rate(facts.config.learning_rate).end
    if end is not None and end < facts.config.max_steps:
        yield Finding(
            "schedule-ends-early",
            Severity.WARN,
            f"The learning rate ends at step {end}, so training stops there and not at {facts.config.max_steps}.",
            "Add a last rate without a step to go on.",
        )


def continued_beyond_steps(facts: RunFacts) -> Iterator[Finding]:
    """An embedding whose training is to go on has made all the steps there are."""
    last = schedule_of(facts.config).last
    if facts.start is not None and facts.start.step >= last:
        yield Finding(
            "continue-beyond-steps",
            Severity.BLOCK,
            f"{facts.config.init_embedding} has made {facts.start.step} steps already; the settings end at {last}.",
            "Raise the steps, or start from it without continuing its training.",
        )


def trained_otherwise_before(facts: RunFacts) -> Iterator[Finding]:
    """The embedding it starts from was trained with another CLIP skip or on another checkpoint."""
    embedding = facts.start.embedding if facts.start is not None else None
    if embedding is None:
        return
    if embedding.clip_skip not in (None, facts.config.clip_skip):
        yield Finding(
            "init-clip-skip",
            Severity.WARN,
            f"{facts.config.init_embedding} was trained with CLIP skip {embedding.clip_skip}; this run has "
            f"{facts.config.clip_skip}.",
            f"Set CLIP skip to {embedding.clip_skip} to build on what it learned.",
        )
    known = embedding.checkpoint_hash
    if len(known) >= FULL_HASH and facts.checkpoint_hash and not facts.checkpoint_hash.startswith(known):
        yield Finding(
            "init-checkpoint",
            Severity.WARN,
            f"{facts.config.init_embedding} was trained on another checkpoint ({embedding.checkpoint_name or known}).",
            "What it learned holds for that one; choose it, or expect to train longer.",
        )


def nothing_to_continue(facts: RunFacts) -> Iterator[Finding]:
    """An embedding's training is to go on, and none is named."""
    if facts.config.init_continue and not facts.config.init_embedding:
        yield Finding(
            "continue-nothing",
            Severity.WARN,
            "An embedding's training is to go on, but none is named, so the run starts from words at step 0.",
            "Name the embedding to start from, or resume the run itself.",
        )


def fixed_length_of_nothing(facts: RunFacts) -> Iterator[Finding]:
    """A vector of zeros has no direction, so its length cannot be kept."""
    config = facts.config
    if config.norm_control != "fixed" or facts.record is not None:
        return
    if facts.start is not None:
        zeros = int((facts.start.vectors.norm(dim=1) == 0).sum())
    else:
        zeros = 0 if config.init_text.strip() else config.vectors
    if zeros:
        yield Finding(
            "norm-fixed-zero",
            Severity.BLOCK,
            f"{zeros} of the {config.vectors} vectors start at zero, and their length is to stay fixed.",
            "Give initialization words, or turn the length control off.",
        )


def warmup_too_long(facts: RunFacts) -> Iterator[Finding]:
    """The rate never gets where it should."""
    last = schedule_of(facts.config).last
    if facts.config.warmup_steps >= last:
        yield Finding(
            "warmup-too-long",
            Severity.WARN,
            f"The warm-up takes {facts.config.warmup_steps} steps and the run ends at {last}: the rate never reaches "
            "what is written.",
            "A twentieth of the run is usual.",
        )


def cosine_with_steps(facts: RunFacts) -> Iterator[Finding]:
    """A cosine bends a rate that has steps of its own."""
    schedule = schedule_of(facts.config)
    steps = [until for _, until in schedule.rate.pieces if until is not None and until < schedule.last]
    if schedule.kind != "steps" and steps:
        yield Finding(
            "cosine-jumps",
            Severity.WARN,
            f'The rate "{facts.config.learning_rate}" changes by itself at step {steps[0]}, and a cosine runs over it.',
            "Write a single rate, the highest, for a cosine.",
        )


def cycle_cut_off(facts: RunFacts) -> Iterator[Finding]:
    """The run ends in the middle of a cycle, at a high rate."""
    schedule = schedule_of(facts.config)
    if schedule.kind != "cosine restarts" or schedule.last <= schedule.warmup:
        return
    cycle = schedule.cycle(schedule.last - 1)
    missing = cycle.begin + cycle.length - schedule.last
    if missing > 0:
        yield Finding(
            "cycle-cut",
            Severity.INFO,
            f"The last cycle of the rate has {cycle.length} steps and the run ends {missing} before its end.",
            f"{schedule.last + missing} steps would finish it, {cycle.begin} end with the cycle before."
            if cycle.begin > schedule.warmup
            else f"{schedule.last + missing} steps would finish it.",
        )


def adam_out_of_order(facts: RunFacts) -> Iterator[Finding]:
    """Adam's convergence asks for beta1² < √beta2 (Kingma and Ba, 2015, theorem 4.1)."""
    beta1, beta2 = facts.config.adam_beta1, facts.config.adam_beta2
    if beta1 > 0 and beta1**2 >= math.sqrt(beta2):
        yield Finding(
            "adam-betas",
            Severity.WARN,
            f"With beta 1 at {beta1:g} and beta 2 at {beta2:g} AdamW does not converge.",
            "Beta 2 must be the larger; 0.9 and 0.999 are usual.",
        )


def decay_without_effect(facts: RunFacts) -> Iterator[Finding]:
    """Where lengths are fixed, weight decay changes nothing."""
    if facts.config.norm_control == "fixed" and facts.config.weight_decay > 0:
        yield Finding(
            "decay-fixed",
            Severity.INFO,
            f"The weight decay of {facts.config.weight_decay:g} has no effect: the vectors' lengths are fixed.",
            "Set it to 0, or turn the length control off.",
        )


def few_timesteps(facts: RunFacts) -> Iterator[Finding]:
    """A narrow range of noise teaches a part of what generation needs."""
    config = facts.config
    share = (config.timestep_max - config.timestep_min + 1) / TIMESTEPS
    if config.timestep_sampling == "range" and share < FEW_TIMESTEPS:
        yield Finding(
            "few-timesteps",
            Severity.WARN,
            f"Only the timesteps {config.timestep_min} to {config.timestep_max} are trained, {share:.1%} of all.",
            "Shapes are learned at high timesteps and details at low ones; use a wider range.",
        )


def flipped_asymmetry(facts: RunFacts) -> Iterator[Finding]:
    """Mirrored pictures teach that what is on one side may be on either."""
    if facts.config.flip <= 0:
        return
    counts: dict[str, int] = {}
    for picture in facts.plan.pictures:
        for tag in {tag.strip().lower().replace("_", " ") for tag in picture.tags}:
            if _ONE_SIDED.search(tag):
                counts[tag] = counts.get(tag, 0) + 1
    if counts:
        most = sorted(counts, key=lambda tag: (-counts[tag], tag))
        told = ", ".join(f"{tag} ({counts[tag]})" for tag in most[:5]) + (" and more" if len(most) > 5 else "")
        yield Finding(
            "flip-asymmetric",
            Severity.WARN,
            f"Pictures are shown mirrored, and captions name what is on one side: {told}.",
            "Set the flip chance to 0, or the character loses which side it is on.",
        )


def alpha_without_effect(facts: RunFacts) -> Iterator[Finding]:
    """Transparency is to weigh the loss, and no picture has any."""
    if facts.config.alpha_loss and facts.weighted == 0:
        yield Finding(
            "alpha-unused",
            Severity.WARN,
            "Transparency is to weigh the loss, but no picture is transparent where it is trained on.",
            "Use PNG files with an alpha channel, or turn it off.",
        )
