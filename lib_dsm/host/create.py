"""An untrained network from a run's settings: its name, how it is built and what it starts from, and nothing more."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from lib_dsm.errors import InputError
from lib_dsm.files import is_file
from lib_dsm.guards.finding import Finding, demand
from lib_dsm.host.facts import created_outputs, foreign_networks
from lib_dsm.host.kinds import kind_of
from lib_dsm.host.protocol import Host, TrainingSession
from lib_dsm.host.publish import announce, named_alike, published_file
from lib_dsm.jobs import Job
from lib_dsm.training.config import RunConfig


@dataclass(frozen=True)
class Created:
    """`published` is where the host looks for it; `files` are those in the settings' output folder, if they name one.

    `kept` are files of that name that were there before, under their new names.
    """

    published: Path
    files: tuple[Path, ...]
    kept: tuple[Path, ...]


def start_creating(host: Host, config: RunConfig) -> Job:
    """Create in the background; `job.data` has `summary`, a sentence, and `published` when it is done."""
    return host.jobs.start(f"Creating {config.name}", lambda job: create_network(host, config, job))


def create_network(host: Host, config: RunConfig, job: Job) -> Created:
    """Write the network that a training with these settings would begin with. The dataset is not looked at.

    What an earlier call wrote and nobody changed is replaced. Any other network of the kind and name is in the way,
    unless `config.overwrite`: then it is kept under another name.

    Raises:
        GuardError: a guard on the name or on how it is built blocks.
        InputError: the network to start from is missing; a file is in the way.
        ModelError: the checkpoint, or the network to start from, cannot be used.
        BusyError: a training holds the model.
        StorageError: the disk does not take it.
    """
    kind, outputs = kind_of(config), created_outputs(host)
    job.progress(0, 0, "loading the model")
    with host.training_session(config, brief=True) as session:
        found = _findings(host, config, session)
        for finding in found:
            job.say(f"[{finding.severity.value}] {finding.problem} {finding.remedy}".rstrip())
        demand(found, config.override)
        start = kind.given_start(host, config, session.model, None) or kind.new_start(config, session.model)
        network = kind.untrained(config, session, start)
    if start.note:
        job.say(start.note)
    folder = Path(config.output) if config.output else None
    files = [folder / f"{config.name}{suffix}" for suffix in kind.handed] if folder else []
    for path in files:
        if is_file(path) and not outputs.is_ours(path) and not config.overwrite:
            raise InputError(
                f"There is a file {path} already.",
                "Choose another name, or allow overwriting: the old file is kept under another name.",
            )
    published = published_file(host.folders, config)
    with (
        outputs.keeping_foreign([*files, *named_alike(published, kind)]) as kept,
        tempfile.TemporaryDirectory() as made,
    ):
        for path in [*files, published]:
            source = Path(made) / path.name
            kind.save(network, source)
            outputs.put(path, source.read_bytes())
    job.data.update(
        name=config.name,
        usage=kind.usage(config.name),
        published=str(published),
        summary=kind.created(network, published.name) + _kept(kept),
    )
    job.say(job.data["summary"])
    announce(host, job, config)
    return Created(published, tuple(files), tuple(kept))


def _findings(host: Host, config: RunConfig, session: TrainingSession) -> list[Finding]:
    """What those guards say that look at the name and at how the network is built alone."""
    from lib_dsm.guards.check import IN_CREATION, guards_of
    from lib_dsm.guards.facts import RunFacts
    from lib_dsm.training.pictures import Plan

    facts = RunFacts(
        config=config,
        plan=Plan((), ()),
        token_counts={text: len(session.model.tokenize(text)) for text in (config.name, config.init_text)},
        foreign_networks=foreign_networks(host, kind_of(config)),
        context_widths=session.model.context_widths(),
    )
    return [finding for guard in guards_of(facts) if guard.rule in IN_CREATION for finding in guard.rule(facts)]


def _kept(kept: list[Path]) -> str:
    return f" The file that was there is kept as {kept[0].name}." if kept else ""
