"""The proof: `python -m lib_dsm demo --prove` trains embeddings in the demo world and counts what comes out right.

The trials run in processes of their own, one on each processor core and each on one thread, so that the figures do not
depend on how many there are. What was interrupted goes on.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_dsm.demo.trial_run import JUDGED, Outcome, carry_out, read_outcome
from lib_dsm.demo.trials import CHARACTERS, CLAIMS_ON, STEPS, Claim, Trial, claims, every_trial, usual
from lib_dsm.errors import DsmError
from lib_dsm.files import write_json, write_text
from lib_dsm.jobs import Job

_POLL = 0.5  # seconds
_CALLED = {"constant": "all of them"}


@dataclass(frozen=True)
class Proof:
    """Shares of attributes right, 0 to 1: of the trained characters before and after, and of every claim."""

    before: dict[str, float]
    after: dict[str, float]
    claims: list[dict[str, Any]]  # title, tried, right
    pictures: int
    table: Path
    sheet: Path

    def markdown(self) -> str:
        """The result as two tables."""
        rows = [
            f"| {_CALLED.get(name, name)} | {self.before[name]:.0%} | {share:.0%} |"
            for name, share in self.after.items()
            if name != "all"
        ]
        told = [f"| {claim['title']} | {claim['tried']:.0%} | {claim['right']:.0%} |" for claim in self.claims]
        return "\n".join(
            (
                f"Attributes right in {self.pictures} previews of {len(CHARACTERS)} characters that no model was "
                f"trained on, {STEPS} steps each:",
                "",
                "| attribute | untrained | trained |",
                "|---|---|---|",
                *rows,
                "",
                f"What the guides say, on {len(CLAIMS_ON)} of the characters, {JUDGED} previews each:",
                "",
                "| tried | attributes right | done as it should be |",
                "|---|---|---|",
                *told,
            )
        )


def prove(folder: Path, job: Job, workers: int | None = None) -> Proof:
    """Carry out every trial in `folder`, and write proof.json, proof.md and the contact sheet proof.png there.

    Raises:
        Cancelled: the job was cancelled; what was trained is kept.
        DsmError: the folder cannot be used.
    """
    from lib_dsm.demo.contact_sheet import contact_sheet

    trials = every_trial()
    outcomes = carry_out_all(trials, folder / "trials", job, workers or os.cpu_count() or 1)
    found = {trial.folder: outcome for trial, outcome in zip(trials, outcomes, strict=True)}
    usuals = [found[usual(character).folder] for character in CHARACTERS]
    proof = Proof(
        before=_mean([outcome.before for outcome in usuals]),
        after=_mean([outcome.after for outcome in usuals]),
        claims=[_told(claim, found) for claim in claims()],
        pictures=JUDGED * len(CHARACTERS),
        table=folder / "proof.md",
        sheet=folder / "proof.png",
    )
    write_json(folder / "proof.json", {trial: vars(outcome) for trial, outcome in found.items()})
    write_text(proof.table, proof.markdown() + "\n")
    contact_sheet(folder / "trials", proof.sheet)
    return proof


def _told(claim: Claim, found: Mapping[str, Outcome]) -> dict[str, Any]:
    pairs = claim.pairs()
    tried = _mean([found[trial.folder].after for trial, _ in pairs])
    right = _mean([found[trial.folder].after for _, trial in pairs])
    return {"title": claim.title, "tried": tried["constant"], "right": right["constant"]}


def _mean(shares: Sequence[Mapping[str, float]]) -> dict[str, float]:
    # A bald character has no hair whose colour could be right.
    names = {name: None for share in shares for name in share}
    having = {name: [share[name] for share in shares if name in share] for name in names}
    return {name: sum(values) / len(values) for name, values in having.items()}


def carry_out_all(trials: Sequence[Trial], folder: Path, job: Job, workers: int) -> list[Outcome]:
    """Carry out trials in `folder`, `workers` at once; their outcomes in the same order. Raises what `prove` does."""
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    stop = context.Event()
    done = {trial.folder: STEPS if read_outcome(folder, trial) else 0 for trial in trials}
    job.begin(sum(done.values()), STEPS * len(trials))
    missing = sum(1 for trial in trials if not done[trial.folder])
    with ProcessPoolExecutor(min(workers, max(1, missing)), context, _begin, (messages, stop)) as pool:
        futures: list[Future[Outcome]] = [pool.submit(_work, trial, folder) for trial in trials]
        waiting = set(futures)
        try:
            while waiting:
                ended, waiting = wait(waiting, _POLL, FIRST_COMPLETED)
                for future in ended:
                    future.result()
                _listen(messages, done)
                left = sum(1 for future in futures if not future.done())
                job.progress(sum(done.values()), text=f"{len(trials) - left} of {len(trials)} trials done")
                job.check()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _listen(messages: Any, done: dict[str, int]) -> None:
    while True:
        try:
            trial, steps = messages.get_nowait()
        except queue.Empty:
            return
        done[trial] = max(done[trial], steps)


_messages: Any = None  # of a worker's process, which is started for nothing else
_stop: Any = None


def _begin(messages: Any, stop: Any) -> None:
    global _messages, _stop
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _messages, _stop = messages, stop


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # it was killed; nobody waits for what is done here


def _work(trial: Trial, folder: Path) -> Outcome:
    def watch(job: Job) -> None:
        if _stop.is_set():
            job.cancel()
        _messages.put((trial.folder, job.done))

    try:
        outcome: Outcome = Job(trial.folder, "steps", watch).run(lambda job: carry_out(trial, folder, job))
    except DsmError:
        raise
    except Exception as error:  # others' exceptions do not always survive the way to the parent
        raise RuntimeError(f"{trial.folder}: {type(error).__name__}: {error}") from None
    _messages.put((trial.folder, STEPS))
    return outcome
