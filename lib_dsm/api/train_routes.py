"""Training: what the settings come to, check, start, and the words the vectors start from."""

from __future__ import annotations

import contextlib
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib_dsm import options
from lib_dsm.api.http import Call, Route
from lib_dsm.api.plain import plain
from lib_dsm.api.service import Service
from lib_dsm.errors import DsmError, InputError
from lib_dsm.files import is_folder
from lib_dsm.networks.stretching import stretched
from lib_dsm.training.config import HYPERNETWORK, STARTS, RunConfig

RATE_POINTS = 240
PROMPTS = 4
TEXT_LIMIT = 4000  # characters


def plan(service: Service, call: Call) -> Any:
    """What the settings in `config` come to: sizes, crops, epochs and the rate by step. Loads no model.

    `pictures` true lists every picture with the part of it that is kept.
    """
    from lib_dsm.api.train_plan import describe_plan, first_prompts, rate_curve
    from lib_dsm.host.templates import with_host_template
    from lib_dsm.training.pictures import plan_pictures

    config = read_settings(service, call)
    planned = plan_pictures(config)
    begun = _begun(service, config)
    facts = describe_plan(config, planned, call.flag("pictures"), begun)
    # What is half typed is no reason to show nothing of the rest.
    parts: dict[str, Callable[[], Any]] = {
        "rate": lambda: rate_curve(config, RATE_POINTS),
        "prompts": lambda: first_prompts(with_host_template(service.host, config), planned, PROMPTS, begun),
    }
    for name, find in parts.items():
        try:
            facts |= {name: find(), f"{name}_problem": ""}
        except DsmError as error:
            facts |= {name: [], f"{name}_problem": str(error)}
    return plain(facts)


def tokens(service: Service, call: Call) -> Any:
    """How the tokenizer of `checkpoint` cuts `text` into tokens, and which of them each of `vectors` starts from."""
    text = call.text("text")
    if len(text) > TEXT_LIMIT:
        raise InputError(f"The text has {len(text)} characters.", "A few words are enough.")
    pieces = service.host.tokens(text, call.text("checkpoint", ""))
    count = call.whole("vectors", 1, 1, 75)
    return {"tokens": pieces, "vectors": stretched(len(pieces), count)}


def words(service: Service, call: Call) -> Any:
    """Words to start from: the tags that were pruned from most captions of `dataset`, as many as fit `vectors`.

    They name what the embedding is to stand for; the closer it begins, the less is left to learn.
    """
    from lib_dsm.dataset.pruned import MOST, fitting_tags, pruned_tags

    folder = service.work_folder(call.text("dataset"), recursive=True)
    lost = pruned_tags(folder)
    made_from = _made_from(service, folder)
    if not lost and made_from is not None:
        lost = pruned_tags(made_from)
    tags = [tag for tag, share in lost if share >= MOST]
    if not tags:
        raise InputError(
            f"No tag was pruned from most captions of {folder.name}.", "Prune what describes the character first."
        )
    checkpoint, count = call.text("checkpoint", ""), call.whole("vectors", 1, 1, 75)
    text = fitting_tags(tags, count, lambda text: service.host.tokens(text, checkpoint))
    return {"text": text, "tags": tags}


def embedding(service: Service, call: Call) -> Any:
    """What the embedding `name` holds, from which a training can start: its number of vectors, width and step."""
    from lib_dsm.host.starting import find_embedding
    from lib_dsm.networks.embedding import load_embedding

    name = call.text("name")
    demand_opened(service, name)
    path = find_embedding(service.host, name)
    found = load_embedding(path)
    vectors, width = found.vectors.shape
    return {"file": path.name, "vectors": vectors, "width": width, "step": found.step}


def check(service: Service, call: Call) -> Any:
    """What the guards say of the settings in `config`, without training, and what they found in order."""
    from lib_dsm.host.run import examine_run

    findings, passed = examine_run(service.host, read_settings(service, call), call.flag("resume"))
    return {
        "findings": [finding.to_json() for finding in findings],
        "passed": [{"id": guard.ids[0], "fine": guard.fine} for guard in passed],
    }


def start(service: Service, call: Call) -> Any:
    """Start the training of `config` (as in RUN.json) in the background; answers with the job's id."""
    return start_job(service, read_settings(service, call), call.flag("resume"))


def create(service: Service, call: Call) -> Any:
    """Write the untrained network of `config` in the background; answers with the job's id. Needs no pictures."""
    from lib_dsm.host.create import start_creating

    return {"job": start_creating(service.host, read_settings(service, call, pictures=False)).id}


def start_job(service: Service, config: RunConfig, resume: bool) -> dict[str, Any]:
    """Start a training that the Train tab shows.

    Raises:
        ForbiddenError: see `demand_readable`.
    """
    from lib_dsm.host.run import start_training

    demand_readable(service, config)
    job = start_training(service.host, config, resume)
    job.data.update(tab="train", resumed=resume)
    return {"job": job.id}


def runs(service: Service, aside: bool = False) -> list[Path]:
    """The folders of all runs that can be resumed, the newest first; or, `aside`, of those that were moved aside.

    What is a link out of the host's folders is left out.
    """
    found = (path for path in service.host.folders.logs.glob("*/run.json") if service.may_read(path.parent))
    # A hidden folder is a run that was being made when the program was killed.
    records = [path for path in found if (".old-" in path.parent.name) == aside and path.parent.name[0] != "."]
    return [path.parent for path in sorted(records, key=lambda path: path.stat().st_mtime, reverse=True)]


def _begun(service: Service, config: RunConfig) -> int:
    """The step that a run goes on after, 0 where that cannot be told; why not is the check's to say."""
    from lib_dsm.host.starting import find_embedding, find_hypernetwork
    from lib_dsm.networks.embedding import load_embedding
    from lib_dsm.networks.hypernetwork import load_hypernetwork

    if not config.init_continue:
        return 0
    try:
        if config.kind == HYPERNETWORK and config.init_hypernetwork:
            return max(0, load_hypernetwork(find_hypernetwork(service.host, config.init_hypernetwork)).step or 0)
        if config.kind != HYPERNETWORK and config.init_embedding:
            return max(0, load_embedding(find_embedding(service.host, config.init_embedding)).step or 0)
    except DsmError:
        pass
    return 0


def read_settings(service: Service, call: Call, pictures: bool = True) -> RunConfig:
    """The settings in `config`, whose files and folders are the host's own or opened; without `pictures` no dataset."""
    from lib_dsm.host.templates import find_template

    given = call.object("config")
    for name, spec in options.specs(RunConfig).items():
        if name in given and given[name] is None and type(None) not in typing.get_args(spec.type):
            raise InputError(f"{spec.label} is empty.", "Fill it in.")
    config = options.from_json(RunConfig, given, "run settings")
    if pictures:
        service.folder(config.dataset)
        demand_readable(service, config)
    if config.output:
        service.folder(config.output)
    if all(config.checkpoint != known.name for known in service.host.checkpoints()):
        service.path(config.checkpoint)
    if Path(config.template_file).is_absolute():
        service.path(config.template_file)
    elif config.template_source == "file" and config.template_file:
        with contextlib.suppress(InputError):  # whoever reads it says that there is none
            service.path(str(find_template(service.host, config.template_file)))
    for start in STARTS:
        demand_opened(service, getattr(config, start))
    return config


def demand_readable(service: Service, config: RunConfig) -> None:
    """Let only settings pass whose pictures and captions are no links out of their folder and of the opened ones.

    The folder itself need not be open: a run of an earlier day goes on without it.

    Raises:
        ForbiddenError: one is such a link.
    """
    folder = Path(config.dataset)
    if is_folder(folder):
        service.without_ways_out(folder)
        _made_from(service, folder)  # a training looks whether it has gone on since


def _made_from(service: Service, folder: Path) -> Path | None:
    """The folder that a project's SET is made from, None where there is none that may be read."""
    from lib_dsm.dataset.project import Project

    project = Project(folder.parent)
    if folder != project.set or not project.dataset_imgs.is_dir():
        return None
    try:
        made_from = service.folder(str(project.dataset_imgs))
    except DsmError:  # only SET was opened
        return None
    return service.without_ways_out(made_from, recursive=True)


def demand_opened(service: Service, network: str) -> None:
    """Let a network's name pass, and a path only into an opened folder."""
    if re.search(r"[/\\:]|^\.", network):  # a path, and not a name in the host's folder
        service.path(network)


ROUTES = (
    Route("POST", "train/plan", plan),
    Route("POST", "train/tokens", tokens),
    Route("POST", "train/words", words),
    Route("GET", "train/embedding", embedding),
    Route("POST", "train/check", check),
    Route("POST", "train/start", start),
    Route("POST", "train/create", create),
)
