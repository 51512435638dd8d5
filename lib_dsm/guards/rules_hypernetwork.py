"""Guards on hypernetworks. One rule, one function."""

from __future__ import annotations

from collections.abc import Iterator

from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Finding, Severity
from lib_dsm.guards.telling import some
from lib_dsm.networks.hypernetwork_structure import ACROSS_PICTURES, Structure, recorded
from lib_dsm.networks.hypernetwork_training import HypernetworkStart
from lib_dsm.training.captions import FILEWORDS, NAME
from lib_dsm.training.schedule import parse_learning_rate

USUAL_RATE = 1e-5  # the WebUI's own
HIGH_RATE, DEADLY_RATE = 1e-4, 5e-4
LEAST_FACTOR = 0.1  # of an optimizer that finds its rate by itself


def deadly_rate(facts: RunFacts) -> Iterator[Finding]:
    """A rate that is fit for an embedding's few numbers kills a hypernetwork within some steps."""
    if facts.config.optimizer != "adamw":
        return
    highest = max(rate for rate, _ in parse_learning_rate(facts.config.learning_rate).pieces)
    if highest >= DEADLY_RATE:
        yield Finding(
            "hyper-rate",
            Severity.BLOCK,
            f"The learning rate {highest:g} is one for embeddings; it kills a hypernetwork.",
            f"{USUAL_RATE:g} is usual.",
            {"learning_rate": f"{USUAL_RATE:.5f}"},
        )
    elif highest > HIGH_RATE:
        yield Finding(
            "hyper-rate",
            Severity.WARN,
            f"The learning rate {highest:g} is high for a hypernetwork.",
            f"{USUAL_RATE:g} is usual; watch the previews if you keep it.",
            {"learning_rate": f"{USUAL_RATE:.5f}"},
        )


def rate_as_factor(facts: RunFacts) -> Iterator[Finding]:
    """Prodigy and D-Adaptation take the rate for a factor on what they find."""
    config = facts.config
    if config.optimizer == "adamw":
        return
    highest = max(rate for rate, _ in parse_learning_rate(config.learning_rate).pieces)
    if highest < LEAST_FACTOR:
        yield Finding(
            "adaptive-rate",
            Severity.WARN,
            f"The optimizer {config.optimizer} finds its rate by itself and takes {highest:g} for a factor on it.",
            "Write 1.",
            {"learning_rate": "1"},
        )


def optimizer_missing(facts: RunFacts) -> Iterator[Finding]:
    """The optimizer's package is not there."""
    if facts.missing_package:
        yield Finding(
            "optimizer-missing",
            Severity.BLOCK,
            f'The optimizer "{facts.config.optimizer}" needs the package {facts.missing_package}, which is not '
            "installed.",
            f"`pip install {facts.missing_package}` adds it; or take adamw at a rate of its own.",
            {"optimizer": "adamw"},
        )


def not_applied(facts: RunFacts) -> Iterator[Finding]:
    """reForge takes a hypernetwork's name out of the prompt and does nothing with it."""
    if not facts.applies_hypernetworks:
        yield Finding(
            "hyper-not-applied",
            Severity.WARN,
            "This WebUI does not apply hypernetworks when it generates; of its pictures only the previews of the "
            "training show them.",
            "Make a LoRA of it in the tab LoRA when it is trained, or use it in AUTOMATIC1111's WebUI.",
        )


def unloadable_structure(facts: RunFacts) -> Iterator[Finding]:
    """The WebUI builds a hypernetwork without skip connections, whatever its file says, and cannot fill it in."""
    structure = _structure(facts)
    if structure is not None and structure.skip:
        yield Finding(
            "hyper-unloadable",
            Severity.BLOCK,
            "The WebUI itself cannot load a hypernetwork with skip connections; it needs the Train_Gamma extension.",
            "Turn them off, or override this if the extension is there wherever it is used.",
            {"skip_connection": False},
        )
    elif structure is not None and structure.dropout and structure.dropout[-1] > 0:
        zeroed = (*structure.dropout[:-1], 0.0)
        yield Finding(
            "hyper-unloadable",
            Severity.WARN,
            f"The dropout structure ends with {structure.dropout[-1]:g}, so parts of the output itself are left out; "
            "some programs refuse such a file.",
            "Let it end with 0.",
            {"dropout_structure": zeroed},
        )


def widths_of_another_model(facts: RunFacts) -> Iterator[Finding]:
    """A width that no attention layer of the model has is saved and never trained."""
    structure, known = _structure(facts), facts.context_widths
    if structure is None or not known:
        return
    strange = [width for width in structure.widths if width not in known]
    if not strange:
        return
    all_of_them = len(strange) == len(structure.widths)
    fitting = tuple(width for width in structure.widths if width in known)
    yield Finding(
        "hyper-widths",
        Severity.BLOCK if all_of_them else Severity.WARN,
        f"No attention layer of this checkpoint has the width {some([str(width) for width in strange])}; it has "
        f"{', '.join(map(str, known))}.",
        "It would learn nothing: choose among those." if all_of_them else "These parts stay as they begin.",
        {} if facts.config.init_hypernetwork else {"widths": fitting},
    )


def across_pictures(facts: RunFacts) -> Iterator[Finding]:
    """The WebUI's softmax activations act across a batch."""
    structure = _structure(facts)
    if structure is not None and structure.activation in ACROSS_PICTURES:
        yield Finding(
            "hyper-across-batch",
            Severity.WARN,
            f"The activation {structure.activation} acts, in the WebUI as here, across the pictures of a batch, so a "
            "picture looks otherwise beside others.",
            "swish, relu or linear are usual.",
            {"activation": "swish"},
        )


def named_in_template(facts: RunFacts) -> Iterator[Finding]:
    """A hypernetwork acts on every prompt: its name there binds what it learns to a word that nobody writes."""
    named = [line for line in facts.config.template if NAME in line]
    if named:
        yield Finding(
            "hyper-name-in-template",
            Severity.WARN,
            f'The template line "{named[0]}" has {NAME}, but a hypernetwork acts without being named in a prompt.',
            f'Write for example "{FILEWORDS}".',
            {"template_source": "lines", "template": (FILEWORDS,)},
        )


def empty_template(facts: RunFacts) -> Iterator[Finding]:
    """Without any line there is no prompt."""
    if not facts.config.template:
        yield Finding(
            "template-empty",
            Severity.BLOCK,
            "The prompt template is empty.",
            f'Write for example "{FILEWORDS}".',
            {"template_source": "lines", "template": (FILEWORDS,)},
        )


def name_taken(facts: RunFacts) -> Iterator[Finding]:
    """There is a hypernetwork of that name, or the WebUI takes the name for none at all."""
    name = facts.config.name
    if facts.record is None and not facts.config.overwrite and name.lower() in facts.foreign_networks:
        yield Finding(
            "hyper-name-taken",
            Severity.BLOCK,
            f'There is a hypernetwork "{name}" already.',
            "Choose another name, or allow overwriting: the old file is kept under another name.",
            {"overwrite": True},
        )
    if name == "None":
        yield Finding(
            "hyper-name-taken",
            Severity.BLOCK,
            'The WebUI does not list a hypernetwork called "None".',
            "Choose another name.",
            {"name": "none-mine"},
        )


def optimizer_of_another(facts: RunFacts) -> Iterator[Finding]:
    """The optimizer's state beside the file belongs to another file or another optimizer."""
    start = facts.start
    if isinstance(start, HypernetworkStart) and start.stale and facts.record is None:
        yield Finding("stale-optimizer", Severity.WARN, start.stale, "The first steps may go astray; a warm-up helps.")


def structure_changed(facts: RunFacts) -> Iterator[Finding]:
    """A run goes on with the network that it began with."""
    before = (facts.record or {}).get("network", {})
    structure = _structure(facts)
    if structure is None or not before.get("layer_structure"):
        return
    now = recorded(structure)
    changed = [name for name in now if name in before and before[name] != now[name]]
    if changed:
        name = changed[0]
        yield Finding(
            "hyper-structure-changed",
            Severity.BLOCK,
            f"The run was started with {name.replace('_', ' ')} {_told(before[name])}; the settings now say "
            f"{_told(now[name])}.",
            "Set it as it was, or start a new run.",
            {} if facts.config.init_hypernetwork else {name: before[name] for name in changed},
        )


def optimizer_changed(facts: RunFacts) -> Iterator[Finding]:
    """One optimizer's state means nothing to another."""
    before = (facts.record or {}).get("config", {}).get("optimizer", "adamw")
    if facts.record is not None and before != facts.config.optimizer:
        yield Finding(
            "optimizer-changed",
            Severity.BLOCK,
            f"The run was started with the optimizer {before}; the settings now say {facts.config.optimizer}.",
            f"Set it to {before}, or start a new run from what it learned.",
            {"optimizer": before},
        )


def _structure(facts: RunFacts) -> Structure | None:
    """How the network is built, None where that is not known yet."""
    if isinstance(facts.start, HypernetworkStart):
        return facts.start.structure
    widths = facts.config.widths or tuple(facts.context_widths)
    return facts.config.structure(widths) if widths else None


def _told(value: object) -> str:
    return ", ".join(f"{item:g}" for item in value) or "none" if isinstance(value, (list, tuple)) else str(value)
