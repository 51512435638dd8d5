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
from lib_dsm.host.monitor import Monitor, published_step, record_facts
from lib_dsm.host.outputs import Outputs
from lib_dsm.host.protocol import Host, TrainingSession
from lib_dsm.jobs import Job
from lib_dsm.training.config import PreviewRequest, RunConfig
from lib_dsm.training.verdict import Validation

if TYPE_CHECKING:
    from lib_dsm.guards.check import Guard
    from lib_dsm.networks.textual_inversion import Start, TextualInversion
    from lib_dsm.training.loop import StepReport
    from lib_dsm.training.pictures import Plan, TrainingSet
    from lib_dsm.training.run_folder import RunFolder
    from lib_dsm.training.tensorboard import TensorBoard
    from lib_dsm.training.validation import FixedDraws

logger = logging.getLogger("dsm")
RECORD_VERSION = 1
LOOKING_SECONDS = 10.0  # at most, each time; what is known of the pictures is kept
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
    """What the guards say of a run, without training; raises as `examine_run` does."""
    return examine_run(host, config, resume)[0]


def examine_run(host: Host, config: RunConfig, resume: bool = False) -> tuple[list[Finding], list[Guard]]:
    """What the guards say of a run, without training, and those that looked and have nothing to say.

    Raises:
        DsmError: the dataset or the checkpoint cannot be used at all.
    """
    from lib_dsm.guards.check import check, passed
    from lib_dsm.training.pictures import plan_pictures
    from lib_dsm.training.schedule import parse_learning_rate
    from lib_dsm.training.templates import with_template

    parse_learning_rate(config.learning_rate)
    config = with_template(config)
    folder = run_folder(host, config)
    plan = plan_pictures(config)
    with host.training_session(config) as session:
        start = _embedded_start(host, config, session, folder, resume)
        facts = _facts(host, config, plan, session, folder, resume, start)
        findings = check(facts)
        return findings, passed(facts, findings)


def train(host: Host, config: RunConfig, job: Job, resume: bool = False) -> RunResult:
    """Train to the end, or until the job is cancelled; a stopped run is saved and can be resumed.

    While it runs `job.data` holds, as `past_run` gives for a run of an earlier time:

    - `kind` "training", `name`, `run_folder`, `clip_skip`, `findings` (of the guards, those on watch included; a past
      run has none);
    - `losses` [[step, loss], …] and `curves`, one list for each of `step`, `loss`, `smoothed`, `learning_rate`,
      `gradient_norm`, `vector_norm` (over all vectors), `mean_norm` (mean length of a vector), `movement` (mean
      distance of a vector from its start) and `seconds` (of one step), and `bands`, four such lists: the loss of the
      draws whose timestep lies between `band_edges` [0, 250, 500, 750, 1000]. All are equally long, at most 500
      points; a point stands for the mean of its steps (the last of them for `step`, `smoothed`, the rate, norms and
      movement), None where nothing is known, as in runs of earlier versions;
    - `vocabulary` {low, median, high}: 5, 50 and 95 % of the lengths of the model's own words, to hold `mean_norm` and
      `movement` against; None if unknown;
    - `speed` {steps, pictures, left}: steps and pictures a second (of late; of the whole run once it is over) and the
      seconds left, None when unknown;
    - `validation`, None without any: {`held_out` (whether its pictures are left out of training), `pictures` (how
      many), `draws` (losses in one validation), `note` (a sentence on that), `share` (of the time, 0 to 1), `series`
      [{step, loss, bands (four), change, error, z}, …] (at most 500; `change` is the mean paired difference from the
      validation before, `error` its standard error, `z` one by the other, None where there is none), `best` (step)};
    - `verdict`, None as long as it is too early: {`state` "improving", "flat", "overtrained" or "broken", `reason` (a
      sentence with the number), `number`, `advice` (a sentence), `step` (of the validation), `best` (step),
      `best_saved` (the saved step nearest to it, None if nothing is saved)};
    - `previews` [{step, path, prompt, index, seed, width, height}, …]: `index` counts the requests of the settings
      from 0, so steps go across and indices down; None where an old run does not tell;
    - `saved` [step, …], which `host.steps` can use or continue from, and `published_step`, the step that the published
      file holds, None if there is none;
    - `ended`, a sentence why the run stopped by itself (`stop_when`), else "";
    - afterwards `files`, `published` and `stopped` (whether steps are left because somebody stopped it).

    Raises:
        GuardError: a guard blocks, or stopped the run in its course.
        DsmError: the dataset, the checkpoint or the disk cannot be used.
    """
    from lib_dsm.training.pictures import plan_pictures
    from lib_dsm.training.schedule import parse_learning_rate
    from lib_dsm.training.templates import with_template

    parse_learning_rate(config.learning_rate)
    config = with_template(config)
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
        self.trainable: TextualInversion
        self.monitor: Monitor
        self.draws: FixedDraws
        self.board: TensorBoard | None = None

    def train(self) -> RunResult:
        from lib_dsm.guards.check import check, check_pictures
        from lib_dsm.guards.watch import watch_latents
        from lib_dsm.host.starting import starting_point
        from lib_dsm.networks.textual_inversion import TextualInversion
        from lib_dsm.training import memory
        from lib_dsm.training.latents import LatentCache
        from lib_dsm.training.loop import Trainer
        from lib_dsm.training.pictures import load_pictures
        from lib_dsm.training.validation import FixedDraws, split, vocabulary

        config, job, session = self.config, self.job, self.session
        if self.folder.exists() and not (self.resume or config.overwrite):
            raise InputError(
                f'There is a run "{config.name}" in {self.folder.path.parent} already.',
                "Resume it, choose another name, or allow overwriting: the old run is kept under another name.",
            )
        start = _embedded_start(self.host, config, session, self.folder, self.resume)
        facts = _facts(self.host, config, self.plan, session, self.folder, self.resume, start)
        findings = check(facts)
        self._report(findings)
        demand(findings, config.override)
        cache = LatentCache(self.host.folders.data / "latents", session.model)

        def encoding(done: int, total: int) -> None:
            job.check()
            job.progress(0, config.max_steps, f"preparing pictures, {done} of {total}")

        pictures, broken = load_pictures(
            self.plan.pictures, cache, encoding, mirror=config.flip > 0, alpha=config.alpha_loss
        )
        for _, sentence in broken:
            job.say(f"Left out: {sentence}")
        for picture in pictures.pictures:
            watch_latents(picture.path.name, picture.posterior.is_finite())
        self._report(check_pictures(facts, pictures))
        parts = split(pictures, config.validation_share, config.seed)
        if config.validation_share > 0 and not parts.held_out.pictures:
            job.say("One picture alone cannot be held out, so validations use it as the training does.")
        validated = parts.held_out if parts.held_out.pictures else parts.training
        self.draws = FixedDraws(validated.pictures, config, session.model)
        start = start or starting_point(self.host, config, session.model, saved=False)
        self.trainable = TextualInversion(config.name, start.vectors, session.model.device)
        facts = record_facts(
            vocabulary(session.model),
            len(self.draws.pictures),
            bool(parts.held_out.pictures),
            self.draws.key(),
            len(session.model.alphas_cumprod),
        )
        if self.resume:
            record = {**self.folder.read_record(), "config": options.to_json(config), **facts, "ended": ""}
            if self.folder.validations() and not self.folder.validations(self.draws.key()):
                job.say("What validations look at has changed, so their series begins anew.")
        else:
            if self.folder.exists():
                job.say(f"The earlier run is kept as {move_aside(self.folder.path).name}.")
            record = {**self._record(pictures), **facts}
        self.folder.write_record(record)
        self.monitor = Monitor(job, config, self.folder, record)
        trainer = Trainer(
            config,
            session.model,
            self.trainable,
            parts.training,
            self.folder,
            self._callbacks(pictures),
            self._commands(),
            memory.plan(config, session.model, set(parts.training.sizes), job.say),
        )
        begun = trainer.resume(start.step, start.moments)
        self.monitor.read(begun)
        published = self.host.folders.embeddings / f"{config.name}.safetensors"
        job.data["published_step"] = published_step(published, self.folder)
        if self.resume:
            job.say(f"Going on after step {begun}.")
        elif start.note:
            job.say(start.note)
        if config.tensorboard:
            self._open_board(begun)
        job.begin(begun, trainer.last_step, "training")
        self.monitor.begin(begun)
        try:
            finished = trainer.run()
        finally:
            if self.board is not None:
                self.board.close()
        files, published = self._hand_over(trainer.step)
        self.monitor.finish()
        ended = self.monitor.ended
        stopped = not finished and not ended
        job.data.update(
            stopped=stopped, files=list(map(str, files)), published=str(published), published_step=trainer.step
        )
        if ended:
            self.folder.write_record({**record, "ended": ended})
            job.say(ended)
        job.say(f"{'Stopped' if stopped else 'Finished'} after step {trainer.step}; saved in {self.folder.path}.")
        return RunResult(self.folder.path, trainer.step, stopped, files, published)

    def _open_board(self, begun: int) -> None:
        from lib_dsm.training.tensorboard import open_tensorboard

        self.board = open_tensorboard(self.folder.path / "tensorboard", begun)
        if self.board is None:
            self.job.say("Nothing is written for TensorBoard: it is not installed. `pip install tensorboard` adds it.")

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
            row = report.row()
            if found := self.monitor.stepped(row):
                self._report(found)
            if self.board is not None:
                self.board.step(row)
            text = f"loss {report.loss:.4f}, rate {report.learning_rate:g}"
            self.job.progress(report.step, text=text)
            self.session.progress(report.step, self.job.total, text)

        def saved(step: int, path: Path) -> None:
            self.monitor.publish_saved()
            self.job.say(f"Saved step {step}.")

        return Callbacks(
            stepped=stepped,
            preview=lambda step: self._preview(step, pictures),
            write_network=self._write_network,
            saved=saved,
            validate=self._validate,
        )

    def _validate(self, step: int) -> None:
        if self.monitor.is_validated(step):
            return
        begun = time.perf_counter()
        try:
            losses = self.draws.measure(self.session.model, self.trainable)
        except Exception as error:  # no number is worth a training
            logger.warning("The validation of step %d failed", step, exc_info=True)
            self.job.say(f"The validation of step {step} failed: {type(error).__name__}: {error}")
            return
        made = Validation(step, losses, seconds=time.perf_counter() - begun)
        self.folder.add_validation(step, self.draws.key(), made.seconds, losses)
        self._report(self.monitor.validated(made))
        if self.board is not None:
            self.board.validation(made)
        verdict = self.monitor.verdict
        told = f": {verdict.state}. {verdict.reason}" if verdict is not None else "."
        self.job.say(f"Validation at step {step}: loss {made.mean:.4f}{told}")

    def _commands(self) -> Any:
        from lib_dsm.guards.watch import watch_model
        from lib_dsm.training.loop import Commands

        def stop() -> bool:
            watch_model(self.session.moved())
            return self.job.cancel_requested or self.session.stop_requested() or bool(self.monitor.ended)

        return Commands(
            stop=stop,
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
        name, outputs = self.config.name, outputs_of(self.folder)
        sources = [self.folder.state_file(step, f"{name}.safetensors"), self.folder.state_file(step, f"{name}.pt")]
        previews = self.monitor.previews_of(step)
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

        for index, request in enumerate(self.config.previews):
            filled = self._filled(request, index, pictures)
            try:
                with torch.no_grad(), self.trainable.applied(self.session.model) as replacements:
                    image = self.session.preview(filled, replacements, self.config.clip_skip)
            except Exception as error:  # no picture is worth a training
                logger.warning("The preview of step %d failed", step, exc_info=True)
                self.job.say(f"Preview {index + 1} of step {step} failed: {type(error).__name__}: {error}")
                continue
            path = self.folder.preview_file(step, index)
            save_png(self._embedding(step), image, path)
            asked = {"prompt": filled.prompt, "seed": filled.seed, "width": filled.width, "height": filled.height}
            self.monitor.previewed({"step": step, "path": str(path), "index": index, **asked})
            if self.board is not None:
                self.board.preview(step, index, image)
            self.job.show(path)

    def _filled(self, request: PreviewRequest, index: int, pictures: TrainingSet) -> PreviewRequest:
        from lib_dsm.training.captions import FILEWORDS, fill

        prompt = request.prompt or self.config.template[0]
        words = ", ".join(pictures.pictures[index % len(pictures.pictures)].tags) if FILEWORDS in prompt else ""
        negative = fill(request.negative, self.config.name, words)
        return dataclasses.replace(request, prompt=fill(prompt, self.config.name, words), negative=negative)


def past_run(host: Host, path: Path) -> Job:
    """A run of an earlier time as a finished job, so that a page can show its curves, previews and files.

    Raises:
        InputError: the folder is no run's, or its record is damaged.
    """
    from lib_dsm.training.run_folder import RunFolder
    from lib_dsm.training.schedule import schedule_of

    folder = RunFolder(path)
    record = folder.read_record()
    config = options.from_json(RunConfig, record.get("config"), "run settings")
    job = Job(f"Training {config.name}", "steps")
    monitor = Monitor(job, config, folder, record)
    monitor.ended = str(record.get("ended") or "")
    done = max([monitor.read(), *folder.saved_steps()])
    published = host.folders.embeddings / f"{config.name}.safetensors"
    job.data.update(
        kind="training",
        name=config.name,
        run_folder=str(path),
        clip_skip=config.clip_skip,
        published=str(published) if published.is_file() else None,
        published_step=published_step(published, folder),
        stopped=done < schedule_of(config).last and not monitor.ended,
    )
    job.run(lambda job: job.progress(done, config.max_steps))
    return job


def _embedded_start(
    host: Host, config: RunConfig, session: TrainingSession, folder: RunFolder, resume: bool
) -> Start | None:
    """What a run starts from if that is an embedding."""
    from lib_dsm.host.starting import starting_point

    if not config.init_embedding:
        return None
    saved = resume and folder.load_latest() is not None
    return starting_point(host, config, session.model, saved)


def _facts(
    host: Host,
    config: RunConfig,
    plan: Plan,
    session: TrainingSession,
    folder: RunFolder,
    resume: bool,
    start: Start | None,
) -> Any:
    from lib_dsm.dataset.looks import looks
    from lib_dsm.guards.facts import RunFacts
    from lib_dsm.guards.unsuitable import begin_list, unsuitable_entry
    from lib_dsm.host.storage import storage_of

    data = host.folders.data
    saved = folder.saved_steps() if resume else []
    done = saved[-1] if saved else 0
    storage = storage_of(host.folders, folder.path.parent, config, plan, session.model.hidden_size, done)
    begin_list(data)
    unsuitable, note = unsuitable_entry(data, session.checkpoint.path.name, session.checkpoint_hash)
    texts = {config.name, config.init_text, *(", ".join(picture.tags) for picture in plan.pictures)}
    return RunFacts(
        config=config,
        plan=plan,
        token_counts={text: len(session.model.tokenize(text)) for text in texts},
        foreign_embeddings=frozenset(embedding_names(host.folders.embeddings)),
        injected=session.embeddings,
        record=folder.read_record() if resume else None,
        saved_step=done,
        published=bool(saved) and _is_published(host, config, folder, done),
        checkpoint_hash=session.checkpoint_hash,
        vae_hash=session.model.vae_hash,
        has_clip_skip=session.model.has_clip_skip,
        attention_upcast=session.model.attention_upcast,
        start=start,
        set_aside=session.set_aside,
        unsuitable=unsuitable,
        unsuitable_note=note,
        data_folder=data,
        looks=looks([picture.path for picture in plan.pictures], data / "looks.json", LOOKING_SECONDS),
        storage=tuple(storage),
    )


def embedding_names(folder: Path) -> Iterator[str]:
    """The names of all embeddings in a folder and those below it, in small letters."""
    if folder.is_dir():
        for path in folder.rglob("*"):
            if path.suffix.lower() in EMBEDDING_SUFFIXES and not path.name.startswith("."):
                yield path.stem.lower()


def outputs_of(folder: RunFolder) -> Outputs:
    """What the run has put outside its own folder."""
    return Outputs(folder.path / "outputs.json")


def _is_published(host: Host, config: RunConfig, folder: RunFolder, step: int) -> bool:
    """Whether what the host has is the result of that step, the last, or of one that was chosen instead of it."""
    published = host.folders.embeddings / f"{config.name}.safetensors"
    used = folder.read_record().get("used") or {}
    saved = folder.state_file(used["step"] if used.get("of") == step else step, published.name)
    return published.is_file() and saved.is_file() and published.read_bytes() == saved.read_bytes()
