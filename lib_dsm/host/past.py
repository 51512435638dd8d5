"""Runs of an earlier time."""

from __future__ import annotations

from pathlib import Path

from lib_dsm import options
from lib_dsm.host.kinds import kind_of
from lib_dsm.host.monitor import Monitor
from lib_dsm.host.protocol import Host
from lib_dsm.host.publish import published_file, published_step
from lib_dsm.jobs import Job
from lib_dsm.training.config import RunConfig


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
    published = published_file(host.folders, config)
    job.data.update(
        kind="training",
        name=config.name,
        run_folder=str(path),
        network=config.kind,
        clip_skip=config.clip_skip,
        requests=len(config.previews),
        learning_rate=config.learning_rate,
        published=str(published) if published.is_file() else None,
        usage=kind_of(config).usage(config.name),
        published_step=published_step(published, folder, config),
        stopped=done < schedule_of(config).last and not monitor.ended,
    )
    job.run(lambda job: job.progress(done, config.max_steps))
    return job
