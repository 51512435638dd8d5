"""Pictures of a LoRA that was made beside those of what it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_dsm import options
from lib_dsm.api.http import Call, Route
from lib_dsm.api.service import MissingError, Service
from lib_dsm.errors import InputError
from lib_dsm.extraction.options import PictureOptions
from lib_dsm.jobs import Job

_TAB = "lora"


def prompts(service: Service, call: Call) -> Any:
    """`count` captions of what the LoRA that the job `job` made was trained on: prompts to begin with."""
    from lib_dsm.host.lora_pictures import prompts_from

    source = _made(service, call)["source"]
    folder = Path(source["captions"]) if source.get("captions") else None
    if folder is not None and folder.is_dir():
        service.without_ways_out(folder)
    found = prompts_from(folder, call.whole("count", 3, 1, 32))
    word = source.get("word", "")  # of an embedding, which the captions do not have
    return {"prompts": [", ".join(part for part in (text, word) if part) for text in found]}


def compare(service: Service, call: Call) -> Any:
    """Draw the LoRA that the job `job` made on its base, beside the original; answers with the job's id.

    `prompts` are taken in turn; `settings` are as the command line's: previews, preview_seed, preview_steps,
    preview_cfg, preview_side, preview_clip_skip.
    """
    from lib_dsm.host.lora_pictures import Compared, compare_pictures, text_of

    made = _made(service, call)
    chosen = options.from_json(PictureOptions, call.object("settings"), "pictures")
    wanted = [text.strip() for text in call.texts("prompts")] or [""]
    if not chosen.previews:
        raise InputError("No picture is asked for.", "Ask for one at least.")
    if any(job.state == "running" and job.data.get("of") == call.text("job") for job in service.host.jobs.all()):
        raise InputError("Pictures of it are being drawn.", "Wait for them, or cancel them.")
    source = made["source"]
    paths = {name: Path(source[name]) for name in ("tuned", "hypernetwork") if source.get(name)}
    what = Compared(
        Path(source["base"]), Path(made["file"]), averages=source.get("averages", "auto"),
        strength=float(source.get("strength", 1.0)), **paths,
    )  # fmt: skip

    variants = service.host.variants(what)

    def work(job: Job) -> None:
        drawn = compare_pictures(variants, what, chosen, wanted, job)
        job.data["compared"] = drawn
        job.data["summary"] = text_of(drawn)

    job = service.host.jobs.start(f"Pictures of {what.lora.stem}", work, "pictures")
    job.data |= {"tab": _TAB, "of": call.text("job")}
    return {"job": job.id}


def _made(service: Service, call: Call) -> dict[str, Any]:
    """What became of a job that made a LoRA of something that can be drawn."""
    facts: dict[str, Any] = service.host.jobs.get(call.text("job")).data.get("lora", {})
    if not facts.get("file") or not facts.get("source"):
        raise MissingError("That job has made no LoRA to draw.", "Make one first.")
    return facts


ROUTES = (Route("GET", "lora/prompts", prompts), Route("POST", "lora/compare", compare))
