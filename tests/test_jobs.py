"""A job tells the truth about long work, and stops when asked."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lib_dsm.errors import Cancelled, InputError
from lib_dsm.jobs import Job, Jobs


def test_what_is_reported_is_what_is_shown(tmp_path: Path) -> None:
    seen: list[int] = []
    job = Job("Tagging", "pictures", watcher=lambda job: seen.append(job.done))
    job.progress(1, 4, "a.png")
    job.say("b.png cannot be read")
    job.show(tmp_path / "a.png")
    job.progress(2)
    shot = job.snapshot()
    assert (shot["done"], shot["total"], shot["unit"], shot["text"]) == (2, 4, "pictures", "a.png")
    assert shot["lines"] == ["b.png cannot be read"]
    assert shot["picture"] == str(tmp_path / "a.png")
    assert shot["state"] == "running"
    assert shot["left"] == pytest.approx((shot["total"] - shot["done"]) / shot["rate"])
    assert seen == [1, 1, 1, 2]


def test_nothing_is_promised_before_the_first_progress() -> None:
    shot = Job("Tagging").snapshot()
    assert shot["left"] is None
    assert shot["rate"] == 0
    assert shot["picture"] is None


def test_the_rate_counts_from_where_the_work_began(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("lib_dsm.jobs.time.monotonic", lambda: clock[0])
    job = Job("Training", "steps")
    job.progress(0, 6000, "loading the model")
    clock[0] += 30
    job.begin(5000, 6000)
    assert (job.snapshot()["rate"], job.snapshot()["left"]) == (0, None)
    clock[0] += 10
    job.progress(5020)
    shot = job.snapshot()
    assert (shot["rate"], shot["left"], shot["elapsed"]) == (2, 490, 40)


def test_the_log_keeps_the_newest_lines() -> None:
    job = Job("Tagging")
    for number in range(1000):
        job.say(str(number))
    lines = job.snapshot()["lines"]
    assert lines[-1] == "999"
    assert len(lines) == 400


def test_the_result_is_passed_on() -> None:
    job = Job("Counting")
    assert job.run(lambda job: 42) == 42
    assert (job.state, job.result, job.error) == ("done", 42, "")
    assert job.wait(0)


def test_cancelling_stops_at_the_next_safe_point() -> None:
    job = Job("Counting")

    def work(job: Job) -> None:
        for number in range(10):
            job.check()
            job.progress(number + 1, 10)
            if number == 3:
                job.cancel()
                assert job.snapshot()["cancelling"]

    with pytest.raises(Cancelled):
        job.run(work)
    assert (job.state, job.done) == ("cancelled", 4)
    assert not job.snapshot()["cancelling"]


def test_work_that_stopped_early_in_good_order_is_cancelled_but_has_a_result() -> None:
    job = Job("Training")

    def work(job: Job) -> str:
        job.data["stopped"] = True
        return "saved"

    assert job.run(work) == "saved"
    assert job.state == "cancelled"


def test_a_failure_is_a_sentence_with_its_remedy() -> None:
    job = Job("Tagging")

    def work(job: Job) -> None:
        raise InputError("There are no pictures in /x.", "Choose another folder.")

    with pytest.raises(InputError):
        job.run(work)
    assert (job.state, job.error) == ("failed", "There are no pictures in /x. Choose another folder.")


def test_an_unexpected_error_is_named_without_a_trace() -> None:
    job = Job("Tagging")
    with pytest.raises(ZeroDivisionError):
        job.run(lambda job: 1 / 0)
    assert job.state == "failed"
    assert job.error.endswith("ZeroDivisionError: division by zero")
    assert "\n" not in job.error


def test_time_stands_still_after_the_end() -> None:
    job = Job("Counting")
    job.run(lambda job: job.progress(1, 1))
    assert job.snapshot()["elapsed"] == job.snapshot()["elapsed"]
    assert job.snapshot()["left"] is None


def test_jobs_run_beside_each_other_and_are_found() -> None:
    jobs = Jobs()
    meet = threading.Barrier(3, timeout=30)
    started = [jobs.start(f"job {number}", lambda job: meet.wait()) for number in range(3)]
    assert all(job.wait(30) for job in started)
    assert [job.state for job in started] == ["done"] * 3
    assert jobs.all() == started
    assert jobs.get(started[1].id) is started[1]


def test_a_failed_job_ends_its_thread_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    loud: list[object] = []
    monkeypatch.setattr(threading, "excepthook", loud.append)
    jobs = Jobs()
    job = jobs.start("Failing", lambda job: 1 / 0)
    assert job.wait(30)
    for thread in threading.enumerate():
        if thread.name == f"dsm-{job.id}":
            thread.join(30)
    assert job.state == "failed"
    assert loud == []


def test_an_unknown_job_is_named() -> None:
    with pytest.raises(InputError, match="nosuch"):
        Jobs().get("nosuch")


def test_old_finished_jobs_are_forgotten_and_running_ones_never() -> None:
    jobs = Jobs()
    go = threading.Event()
    running = jobs.start("Running", lambda job: go.wait(30))
    for _ in range(70):
        jobs.start("Short", lambda job: None).wait(30)
    assert running in jobs.all()
    assert len(jobs.all()) < 60
    go.set()
    assert running.wait(30)


def test_many_threads_may_report_at_once() -> None:
    job = Job("Counting")

    def report() -> None:
        for number in range(300):
            job.say(str(number))
            job.progress(number, 300)
            job.snapshot()

    threads = [threading.Thread(target=report) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert job.snapshot()["lines"][-1] == "299"
