"""The whole way on the demo world: from pictures of a character that was held out to its embedding and a LoRA file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.demo import world
from lib_dsm.demo.install import CHECKPOINT, TAGGER
from lib_dsm.demo.pictures import CHARACTER, draw_pictures
from lib_dsm.files import read_json, sha256, write_json
from lib_dsm.host.studio import StudioHost
from lib_dsm.jobs import Job
from lib_dsm.training.config import PreviewRequest, RunConfig

if TYPE_CHECKING:
    from lib_dsm.dataset.project import Project

NAME = "zorgle"
STEPS = 300
LEARNING_RATE = "0.1:200, 0.02"
_BATCH = 4
PROMPT = "solo, [name], white background"
_JUDGED = 12  # pictures generated to count the attributes that came out right

NewJob = Callable[[str, str], Job]


@dataclass(frozen=True)
class Measures:
    """What the training did. Losses are means over noise it never drew; `right` are shares of attributes, 0 to 1."""

    loss_before: float
    loss_after: float
    loss_of_true_tags: float
    draws_improved: float
    right_before: float
    right_after: float


@dataclass(frozen=True)
class Walk:
    """Where everything is, and how well it went."""

    project: Path
    run: Path
    embedding: Path
    lora: Path
    character: list[str]
    pruned: list[str]
    measures: Measures


def walk(out: Path, steps: int = STEPS, new_job: NewJob = Job) -> Walk:
    """Draw, crop, tag, prune, train, measure and bundle into `out`. What is there already is not done again.

    `new_job` makes the job of each part from its title and unit.
    """
    host = StudioHost(out / "studio")
    character = world.character_of(CHARACTER)
    project = _pictures(out, new_job)
    pruned = _captions(project, new_job)
    config = run_config(project, steps)
    _train(host, config, new_job)
    embedding = host.folders.embeddings / f"{NAME}.safetensors"
    lora = _bundle(host, embedding, new_job)
    measures = _measure(host, config, character, out, embedding, new_job)
    constant = [tag for name in world.CONSTANT for tag in world.attribute_tags(character, name)]
    return Walk(project.root, host.folders.logs / NAME, embedding, lora, constant, pruned, measures)


def run_config(project: Project, steps: int) -> RunConfig:
    """The settings of the demo's run: the guide's, in the demo world's small sizes."""
    requests = tuple(
        PreviewRequest(prompt=PROMPT, seed=seed, steps=20, cfg=3.0, width=64, height=64) for seed in (1, 2)
    )
    return RunConfig(
        name=NAME,
        checkpoint=str(CHECKPOINT),
        dataset=str(project.training_folder()),
        vectors=8,
        init_text="solo",
        learning_rate=LEARNING_RATE,
        max_steps=steps,
        batch_size=_BATCH,
        gradient_accumulation=1,
        width=96,
        height=64,
        size_step=8,
        timestep_sampling="logit-normal",
        save_every=100,
        preview_every=100,
        previews=requests,
    )


def _pictures(out: Path, new_job: NewJob) -> Project:
    from lib_dsm.cropping.plan import CropOptions, plan_picture
    from lib_dsm.cropping.propose import plan_crops
    from lib_dsm.cropping.write import write_plan
    from lib_dsm.dataset.pictures import picture_size
    from lib_dsm.dataset.project import create_project

    project = create_project(out / "project")

    def crop(job: Job) -> None:
        keep = CropOptions(mode="keep")
        split = CropOptions(mode="split", width=64, height=64)
        plan = plan_crops(project.imgs, keep, project.dataset_imgs)
        items = [item for item in plan.items if not item.source.startswith("sheet")]
        for sheet in sorted(project.imgs.glob("sheet *.png")):
            items += plan_picture(sheet.name, picture_size(sheet), split)
        write_plan(replace(plan, items=tuple(items)), project.imgs, project.dataset_imgs, keep, job)

    new_job("Drawing a character that was held out", "pictures").run(lambda job: draw_pictures(project, job))
    new_job("Cropping: long pictures are split in two", "pictures").run(crop)
    return project


def _captions(project: Project, new_job: NewJob) -> list[str]:
    """Tag, prune what describes the character, fill SET; the tags that were pruned."""
    from lib_dsm.dataset.matching import literal
    from lib_dsm.dataset.tag_index import TagIndex
    from lib_dsm.pruning.character import character_tags
    from lib_dsm.pruning.prune import PruneOptions, plan_prune
    from lib_dsm.tagging.options import TagOptions
    from lib_dsm.tagging.run import tag_folder

    record = project.metadata / "demo-pruned.json"
    folder = project.dataset_imgs
    if not record.is_file():
        options = TagOptions(model=str(TAGGER), threshold=0.5)
        new_job("Tagging with the micro tagger", "pictures").run(
            lambda job: tag_folder(folder, options, project.metadata, job)
        )
        index = TagIndex.read(folder)
        proposed = [proposal.tag for proposal in character_tags(index, share=0.7)]
        write_json(record, proposed)
    pruned = [str(tag) for tag in read_json(record)]

    def prune(job: Job) -> None:
        if pruned:
            plan_prune(folder, PruneOptions(remove=tuple(map(literal, pruned)))).apply(job)

    new_job("Pruning what describes the character", "captions").run(prune)
    new_job("Filling SET", "pictures").run(project.fill_set)
    return pruned


def _train(host: StudioHost, config: RunConfig, new_job: NewJob) -> None:
    from lib_dsm.host.run import run_folder, train

    folder = run_folder(host, config)
    steps = folder.saved_steps()
    published = host.folders.embeddings / f"{NAME}.safetensors"
    if steps and steps[-1] >= config.max_steps and published.is_file():
        return
    job = new_job(f"Training {NAME}", "steps")
    job.run(lambda job: train(host, config, job, resume=folder.exists()))


def _bundle(host: StudioHost, embedding: Path, new_job: NewJob) -> Path:
    from lib_dsm.extraction.embedding_lora import embedding_to_lora

    target = host.folders.lora / f"{NAME}-lora.safetensors"
    job = new_job("Bundling the embedding into a LoRA file", "files")
    job.run(lambda job: embedding_to_lora(embedding, target, overwrite=True))
    return target


def _measure(
    host: StudioHost, config: RunConfig, character: world.Character, out: Path, embedding: Path, new_job: NewJob
) -> Measures:
    from lib_dsm.networks.embedding import load_embedding
    from lib_dsm.networks.textual_inversion import TextualInversion, initial_vectors
    from lib_dsm.training.latents import LatentCache
    from lib_dsm.training.pictures import load_pictures, plan_pictures
    from lib_dsm.training.validation import held_out_losses

    record = out / "measures.json"
    digest = sha256(embedding)
    if record.is_file() and (known := read_json(record)).get("embedding") == digest:
        return Measures(**known["measures"])

    def work(job: Job) -> Measures:
        from lib_dsm.demo.judge import attributes_right

        total = 2 * _JUDGED
        with host.training_session(config) as session:
            model = session.model
            cache = LatentCache(host.folders.data / "latents", model)
            pictures, _ = load_pictures(plan_pictures(config).pictures, cache, lambda done, total: job.check())
            losses, shares = [], []
            before = initial_vectors(model, config.init_text, config.vectors)
            for index, vectors in enumerate((before, load_embedding(embedding).vectors)):
                network = TextualInversion(NAME, vectors, model.device)
                losses.append(held_out_losses(model, network, pictures, config))
                right = 0
                with network.applied(model) as replacements:
                    for seed in range(_JUDGED):
                        job.check()
                        prompt = PROMPT.replace("[name]", NAME)
                        request = replace(config.previews[0], prompt=prompt, seed=1000 + seed)
                        image = session.preview(request, replacements, config.clip_skip)
                        count, of = attributes_right(image, character)
                        right += count
                        job.progress(index * _JUDGED + seed + 1, total)
                shares.append(right / (of * _JUDGED))
            told = replace(config, template=("[filewords]",))
            network = TextualInversion(NAME, before, model.device)
            true_tags = held_out_losses(model, network, pictures, told)
        return Measures(
            loss_before=float(losses[0].mean()),
            loss_after=float(losses[1].mean()),
            loss_of_true_tags=float(true_tags.mean()),
            draws_improved=float((losses[1] < losses[0]).float().mean()),
            right_before=shares[0],
            right_after=shares[1],
        )

    measures: Measures = new_job("Counting the attributes that come out right", "pictures").run(work)
    write_json(record, {"embedding": digest, "measures": asdict(measures)})
    return measures


def summary(result: Walk) -> str:
    """What a person wants to read at the end."""
    measures = result.measures
    return "\n".join(
        (
            f"The character:    {', '.join(result.character)}",
            f"Pruned tags:      {', '.join(result.pruned)}",
            f"Held-out loss:    {measures.loss_before:.4f} before, {measures.loss_after:.4f} after training "
            f"({measures.draws_improved:.0%} of all draws fell)",
            f"Attributes right: {measures.right_before:.0%} before, {measures.right_after:.0%} after training",
            f"Project:          {result.project}",
            f"Run:              {result.run}",
            f"Embedding:        {result.embedding}",
            f"LoRA file:        {result.lora}",
        )
    )
