"""Trains one run again and again, each time in a process of its own that is killed at some moment, until it is done.

Called by test_killed_runs.py as a program, so that the processes it forks have nothing of the test's in them.
Arguments: the settings as JSON, the studio's folder, a seed and the number of kills, 0 to train without any.
Prints one line for each process: how it was killed, or "finished".
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from lib_dsm import options
from lib_dsm.diffusion import sampling  # noqa: F401 - loaded once for all forks
from lib_dsm.host.run import run_folder, train
from lib_dsm.host.studio import StudioHost, StudioSession
from lib_dsm.jobs import Job
from lib_dsm.training import loop, pictures, validation  # noqa: F401 - so are these
from lib_dsm.training.config import RunConfig

Moment = tuple[str, int]  # the how-manyth of what kind
FILE_CALLS = ("open", "fsync", "replace", "rename", "mkdir", "unlink")


def main() -> None:
    config = options.from_json(RunConfig, json.loads(sys.argv[1]))
    studio, seed, kills = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    choose = random.Random(seed)
    for number in range(kills + 1):
        # A third of them die between two file operations, where what is on the disk is in between; a third at a
        # sampling step of a preview; a third at any time.
        moments = (("file operation", choose.randint(1, 60)), ("sampling step", choose.randint(1, 9)), None)
        moment = moments[number % 3] if config.preview_every else moments[number % 2 * 2]
        ended = train_once(config, studio, moment, choose.random(), number < kills)
        print(ended, flush=True)
        if ended == "finished":
            return


def train_once(config: RunConfig, studio: Path, moment: Moment | None, share: float, kill: bool) -> str:
    """Fork, train in the child and kill it there at a moment, or from here after a while."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        code = 1
        try:
            child_trains(config, studio, moment if kill else None, writer)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    if kill and moment is None:
        os.read(reader, 1)  # a first step is done, or the child is
        began = time.monotonic()
        os.read(reader, 1)
        time.sleep(share * 4 * (time.monotonic() - began))
        os.kill(child, signal.SIGKILL)
    while os.read(reader, 4096):
        pass
    _, status = os.waitpid(child, 0)
    os.close(reader)
    if os.WIFSIGNALED(status):
        return f"killed at {moment[0]} {moment[1]}" if moment else f"killed {share:.0%} into four steps"
    if os.WEXITSTATUS(status):
        raise SystemExit("the training failed")
    return "finished"


def child_trains(config: RunConfig, studio: Path, moment: Moment | None, writer: int) -> None:
    host = StudioHost(studio)
    counting, counted, step = False, {"file operation": 0, "sampling step": 0}, -1

    def count(kind: str) -> None:
        counted[kind] += counting
        if (kind, counted[kind]) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted_call(original):
        def function(*args, **kwargs):
            count("file operation")
            return original(*args, **kwargs)

        return function

    def preview(self, request, replacements, clip_skip, check, original=StudioSession.preview):
        def counted_check() -> None:
            count("sampling step")
            check()

        return original(self, request, replacements, clip_skip, counted_check)

    def watch(job: Job) -> None:
        nonlocal counting, step
        counting = counting or job.text.startswith("preparing")
        if job.text.startswith("loss") and job.done != step:
            step = job.done
            os.write(writer, b".")

    StudioSession.preview = preview
    for name in FILE_CALLS:
        setattr(os, name, counted_call(getattr(os, name)))
    train(host, config, Job("test", watcher=watch), resume=run_folder(host, config).exists())


if __name__ == "__main__":
    main()
