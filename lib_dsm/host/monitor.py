"""What a run tells of itself: `job.data`, filled from its files and, while it runs, from what the loop reports.

A run that is looked at later goes through the same functions, so it shows what it showed while it ran. What the keys
hold is said at `run.train`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lib_dsm.guards import watch
from lib_dsm.guards.finding import Finding
from lib_dsm.jobs import Job
from lib_dsm.training import curves
from lib_dsm.training.config import RunConfig
from lib_dsm.training.verdict import Validation, Verdict, Vocabulary, best_of, change, judge

if TYPE_CHECKING:
    from lib_dsm.training.run_folder import RunFolder

SERIES_POINTS = 500  # validations that a page is given at most
_STOPS = {"never": (), "flat": ("flat", "overtrained", "broken"), "overtrained": ("overtrained", "broken")}


class Monitor:
    """The measurements of one run, and the part of `job.data` that comes from them.

    `facts` are the record's `vocabulary`, `validation` and `timesteps`, where it has them (see `record_facts`).
    """

    def __init__(self, job: Job, config: RunConfig, folder: RunFolder, facts: Mapping[str, Any]) -> None:
        self.ended = ""
        self.verdict: Verdict | None = None
        self._job = job
        self._config = config
        self._folder = folder
        words = facts.get("vocabulary")
        self._words = Vocabulary(**words) if words else None
        self._validated: Mapping[str, Any] = facts.get("validation") or {}
        self._edges = curves.band_edges(int(facts.get("timesteps") or 1000))
        self._curves = curves.Curves()
        self._interval = curves.BandMean()
        self._speed = curves.Smoothed(0.9)
        self._seconds_each = 0.0
        self._timed = (0, 0.0)  # steps whose time is known, and their seconds
        self._series: list[Validation] = []
        self._previews: list[dict[str, Any]] = []
        self._row: Sequence[float] = ()
        self._began: tuple[int, float] | None = None
        self._told: set[str] = set()

    def read(self, until: int | None = None) -> int:
        """Take up what the run's files hold up to step `until` (None: all); returns the last step with a loss."""
        validations = {made.step: made for made in self._folder.validations(self._validated.get("draws"))}
        for row in self._folder.losses():
            if until is not None and row[curves.STEP] > until:
                break
            if not self._row:
                self._series += _before(validations, row[curves.STEP])
            self._take(row)
            made = validations.get(int(row[curves.STEP]))
            if made is not None:
                self._series.append(self._completed(made))
        if not self._row:
            self._series += _before(validations, math.inf)
        self.verdict = judge(self._series, self._words)
        last = int(self._row[curves.STEP]) if self._row else 0
        shown = max([last, *self._folder.saved_steps()]) if until is None else until
        self._previews = [preview for preview in self._folder.previews() if preview["step"] <= shown]
        self._publish_curves()
        self._publish_validation()
        self._publish_speed()
        self.publish_saved()
        self._job.data.update(
            previews=list(self._previews),
            vocabulary=dataclasses.asdict(self._words) if self._words else None,
            band_edges=self._edges,
            ended=self.ended,
        )
        return last

    def begin(self, step: int) -> None:
        """The steps that follow are timed from now on."""
        self._began = (step, time.monotonic())

    def stepped(self, row: Sequence[float]) -> list[Finding]:
        """Take in what a step gave; what the guards on watch say to it.

        Raises:
            GuardError: the first step moved nothing.
        """
        first = not self._row
        whole = self._take(row)
        # Only when a whole point of the thinned curves has come, so that long runs do not slow down.
        if whole:
            self._publish_curves()
        self._publish_speed()
        movement, rate = row[curves.MOVEMENT], row[curves.RATE]
        found = [watch.hardly_moving(self._timed[0], movement, self._words, rate)]
        if first:
            watch.watch_first_movement(movement)
            found.append(watch.leaping(movement, self._words, rate))
        return self._new(found)

    def is_validated(self, step: int) -> bool:
        """Whether the newest validation is of that step."""
        return bool(self._series) and self._series[-1].step == step

    def validated(self, made: Validation) -> list[Finding]:
        """Take in a validation and judge anew; what the guards on watch say to it."""
        self._series.append(self._completed(made))
        self.verdict = judge(self._series, self._words)
        found: list[Finding | None] = []
        if len(self._series) > 1:
            found.append(watch.rising(*self._series[-2:]))
        if self.verdict is not None:
            rate = self._row[curves.RATE] if self._row else math.nan
            found += [watch.plateau(self.verdict, rate), watch.worse(self.verdict)]
        self._publish_validation()
        self.end_if_due()
        return self._new(found)

    def end_if_due(self) -> None:
        """End the run if the settings want it at the verdict there is."""
        if self.verdict is not None and self.verdict.state in _STOPS[self._config.stop_when]:
            self.ended = self._why(self.verdict)
        self._job.data["ended"] = self.ended

    def previewed(self, preview: dict[str, Any]) -> None:
        """Take in a preview that was drawn and noted: step, path, prompt, index, seed, width, height."""
        self._previews = [known for known in self._previews if known["path"] != preview["path"]]
        self._previews.append(preview)
        self._job.data["previews"] = list(self._previews)

    def finish(self) -> None:
        """Tell the last state of everything."""
        self._began = None
        self._publish_curves()
        self._publish_speed()
        self._publish_validation()
        self.publish_saved()

    def publish_saved(self) -> None:
        """Tell which steps are saved, which the verdict's best one is looked for in too."""
        self._job.data["saved"] = self._folder.saved_steps()
        self._publish_verdict()

    def _take(self, row: Sequence[float]) -> bool:
        self._row = row
        self._interval.add(row)
        seconds = row[curves.SECONDS]
        if math.isfinite(seconds):
            self._seconds_each = self._speed.add(seconds)
            self._timed = (self._timed[0] + 1, self._timed[1] + seconds)
        return self._curves.add(row)

    def _completed(self, made: Validation) -> Validation:
        training, error = self._interval.result()
        self._interval = curves.BandMean()
        length = self._row[curves.MEAN_NORM] if self._row else math.nan
        return dataclasses.replace(made, training=training, training_error=error, mean_norm=length)

    def _new(self, found: Sequence[Finding | None]) -> list[Finding]:
        """Each is told once."""
        new = [finding for finding in found if finding is not None and finding.id not in self._told]
        self._told.update(finding.id for finding in new)
        return new

    def _why(self, verdict: Verdict) -> str:
        saved = _nearest(self._folder.saved_steps(), verdict.best)
        nearest = f"; the nearest saved one is step {saved}" if saved not in (None, verdict.best) else ""
        best = f"The best was step {verdict.best}{nearest}."
        return f"Stopped by itself after step {verdict.step}. {verdict.reason} {best}"

    def _publish_curves(self) -> None:
        self._job.data.update(losses=self._curves.losses(), curves=self._curves.to_json())

    def _publish_speed(self) -> None:
        steps, seconds = self._timed
        each = self._seconds_each if self._began else (seconds / steps if steps else 0.0)
        left = None
        if self._began is not None and self._row:
            begun, since = self._began
            done = int(self._row[curves.STEP]) - begun
            # All that happens between steps counts: previews, validations, saving.
            left = (self._job.total - begun - done) * (time.monotonic() - since) / done if done > 0 else None
        self._job.data["speed"] = {
            "steps": 1 / each if each > 0 else None,
            "pictures": self._config.pictures_per_step / each if each > 0 else None,
            "left": left,
        }

    def _publish_validation(self) -> None:
        if not self._series and not self._validated:
            self._job.data.update(validation=None)
            self._publish_verdict()
            return
        spent = sum(made.seconds for made in self._series)
        thin = len(self._series) // SERIES_POINTS + 1
        told = self._series[-1::-thin][::-1]
        self._job.data["validation"] = {
            "held_out": bool(self._validated.get("held_out")),
            "pictures": self._validated.get("pictures"),
            "draws": sum(map(len, self._series[-1].losses)) if self._series else None,
            "note": self._validated.get("note", ""),
            "share": spent / (spent + self._timed[1]) if self._timed[1] else None,
            "series": [_told(made, before) for before, made in zip([None, *told], told, strict=False)],
            "best": best_of(self._series).step if self._series else None,
        }
        self._publish_verdict()

    def _publish_verdict(self) -> None:
        verdict = self.verdict
        if verdict is None:
            self._job.data["verdict"] = None
            return
        self._job.data["verdict"] = {
            **dataclasses.asdict(verdict),
            "number": _number(verdict.number),
            "best_saved": _nearest(self._folder.saved_steps(), verdict.best),
        }


def record_facts(words: Vocabulary | None, pictures: int, held_out: bool, draws: str, timesteps: int) -> dict[str, Any]:
    """What a run's record keeps for `Monitor`; `draws` identifies the validation's draws."""
    of = "1 picture" if pictures == 1 else f"{pictures} pictures"
    note = (
        f"Validated on {of} held out of training."
        if held_out
        else f"Validated on {of} that are trained on, under noise that training never draws; hold some out to see "
        "learning by heart."
    )
    validation = {"pictures": pictures, "held_out": held_out, "draws": draws, "note": note}
    return {
        "vocabulary": dataclasses.asdict(words) if words else None,
        "validation": validation,
        "timesteps": timesteps,
    }


def _before(validations: Mapping[int, Validation], step: float) -> list[Validation]:
    """What was measured before the run's first step, which ended as `step`."""
    return [made for at, made in validations.items() if at < step][-1:]


def _told(made: Validation, before: Validation | None) -> dict[str, Any]:
    found = change(before, made) if before is not None else None
    return {
        "step": made.step,
        "loss": _number(made.mean),
        "bands": [_number(loss) for loss in made.bands],
        "change": _number(found.mean) if found else None,
        "error": _number(found.error) if found else None,
        "z": _number(found.z) if found else None,
    }


def _nearest(steps: Sequence[int], wanted: int) -> int | None:
    return min(steps, key=lambda step: (abs(step - wanted), step)) if steps else None


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
