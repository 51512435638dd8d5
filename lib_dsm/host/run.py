"""A training run from its settings to the finished files, on any host."""

from __future__ import annotations

import dataclasses
import logging
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_dsm import __version__, options
from lib_dsm.errors import Cancelled, InputError, StorageError
from lib_dsm.files import move_aside, write_bytes
from lib_dsm.guards.finding import Finding, demand
from lib_dsm.host.facts import TRAINED_WITH, given_start, run_facts
from lib_dsm.host.infotext import KEY, with_network
from lib_dsm.host.kinds import kind_of
from lib_dsm.host.monitor import Monitor, record_facts
from lib_dsm.host.previews import demand_previews
from lib_dsm.host.protocol import Host, TrainingSession
from lib_dsm.host.publish import announce, publish, published_file, published_step, step_files
from lib_dsm.host.templates import with_host_template
from lib_dsm.jobs import Job
from lib_dsm.training.config import PreviewRequest, RunConfig
from lib_dsm.training.settings_file import RECORD_VERSION
from lib_dsm.training.verdict import Validation

if TYPE_CHECKING:
    from PIL.Image import Image

    from lib_dsm.guards.check import Guard
    from lib_dsm.networks.trainable import Trainable
    from lib_dsm.training.loop import StepReport
    from lib_dsm.training.pictures import Plan, TrainingSet
    from lib_dsm.training.run_folder import RunFolder
    from lib_dsm.training.tensorboard import TensorBoard
    from lib_dsm.training.validation import FixedDraws

logger = logging.getLogger("dsm")
NO_PREVIEW = "The run has no preview prompt, so there is no picture to draw. Give the next run one."


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


def examine_run(host: Host, config: RunConfig, resume: bool = False) -> tuple[list[Finding], list[Guard]]:
    """What the guards say of a run, without training, and those that looked and have nothing to say.

    Raises:
        DsmError: the dataset or the checkpoint cannot be used at all.
    """
    from lib_dsm.guards.check import check, passed
    from lib_dsm.training.pictures import plan_pictures
    from lib_dsm.training.schedule import parse_learning_rate

    parse_learning_rate(config.learning_rate)
    config = with_host_template(host, config)
    demand_previews(host, config)
    folder = run_folder(host, config)
    plan = plan_pictures(config)
    with host.training_session(config, brief=True) as session:
        start = given_start(host, config, session, folder, resume)
        facts = run_facts(host, config, plan, session, folder, resume, start)
        findings = check(facts)
        return findings, passed(facts, findings)


def train(host: Host, config: RunConfig, job: Job, resume: bool = False) -> RunResult:
    """Train to the end, or until the job is cancelled; a stopped run is saved and can be resumed.

    While it runs `job.data` holds, as `past.past_run` gives for a run of an earlier time:

    - `kind` "training", `network` (its kind, as in the settings), `name`, `run_folder`, `clip_skip`, `findings` (of the
      guards, those on watch included; a past run has none);
    - `losses` [[step, loss], …] and `curves`, one list for each of `step`, `loss`, `smoothed`, `learning_rate`,
      `gradient_norm`, `vector_norm` (over all vectors), `mean_norm` (mean length of a vector), `movement` (mean
      distance of a vector from its start) and `seconds` (of one step), and `bands`, four such lists: the loss of the
      draws whose timestep lies between `band_edges` [0, 250, 500, 750, 1000]. All are equally long, at most 500
      points; a point stands for the mean of its steps (the last of them for `step`, `smoothed`, the rate, norms and
      movement), None where nothing is known, as in runs of earlier versions;
    - `vocabulary` {low, median, high}: 5, 50 and 95 % of the lengths of the model's own words, to hold an embedding's
      `mean_norm` and `movement` against; None if unknown;
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
    - `saved` [step, …], which `host.steps` can use or continue from, as it can those of the previews, and
      `published_step`, the step that the published file holds, None if there is none;
    - `requests`, how many pictures a preview has, and `learning_rate` as the settings have it;
    - `ended`, a sentence why the run stopped by itself (`stop_when`), else "";
    - afterwards `files`, `published`, `usage` (how it stands in a prompt) and `stopped` (whether steps are left because
      somebody stopped it).

    Raises:
        GuardError: a guard blocks, or stopped the run in its course.
        DsmError: the dataset, the checkpoint or the disk cannot be used.
    """
    from lib_dsm.training.pictures import plan_pictures
    from lib_dsm.training.schedule import parse_learning_rate

    parse_learning_rate(config.learning_rate)
    config = with_host_template(host, config)
    demand_previews(host, config)
    if not config.template:  # the guard that says so may be overridden, and without a line there is no prompt
        raise InputError("The prompt template is empty.", "Write [name] into it.")
    folder = run_folder(host, config)
    if resume and not folder.exists():
        raise InputError(f'There is no run "{config.name}" in {folder.path.parent} to resume.', "Start it anew.")
    plan = plan_pictures(config)
    job.data.update(
        kind="training", network=config.kind, name=config.name, run_folder=str(folder.path), clip_skip=config.clip_skip
    )
    job.data.update(requests=len(config.previews), learning_rate=config.learning_rate)
    job.progress(0, config.max_steps, "loading the model")
    with host.training_session(config) as session, folder.locked():
        result = _Run(host, config, job, session, folder, plan, resume).train()
    announce(host, job, config)
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
        self.kind = kind_of(config)
        self.trainable: Trainable
        self.monitor: Monitor
        self.draws: FixedDraws
        self.board: TensorBoard | None = None
        self._stop_asked = False

    def train(self) -> RunResult:
        from lib_dsm.guards.check import check, check_pictures
        from lib_dsm.guards.watch import watch_latents
        from lib_dsm.training import memory
        from lib_dsm.training.config import EMBEDDING
        from lib_dsm.training.latents import LatentCache
        from lib_dsm.training.loop import Trainer
        from lib_dsm.training.pictures import load_pictures
        from lib_dsm.training.validation import FixedDraws, split, vocabulary

        config, job, session = self.config, self.job, self.session
        before: dict[str, Any] = {}  # the record of the run that goes on
        if self.folder.exists() and not (self.resume or config.overwrite):
            raise InputError(
                f'There is a run "{config.name}" in {self.folder.path.parent} already.',
                "Resume it, choose another name, or allow overwriting: the old run is kept under another name.",
            )
        start = given_start(self.host, config, session, self.folder, self.resume)
        facts = run_facts(self.host, config, self.plan, session, self.folder, self.resume, start)
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
        start = start or self.kind.new_start(config, session.model)
        self.trainable = self.kind.trainable(config, start, session.model.device)
        known = record_facts(
            vocabulary(session.model) if config.kind == EMBEDDING else None,
            len(self.draws.pictures),
            bool(parts.held_out.pictures),
            self.draws.key(),
            len(session.model.alphas_cumprod),
        )
        if self.resume:
            before = self.folder.read_record()
            record = {**before, "config": options.to_json(config), **known, "ended": ""}
            record.pop(TRAINED_WITH, None)
            if before.get("ended"):  # and it shall go on: the verdict that ended it does not end it again
                record["went_on_after"] = max(self.folder.saved_steps(), default=0)
            if self.folder.validations() and not self.folder.validations(self.draws.key()):
                job.say("What validations look at has changed, so their series begins anew.")
        else:
            if self.folder.exists():
                job.say(f"The earlier run is kept as {move_aside(self.folder.path).name}.")
            record = {**self._record(pictures), **known}
        self.folder.write_record(record)
        self.monitor = Monitor(job, config, self.folder, record)
        with self.trainable.applied(session.model):  # what it computes takes memory as well
            parts_of_batches = memory.plan(config, session.model, set(parts.training.sizes), job.say)
        trainer = Trainer(
            config,
            session.model,
            self.trainable,
            parts.training,
            self.folder,
            self._callbacks(pictures),
            self._commands(),
            parts_of_batches,
        )
        begun = trainer.resume(start.step, self.kind.moments(start))
        self.monitor.read(begun)
        if self.resume and self._was_to_end(before, begun, record.get("went_on_after")):
            self.monitor.end_if_due()
        published = published_file(self.host.folders, config)
        job.data["published_step"] = published_step(published, self.folder, config)
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
            if self.monitor.ended and config.preview_every:  # an end as well, with a picture of it
                self._preview(trainer.step, pictures)
        finally:
            if self.board is not None:
                self.board.close()
        handed = step_files(self.folder, config, trainer.step, (picture.path for picture in pictures.pictures))
        files = publish(self.folder, self.host.folders, config, handed)
        self.monitor.finish()
        ended = self.monitor.ended
        stopped = not finished and not ended
        job.data.update(
            stopped=stopped,
            files=list(map(str, files)),
            published=str(published),
            published_step=trainer.step,
            usage=self.kind.usage(config.name),
        )
        if ended:
            self.folder.write_record({**record, "ended": ended})
            job.say(ended)
        job.say(f"{'Stopped' if stopped else 'Finished'} after step {trainer.step}; saved in {self.folder.path}.")
        return RunResult(self.folder.path, trainer.step, stopped, files, published)

    def _was_to_end(self, before: dict[str, Any], begun: int, went_on_after: int | None) -> bool:
        """Whether the run would not have gone on after `begun`, had it not been killed between its verdict and its end.

        A verdict that another setting passed over, or that the person did, does not end it.
        """
        same = before.get("config", {}).get("stop_when") == self.config.stop_when
        return same and begun != went_on_after and self.monitor.is_validated(begun)

    def _open_board(self, begun: int) -> None:
        from lib_dsm.training.tensorboard import open_tensorboard

        try:
            self.board = open_tensorboard(self.folder.path / "tensorboard", begun)
        except StorageError as error:  # no curve is worth a training
            self.job.say(str(error))
            return
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
            return self._stopped() or bool(self.monitor.ended)

        def preview() -> bool:
            asked = self.job.asked("preview")
            if asked and not self.config.previews:
                self.job.say(NO_PREVIEW)
            return asked and bool(self.config.previews)

        return Commands(stop=stop, save=lambda: self.job.asked("save"), preview=preview)

    def _stopped(self) -> bool:
        """Whether the person wants it to end; the host forgets that it was asked, so it is remembered here."""
        self._stop_asked = self._stop_asked or self.job.cancel_requested or self.session.stop_requested()
        return self._stop_asked

    def _demand_going_on(self) -> None:
        if self._stopped():
            raise Cancelled()

    def _network(self, step: int) -> Any:
        return self.kind.network(self.config, self.session, self.trainable, step)

    def _write_network(self, step: int, folder: Path) -> None:
        network = self._network(step)
        for suffix in self.kind.saved:
            self.kind.save(network, folder / f"{self.config.name}{suffix}")

    def _preview(self, step: int, pictures: TrainingSet) -> None:
        """Draw the pictures of a step that are not there yet; a stop ends it, and a resumed run draws the rest."""
        for index, request in enumerate(self.config.previews):
            if self.folder.preview_file(step, index).is_file():
                continue
            filled = self._filled(request, index, pictures)
            try:
                self._demand_going_on()
                image = self._draw(filled)
            except Cancelled:
                self.job.say(f"Stopped before preview {index + 1} of step {step} was done; it is drawn on resuming.")
                return
            except Exception as error:  # no picture is worth a training
                logger.warning("The preview of step %d failed", step, exc_info=True)
                self.job.say(f"Preview {index + 1} of step {step} failed: {type(error).__name__}: {error}")
                continue
            self._keep_preview(step, index, filled, image)

    def _draw(self, request: PreviewRequest) -> Image:
        import torch

        strength = self.config.preview_strength
        with torch.no_grad(), self.trainable.applied(self.session.model, strength) as replacements:
            return self.session.preview(request, replacements, self.config.clip_skip, self._demand_going_on)

    def _keep_preview(self, step: int, index: int, request: PreviewRequest, image: Image) -> None:
        path = self.folder.preview_file(step, index)
        asked = {"prompt": request.prompt, "seed": request.seed, "width": request.width, "height": request.height}
        preview = {"step": step, "path": str(path), "index": index, **asked}
        self.folder.add_preview(step, preview)
        network = self._network(step) if self.kind.in_previews else None
        usage = self.kind.usage(self.config.name, self.config.preview_strength)
        parameters = with_network(str(image.info.get(KEY, "")), request.prompt, usage if network is None else "")
        write_bytes(path, self.kind.picture(network, image, parameters))
        self.monitor.previewed(preview)
        if self.board is not None:
            self.board.preview(step, index, image)
        self.job.show(path)

    def _filled(self, request: PreviewRequest, index: int, pictures: TrainingSet) -> PreviewRequest:
        from lib_dsm.training.captions import FILEWORDS, fill

        prompt = request.prompt or self.config.template[0]
        words = ", ".join(pictures.pictures[index % len(pictures.pictures)].tags) if FILEWORDS in prompt else ""
        negative = fill(request.negative, self.config.name, words)
        return dataclasses.replace(request, prompt=fill(prompt, self.config.name, words), negative=negative)
