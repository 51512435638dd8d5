"""What is known of a run before it starts, for the guards to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lib_dsm.host.kinds import Kind, kind_of
from lib_dsm.host.outputs import Outputs
from lib_dsm.host.protocol import Host, TrainingSession
from lib_dsm.host.publish import holds, published_file
from lib_dsm.training.config import STARTS, RunConfig

if TYPE_CHECKING:
    from lib_dsm.guards.facts import RunFacts
    from lib_dsm.networks.hypernetwork_training import HypernetworkStart
    from lib_dsm.networks.textual_inversion import Start
    from lib_dsm.training.pictures import Plan
    from lib_dsm.training.run_folder import RunFolder

TRAINED_WITH = "trained_with"  # in the record of a run made from another: the other's settings, until it has begun
LOOKING_SECONDS = 10.0  # at most, each time; what is known of the pictures is kept


def given_start(
    host: Host, config: RunConfig, session: TrainingSession, folder: RunFolder, resume: bool
) -> Start | HypernetworkStart | None:
    """What a run starts from if that is a network that is there already."""
    if not any(getattr(config, name) for name in STARTS):
        return None
    kind = kind_of(config)
    latest = folder.load_latest() if resume else None
    saved = folder.state_file(latest[0], f"{config.name}{kind.published}") if latest is not None else None
    return kind.given_start(host, config, session.model, saved)


def run_facts(
    host: Host,
    config: RunConfig,
    plan: Plan,
    session: TrainingSession,
    folder: RunFolder,
    resume: bool,
    start: Start | HypernetworkStart | None,
) -> RunFacts:
    """All that the guards look at before a run starts. The session must be open."""
    from lib_dsm.dataset.looks import looks
    from lib_dsm.guards.facts import RunFacts
    from lib_dsm.guards.unsuitable import begin_list, unsuitable_entry
    from lib_dsm.host.storage import storage_of
    from lib_dsm.training.optimizers import missing_package

    data = host.folders.data
    saved = folder.saved_steps() if resume else []
    done = saved[-1] if saved else 0
    kind = kind_of(config)
    numbers = kind.numbers(config, session.model, start)
    storage = storage_of(host.folders, folder.path.parent, config, plan, numbers, done)
    begin_list(data)
    unsuitable, note = unsuitable_entry(data, session.checkpoint.path.name, session.checkpoint_hash)
    texts = {config.name, config.init_text, *(", ".join(picture.tags) for picture in plan.pictures)}
    return RunFacts(
        config=config,
        plan=plan,
        token_counts={text: len(session.model.tokenize(text)) for text in texts},
        foreign_networks=foreign_networks(host, kind),
        context_widths=session.model.context_widths(),
        missing_package=missing_package(config),
        injected=session.embeddings,
        record=_past_record(folder) if resume else None,
        saved_step=done,
        published=bool(saved) and _is_published(host, config, folder, done),
        checkpoint_hash=session.checkpoint_hash,
        vae_hash=session.model.vae_hash,
        has_clip_skip=session.model.has_clip_skip,
        attention_upcast=session.model.attention_upcast,
        start=start,
        set_aside=session.set_aside,
        applies_hypernetworks=host.applies_hypernetworks(),
        unsuitable=unsuitable,
        unsuitable_note=note,
        data_folder=data,
        looks=looks([picture.path for picture in plan.pictures], data / "looks.json", LOOKING_SECONDS),
        storage=tuple(storage),
    )


def created_outputs(host: Host) -> Outputs:
    """The untrained networks that were written here (see create.py)."""
    return Outputs(host.folders.data / "created.json")


def foreign_networks(host: Host, kind: Kind) -> frozenset[str]:
    """The names, in small letters, of the host's networks of that kind that are not untrained ones written here."""
    folder, created = kind.folder(host.folders), created_outputs(host)
    files = (path for path in folder.rglob("*") if path.suffix.lower() in kind.suffixes) if folder.is_dir() else ()
    return frozenset(path.stem.lower() for path in files if path.name[0] != "." and not created.is_ours(path))


def _past_record(folder: RunFolder) -> dict[str, Any]:
    """The record of a run that goes on, with the settings that it was trained with."""
    record = folder.read_record()
    return {**record, "config": record[TRAINED_WITH]} if TRAINED_WITH in record else record


def _is_published(host: Host, config: RunConfig, folder: RunFolder, step: int) -> bool:
    """Whether what the host has is the result of that step, the last, or of one that was chosen instead of it."""
    published = published_file(host.folders, config)
    used = folder.read_record().get("used") or {}
    return holds(published, folder, config, used["step"] if used.get("of") == step else step)
