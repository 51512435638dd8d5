"""A training run from its settings to the finished files, on any host."""

from __future__ import annotations

import dataclasses
import logging
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_dsm import __version__, options
from lib_dsm.errors import InputError
from lib_dsm.files import move_aside
from lib_dsm.guards.finding import Finding, demand
from lib_dsm.host.outputs import Outputs
from lib_dsm.host.protocol import Host, TrainingSession
from lib_dsm.jobs import Job
from lib_dsm.training.config import PreviewRequest, RunConfig

if TYPE_CHECKING:
    from lib_dsm.networks.textual_inversion import TextualInversion
    from lib_dsm.training.loop import StepReport
    from lib_dsm.training.pictures import Plan, TrainingSet
    from lib_dsm.training.run_folder import RunFolder

logger = logging.getLogger("dsm")
RECORD_VERSION = 1
CURVE_POINTS = 500
EMBEDDING_SUFFIXES = (".pt", ".safetensors", ".bin", ".png", ".webp", ".jxl", ".avif")


@dataclass(frozen=True)
class RunResult:
    """What a run left behind."""

    folder: Path
    step: int
    stopped: bool
    files: list[Path] = field(default_factory=list)
    published: Path | None = None


def start_training(host: Host, config: RunConfig, resume: bool = False) -> Job:
    """Train in the background; what happens is told in the job (see `train`)."""
    return host.jobs.start(f"Training {config.name}", lambda job: train(host, config, job, resume), unit="steps")


def run_folder(host: Host, config: RunConfig) -> RunFolder:
    """Where the run of these settings keeps its files."""
    from lib_dsm.training.run_folder import RunFolder

    return RunFolder(_output(host, config) / config.name)


def _output(host: Host, config: RunConfig) -> Path:
    return Path(config.output) if config.output else host.folders.logs


def check_run(host: Host, config: RunConfig, resume: bool = False) -> list[Finding]:
    """What the guards say of a run, without training.

    Raises:
        DsmError: the dataset or the checkpoint cannot be used at all.
    """
    from lib_dsm.guards.check import check
    from lib_dsm.training.pictures import plan_pictures
    from lib_dsm.training.schedule import parse_learning_rate

    parse_learning_rate(config.learning_rate)
    folder = run_folder(host, config)
    plan = plan_pictures(config)
    with host.training_session(config) as session:
        return check(_facts(host, config, plan, session, folder, resume))


def train(host: Host, config: RunConfig, job: Job, resume: bool = False) -> RunResult:
    """Train to the end, or until the job is cancelled; a stopped run is saved and can be resumed.

    While it runs `job.data` holds `run_folder`, `losses` [[step, loss], …], `previews` [{step, path, prompt}, …] and
    `findings`; afterwards `files` and `published`.

    Raises:
        GuardError: a guard blocks, or stopped the run in its course.
        DsmError: the dataset, the checkpoint or the disk cannot be used.
    """
    from lib_dsm.training.pictures import plan_pictures
    from lib_dsm.training.schedule import parse_learning_rate

    parse_learning_rate(config.learning_rate)
    folder = run_folder(host, config)
    if resume and not folder.exists():
        raise InputError(f'There is no run "{config.name}" in {folder.path.parent} to resume.', "Start it anew.")
    plan = plan_pictures(config)
    job.data.update(kind="training", name=config.name, run_folder=str(folder.path), clip_skip=config.clip_skip)
    job.progress(0, config.max_steps, "loading the model")
    with host.training_session(config) as session, folder.locked():
        result = _Run(host, config, job, session, folder, plan, resume).train()
    try:
        host.networks_changed()
    except Exception as error:  # the files are safe; only the host's list is old
        job.say(f"{host.name} did not take notice of the new embedding: {error}. Refresh its list.")
    else:
        job.say(f"The embedding can be used at once as {config.name}.")
    return result


class _Run:
    """The parts of a run, put together."""

    def __init__(
        self,
        host: Host,
        config: RunConfig,
        job: Job,
        session: TrainingSession,
        folder: RunFolder,
        plan: Plan,
        resume: bool,
    ) -> None:
        self.host = host
        self.config = config
        self.job = job
        self.session = session
        self.folder = folder
        self.plan = plan
        self.resume = resume
        self.losses: list[list[float]] = []
        self.previews: list[dict[str, Any]] = []
        self.trainable: TextualInversion

    def train(self) -> RunResult:
        from lib_dsm.guards.check import check
        from lib_dsm.guards.rules_model import dataset_changed
        from lib_dsm.networks.textual_inversion import TextualInversion, initial_vectors
        from lib_dsm.training.latents import LatentCache
        from lib_dsm.training.loop import Trainer
        from lib_dsm.training.pictures import load_pictures

        config, job, session = self.config, self.job, self.session
        if self.folder.exists() and not (self.resume or config.overwrite):
            raise InputError(
                f'There is a run "{config.name}" in {self.folder.path.parent} already.',
                "Resume it, choose another name, or allow overwriting: the old run is kept under another name.",
            )
        facts = _facts(self.host, config, self.plan, session, self.folder, self.resume)
        findings = check(facts)
        self._report(findings)
        demand(findings, config.override)
        cache = LatentCache(self.host.folders.data / "latents", session.model)

        def encoding(done: int, total: int) -> None:
            job.check()
            job.progress(0, config.max_steps, f"preparing pictures, {done} of {total}")

        pictures, broken = load_pictures(self.plan.pictures, cache, encoding)
        for _, sentence in broken:
            job.say(f"Left out: {sentence}")
        # With the pictures read, the guard on a changed dataset can speak as well.
        self._report(list(dataset_changed(dataclasses.replace(facts, fingerprint=pictures.fingerprint()))))
        start = initial_vectors(session.model, config.init_text, config.vectors)
        self.trainable = TextualInversion(config.name, start, session.model.device)
        if self.resume:
            self.folder.write_record({**self.folder.read_record(), "config": options.to_json(config)})
        else:
            if self.folder.exists():
                job.say(f"The earlier run is kept as {move_aside(self.folder.path).name}.")
            self.folder.write_record(self._record(pictures))
        trainer = Trainer(
            config, session.model, self.trainable, pictures, self.folder, self._callbacks(pictures), self._commands()
        )
        begun = trainer.resume()
        self.losses = [list(row[:2]) for row in self.folder.losses()]
        self.previews = [preview for preview in _saved_previews(self.folder) if preview["step"] <= begun]
        job.data.update(losses=_thinned(self.losses), previews=list(self.previews))
        if self.resume:
            job.say(f"Going on after step {begun}.")
        job.begin(begun, trainer.last_step, "training")
        finished = trainer.run()
        files, published = self._hand_over(trainer.step)
        job.data.update(
            losses=_thinned(self.losses), stopped=not finished, files=list(map(str, files)), published=str(published)
        )
        job.say(f"{'Finished' if finished else 'Stopped'} after step {trainer.step}; saved in {self.folder.path}.")
        return RunResult(self.folder.path, trainer.step, not finished, files, published)

    def _report(self, findings: list[Finding]) -> None:
        for finding in findings:
            self.job.say(f"[{finding.severity.value}] {finding.problem} {finding.remedy}".rstrip())
        self.job.data["findings"] = self.job.data.get("findings", []) + [finding.to_json() for finding in findings]

    def _record(self, pictures: TrainingSet) -> dict[str, Any]:
        import torch

        return {
            "version": RECORD_VERSION,
            "begun": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "config": options.to_json(self.config),
            "checkpoint": {"name": self.session.checkpoint.name, "sha256": self.session.checkpoint_hash},
            "vae": self.session.model.vae_hash,
            "network": self.trainable.description(),
            "dataset": {"fingerprint": pictures.fingerprint(), "pictures": len(pictures.pictures)},
            "versions": {"dsm": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "host": self.host.name,
        }

    def _callbacks(self, pictures: TrainingSet) -> Any:
        from lib_dsm.training.loop import Callbacks

        def stepped(report: StepReport) -> None:
            self.losses.append([report.step, report.loss])
            # Only when a whole point of the thinned curve has come, so that long runs do not slow down.
            if len(self.losses) % _points_each(self.losses) == 0:
                self.job.data["losses"] = _thinned(self.losses)
            text = f"loss {report.loss:.4f}, rate {report.learning_rate:g}"
            self.job.progress(report.step, text=text)
            self.session.progress(report.step, self.job.total, text)

        return Callbacks(
            stepped=stepped,
            preview=lambda step: self._preview(step, pictures),
            write_network=self._write_network,
            saved=lambda step, path: self.job.say(f"Saved step {step}."),
        )

    def _commands(self) -> Any:
        from lib_dsm.training.loop import Commands

        return Commands(
            stop=lambda: self.job.cancel_requested or self.session.stop_requested(),
            save=lambda: self.job.asked("save"),
            preview=lambda: self.job.asked("preview"),
        )

    def _embedding(self, step: int) -> Any:
        from lib_dsm.networks.embedding import Embedding

        return Embedding(
            name=self.config.name,
            vectors=self.trainable.state()["vectors"],
            step=step,
            checkpoint_name=Path(self.session.checkpoint.name).stem,
            checkpoint_hash=self.session.checkpoint_hash,
            clip_skip=self.config.clip_skip,
        )

    def _write_network(self, step: int, folder: Path) -> None:
        from lib_dsm.networks.embedding import save_pt, save_safetensors

        embedding = self._embedding(step)
        save_safetensors(embedding, folder / f"{self.config.name}.safetensors")
        save_pt(embedding, folder / f"{self.config.name}.pt")

    def _hand_over(self, step: int) -> tuple[list[Path], Path]:
        """Copy the saved state's files beside the run's folder, and to where the host looks for them."""
        name, outputs = self.config.name, _outputs(self.folder)
        sources = [self.folder.state_file(step, f"{name}.safetensors"), self.folder.state_file(step, f"{name}.pt")]
        previews = [Path(preview["path"]) for preview in self.previews if preview["step"] == step]
        files = []
        for source in [*sources, *previews[:1]]:
            target = self.folder.path.parent / f"{name}{source.suffix}"
            outputs.put(target, source.read_bytes())
            files.append(target)
        if not previews:  # one of an earlier step would hold that step's vectors
            outputs.drop(self.folder.path.parent / f"{name}.png")
        published = self.host.folders.embeddings / f"{name}.safetensors"
        for suffix in EMBEDDING_SUFFIXES:
            outputs.keep_foreign(published.with_suffix(suffix))
        outputs.put(published, sources[0].read_bytes())
        return files, published

    def _preview(self, step: int, pictures: TrainingSet) -> None:
        import torch

        from lib_dsm.networks.embedding import save_png

        for number, request in enumerate(self.config.previews, start=1):
            filled = self._filled(request, number, pictures)
            try:
                with torch.no_grad(), self.trainable.applied(self.session.model) as replacements:
                    image = self.session.preview(filled, replacements, self.config.clip_skip)
            except Exception as error:  # no picture is worth a training
                logger.warning("The preview of step %d failed", step, exc_info=True)
                self.job.say(f"Preview {number} of step {step} failed: {type(error).__name__}: {error}")
                continue
            path = self.folder.images / f"step-{step:06d}-{number}.png"
            save_png(self._embedding(step), image, path)
            self.previews = [preview for preview in self.previews if preview["path"] != str(path)]
            self.previews.append({"step": step, "path": str(path), "prompt": filled.prompt})
            self.job.data["previews"] = list(self.previews)
            self.job.show(path)

    def _filled(self, request: PreviewRequest, number: int, pictures: TrainingSet) -> PreviewRequest:
        from lib_dsm.training.captions import FILEWORDS, fill

        prompt = request.prompt or self.config.template[0]
        words = ", ".join(pictures.pictures[(number - 1) % len(pictures.pictures)].tags) if FILEWORDS in prompt else ""
        negative = fill(request.negative, self.config.name, words)
        return dataclasses.replace(request, prompt=fill(prompt, self.config.name, words), negative=negative)


def past_run(host: Host, path: Path) -> Job:
    """A run of an earlier time as a finished job, so that a page can show its curve, previews and files.

    Raises:
        InputError: the folder is no run's, or its record is damaged.
    """
    from lib_dsm.training.run_folder import RunFolder

    folder = RunFolder(path)
    config = options.from_json(RunConfig, folder.read_record().get("config"), "run settings")
    losses = [list(row[:2]) for row in folder.losses()]
    done = max([*folder.saved_steps(), *(int(step) for step, _ in losses)], default=0)
    published = host.folders.embeddings / f"{config.name}.safetensors"
    job = Job(f"Training {config.name}", "steps")
    job.data.update(
        kind="training",
        name=config.name,
        run_folder=str(path),
        clip_skip=config.clip_skip,
        losses=_thinned(losses),
        previews=_saved_previews(folder),
        published=str(published) if published.is_file() else None,
        stopped=done < config.max_steps,
    )
    job.run(lambda job: job.progress(done, config.max_steps))
    return job


def _saved_previews(folder: RunFolder) -> list[dict[str, Any]]:
    found = sorted(folder.images.glob("step-*.png")) if folder.images.is_dir() else []
    return [{"step": int(path.stem.split("-")[1]), "path": str(path), "prompt": ""} for path in found]


def _facts(host: Host, config: RunConfig, plan: Plan, session: TrainingSession, folder: RunFolder, resume: bool) -> Any:
    from lib_dsm.guards.facts import RunFacts

    texts = {config.name, config.init_text, *(", ".join(picture.tags) for picture in plan.pictures)}
    saved = folder.saved_steps() if resume else []
    return RunFacts(
        config=config,
        plan=plan,
        token_counts={text: len(session.model.tokenize(text)) for text in texts},
        foreign_embeddings=frozenset(_embedding_names(host.folders.embeddings)),
        record=folder.read_record() if resume else None,
        saved_step=saved[-1] if saved else 0,
        published=bool(saved) and _is_published(host, config, folder, saved[-1]),
        checkpoint_hash=session.checkpoint_hash,
        vae_hash=session.model.vae_hash,
        vae_replaced=session.vae_replaced,
    )


def _embedding_names(folder: Path) -> Iterator[str]:
    if folder.is_dir():
        for path in folder.rglob("*"):
            if path.suffix.lower() in EMBEDDING_SUFFIXES and not path.name.startswith("."):
                yield path.stem.lower()


def _outputs(folder: RunFolder) -> Outputs:
    return Outputs(folder.path / "outputs.json")


def _is_published(host: Host, config: RunConfig, folder: RunFolder, step: int) -> bool:
    """Whether what the host has is the result of that step."""
    published = host.folders.embeddings / f"{config.name}.safetensors"
    saved = folder.state_file(step, published.name)
    return published.is_file() and saved.is_file() and published.read_bytes() == saved.read_bytes()


def _points_each(points: list[list[float]]) -> int:
    return max(1, -(-len(points) // CURVE_POINTS))


def _thinned(points: list[list[float]]) -> list[list[float]]:
    """At most `CURVE_POINTS` points; each stands for the mean of its neighbours."""
    width = _points_each(points)
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return [[group[-1][0], sum(point[1] for point in group) / len(group)] for group in groups]
