"""An untrained embedding from a run's settings: its name, vectors and what they start from, and nothing more."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.errors import InputError
from lib_dsm.guards.finding import Finding, demand
from lib_dsm.host.facts import created_outputs, foreign_embeddings
from lib_dsm.host.protocol import Host, TrainingSession
from lib_dsm.host.publish import SUFFIXES, announce
from lib_dsm.host.starting import starting_point
from lib_dsm.jobs import Job
from lib_dsm.training.config import RunConfig

if TYPE_CHECKING:
    from lib_dsm.networks.embedding import Embedding


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
    return host.jobs.start(f"Creating {config.name}", lambda job: create_embedding(host, config, job))


def create_embedding(host: Host, config: RunConfig, job: Job) -> Created:
    """Write the embedding that a training with these settings would begin with. The dataset is not looked at.

    What an earlier call wrote and nobody changed is replaced. Any other embedding of the name is in the way, unless
    `config.overwrite`: then it is kept under another name.

    Raises:
        GuardError: the name is a word or taken, or the words are more than the vectors.
        InputError: the embedding to start from is missing; a file is in the way.
        ModelError: the checkpoint, or the embedding to start from, cannot be used.
        BusyError: a training holds the model.
        StorageError: the disk does not take it.
    """
    from lib_dsm.networks.embedding import Embedding, save_pt, save_safetensors

    outputs = created_outputs(host)
    job.progress(0, 0, "loading the model")
    with host.training_session(config, brief=True) as session:
        found = _findings(host, config, session)
        for finding in found:
            job.say(f"[{finding.severity.value}] {finding.problem} {finding.remedy}".rstrip())
        demand(found, config.override)
        start = starting_point(host, config, session.model, saved=False)
        embedding = Embedding(
            name=config.name,
            vectors=start.vectors,
            step=start.step,
            checkpoint_name=Path(session.checkpoint.name).stem,
            checkpoint_hash=session.checkpoint_hash,
            clip_skip=config.clip_skip,
        )
    if start.note:
        job.say(start.note)
    folder = Path(config.output) if config.output else None
    files = [folder / f"{config.name}{suffix}" for suffix in (".safetensors", ".pt")] if folder else []
    for path in files:
        if path.is_file() and not outputs.is_ours(path) and not config.overwrite:
            raise InputError(
                f"There is a file {path} already.",
                "Choose another name, or allow overwriting: the old file is kept under another name.",
            )
    published = host.folders.embeddings / f"{config.name}.safetensors"
    beside = [published.with_suffix(suffix) for suffix in SUFFIXES]
    with outputs.keeping_foreign([*files, *beside]) as kept, tempfile.TemporaryDirectory() as made:
        for path in [*files, published]:
            source = Path(made) / path.name
            (save_pt if path.suffix == ".pt" else save_safetensors)(embedding, source)
            outputs.put(path, source.read_bytes())
    job.data.update(name=config.name, published=str(published), summary=_summary(embedding, published, kept))
    job.say(job.data["summary"])
    announce(host, job, config.name)
    return Created(published, tuple(files), tuple(kept))


def _findings(host: Host, config: RunConfig, session: TrainingSession) -> list[Finding]:
    """What those guards say that look at the name and the words alone."""
    from lib_dsm.guards import rules_config
    from lib_dsm.guards.facts import RunFacts
    from lib_dsm.training.pictures import Plan

    facts = RunFacts(
        config=config,
        plan=Plan((), ()),
        token_counts={text: len(session.model.tokenize(text)) for text in (config.name, config.init_text)},
        foreign_embeddings=foreign_embeddings(host),
    )
    rules = (
        rules_config.name_is_a_word,
        rules_config.init_too_long,
        rules_config.init_zero,
        rules_config.odd_vectors,
    )
    return [finding for rule in rules for finding in rule(facts)]


def _summary(embedding: Embedding, published: Path, kept: list[Path]) -> str:
    told = f"{published.name} holds {len(embedding.vectors)} untrained vectors."
    return told + (f" The file that was there is kept as {kept[0].name}." if kept else "")
