"""Guards on the settings themselves. One rule, one function."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from lib_dsm import options
from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Finding, Severity
from lib_dsm.guards.telling import some
from lib_dsm.networks.textual_inversion import Start
from lib_dsm.training.captions import NAME
from lib_dsm.training.config import EMBEDDING, RunConfig
from lib_dsm.training.schedule import schedule_of

MELTING_VECTORS = 32
USUAL_VECTORS = 16
ADVISED_VECTORS = ((2, 3), (16, 24))  # from, to: what one guide or another found good
FULL_HASH = 10  # digits of a checkpoint's SHA-256 that embeddings keep; the eight of old files are another hash
_MOST = {name: spec.maximum or 0 for name, spec in options.specs(RunConfig).items()}
_ONE_SIDED = re.compile(
    r"^(heterochromia|eyepatch|monocle|side ponytail|one side up|one eye covered|split-color hair)$"
    r"|^(single|asymmetrical|mismatched|uneven) |^(mole|scar|tattoo) (on|under|above|across|over) |over one eye"
    r"|^(mechanical|prosthetic|cybernetic) (arm|leg|hand|eye)$|^(left|right)\b|\b(left|right)$|^clothes writing$"
)


def template_without_name(facts: RunFacts) -> Iterator[Finding]:
    """A line without `[name]` trains nothing, and neither does a blank one, which others take as a template."""
    template = facts.config.template
    mended = tuple(line if NAME in line else f"{line.strip()}, {NAME}" for line in template if line.strip())
    apply = {"template_source": "lines", "template": mended or (f"[filewords], {NAME}",)}
    if not template:
        yield Finding(
            "template-without-name", Severity.BLOCK, "The prompt template is empty.", f"Write {NAME} into it.", apply
        )
    for line in template:
        if NAME not in line:
            yield Finding(
                "template-without-name",
                Severity.BLOCK,
                f'The template line "{line}" has no {NAME}, so steps with it would train nothing.',
                f'Write for example "[filewords], {NAME}".',
                apply,
            )


def init_too_long(facts: RunFacts) -> Iterator[Finding]:
    """Init text with more tokens than vectors: others cut it off in silence."""
    config = facts.config
    tokens = facts.token_counts.get(config.init_text, 0)
    if tokens > config.vectors and config.init_mode == "tokens" and not config.init_embedding:
        yield Finding(
            "init-too-long",
            Severity.BLOCK,
            f'The initialization text "{config.init_text}" has {tokens} tokens for {config.vectors} '
            f"{'vector' if config.vectors == 1 else 'vectors'}.",
            f"Shorten it, or use at least {tokens} vectors.",
            {"vectors": tokens} if tokens <= _MOST["vectors"] else {},
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


def odd_vectors(facts: RunFacts) -> Iterator[Finding]:
    """32 and more vectors are known for melted features; other numbers than the guides' own are worth a word."""
    vectors = facts.config.vectors
    if vectors >= MELTING_VECTORS:
        yield Finding(
            "vectors-odd",
            Severity.WARN,
            f"{vectors} vectors are known to melt features.",
            "16 to 24 are usual.",
            {"vectors": USUAL_VECTORS},
        )
    elif not any(low <= vectors <= high for low, high in ADVISED_VECTORS):
        count = "1 vector is" if vectors == 1 else f"{vectors} vectors are"
        yield Finding(
            "vectors-odd",
            Severity.INFO,
            f"{count} none of the numbers that the guides found good.",
            "They advise 16, or 18 to 24, or 2 to 3 for a simple subject.",
            {"vectors": USUAL_VECTORS},
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
            {"name": f"{name}-mine"},
        )
    if any(lowered == tag.lower() for picture in facts.plan.pictures for tag in picture.tags):
        yield Finding(
            "name-is-a-word",
            Severity.BLOCK,
            f'"{name}" is a tag in the captions.',
            "Choose a name that is no tag.",
            {"name": f"{name}-mine"},
        )
    if facts.record is None and not facts.config.overwrite and lowered in facts.foreign_networks:
        yield Finding(
            "name-taken",
            Severity.BLOCK,
            f'There is an embedding "{name}" already.',
            "Choose another name, or allow overwriting: the old file is kept under another name.",
            {"overwrite": True},
        )


def continued_beyond_steps(facts: RunFacts) -> Iterator[Finding]:
    """A network whose training is to go on has made all the steps there are."""
    last = schedule_of(facts.config).last
    if facts.start is not None and facts.start.step >= last:
        more = facts.start.step + facts.config.max_steps
        enough = schedule_of(dataclasses.replace(facts.config, max_steps=more)).last == more <= _MOST["max_steps"]
        yield Finding(
            "continue-beyond-steps",
            Severity.BLOCK,
            f"{_start_name(facts)} has made {facts.start.step} steps already; the settings end at {last}.",
            "Raise the steps, or start from it without continuing its training.",
            {"max_steps": more} if enough else {"init_continue": False},
        )


def trained_otherwise_before(facts: RunFacts) -> Iterator[Finding]:
    """The embedding it starts from was trained with another CLIP skip or on another checkpoint."""
    embedding = facts.start.embedding if isinstance(facts.start, Start) else None
    if embedding is None:
        return
    if embedding.clip_skip not in (None, facts.config.clip_skip):
        yield Finding(
            "init-clip-skip",
            Severity.WARN,
            f"{facts.config.init_embedding} was trained with CLIP skip {embedding.clip_skip}; this run has "
            f"{facts.config.clip_skip}.",
            f"Set CLIP skip to {embedding.clip_skip} to build on what it learned.",
            {"clip_skip": embedding.clip_skip},
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
    """A network's training is to go on, and none is named."""
    if facts.config.init_continue and not _start_name(facts):
        kind = facts.config.kind
        told = "An embedding's" if kind == EMBEDDING else f"A {kind}'s"
        begins = "starts from words" if kind == EMBEDDING else "starts from a new one"
        yield Finding(
            "continue-nothing",
            Severity.WARN,
            f"{told} training is to go on, but none is named, so the run {begins} at step 0.",
            f"Name the {kind} to start from, or resume the run itself.",
            {"init_continue": False},
        )


def fixed_length_of_nothing(facts: RunFacts) -> Iterator[Finding]:
    """A vector of zeros has no direction, so its length cannot be kept."""
    config = facts.config
    if config.norm_control != "fixed" or facts.record is not None:
        return
    if isinstance(facts.start, Start):
        zeros = int((facts.start.vectors.norm(dim=1) == 0).sum())
    else:
        zeros = 0 if config.init_text.strip() else config.vectors
    if zeros:
        yield Finding(
            "norm-fixed-zero",
            Severity.BLOCK,
            f"{zeros} of the {config.vectors} vectors start at zero, and their length is to stay fixed.",
            "Give initialization words, or turn the length control off.",
            {"norm_control": "off"},
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
        told = some([f"{tag} ({counts[tag]})" for tag in most])
        yield Finding(
            "flip-asymmetric",
            Severity.WARN,
            f"Pictures are shown mirrored, and captions name what is on one side: {told}.",
            "Set the flip chance to 0, or the character loses which side it is on.",
            {"flip": 0.0},
        )


def alpha_without_effect(facts: RunFacts) -> Iterator[Finding]:
    """Transparency is to weigh the loss, and no picture has any."""
    if facts.config.alpha_loss and facts.weighted == 0:
        yield Finding(
            "alpha-unused",
            Severity.WARN,
            "Transparency is to weigh the loss, but no picture is transparent where it is trained on.",
            "Use PNG files with an alpha channel, or turn it off.",
            {"alpha_loss": False},
        )


def _start_name(facts: RunFacts) -> str:
    config = facts.config
    return config.init_embedding if config.kind == EMBEDDING else config.init_hypernetwork
