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
from lib_dsm.host.run import run_folder, train
from lib_dsm.host.studio import StudioHost
from lib_dsm.jobs import Job
from lib_dsm.training import loop, pictures, validation  # noqa: F401 - loaded once for all forks
from lib_dsm.training.config import RunConfig

FILE_CALLS = ("open", "fsync", "replace", "rename", "mkdir", "unlink")


def main() -> None:
    config = options.from_json(RunConfig, json.loads(sys.argv[1]))
    studio, seed, kills = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    choose = random.Random(seed)
    for number in range(kills + 1):
        # Half of them die between two file operations, where what is on the disk is in between; half at any time.
        call = choose.randint(1, 60) if number % 2 == 0 else None
        ended = train_once(config, studio, call, choose.random(), number < kills)
        print(ended, flush=True)
        if ended == "finished":
            return


def train_once(config: RunConfig, studio: Path, call: int | None, share: float, kill: bool) -> str:
    """Fork, train in the child and kill it there at the file operation `call`, or from here after a while."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        code = 1
        try:
            child_trains(config, studio, call if kill else None, writer)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    if kill and call is None:
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
        return f"killed at file operation {call}" if call else f"killed {share:.0%} into four steps"
    if os.WEXITSTATUS(status):
        raise SystemExit("the training failed")
    return "finished"


def child_trains(config: RunConfig, studio: Path, call: int | None, writer: int) -> None:
    host = StudioHost(studio)
    counting, counted, step = False, 0, -1

    def counted_call(original):
        def function(*args, **kwargs):
            nonlocal counted
            counted += counting
            if counted == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        return function

    def watch(job: Job) -> None:
        nonlocal counting, step
        counting = counting or job.text.startswith("preparing")
        if job.text.startswith("loss") and job.done != step:
            step = job.done
            os.write(writer, b".")

    for name in FILE_CALLS:
        setattr(os, name, counted_call(getattr(os, name)))
    train(host, config, Job("test", watcher=watch), resume=run_folder(host, config).exists())


if __name__ == "__main__":
    main()
