"""Guards on the settings themselves. One rule, one function."""

from __future__ import annotations

from collections.abc import Iterator

from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Finding, Severity
from lib_dsm.training.captions import NAME
from lib_dsm.training.schedule import parse_learning_rate

MELTING_VECTORS = 32


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
    if tokens > config.vectors:
        yield Finding(
            "init-too-long",
            Severity.BLOCK,
            f'The initialization text "{config.init_text}" has {tokens} tokens for {config.vectors} vectors.',
            f"Shorten it, or use at least {tokens} vectors.",
        )


def init_zero(facts: RunFacts) -> Iterator[Finding]:
    """An empty init text gives zero vectors."""
    if facts.record is None and not facts.config.init_text.strip():
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
