"""No two jobs of a process write to one LoRA file."""

from __future__ import annotations

import threading

import pytest

from lib_dsm.errors import InputError
from lib_dsm.host.lora_names import free_name, start_writing
from lib_dsm.jobs import Job, Jobs


def test_a_file_that_is_being_written_is_refused_until_it_is_done(tmp_path):
    jobs, go = Jobs(), threading.Event()
    first = start_writing(jobs, tmp_path / "a.safetensors", "first", lambda job: go.wait(30), "")
    with pytest.raises(InputError, match="being written"):
        start_writing(jobs, tmp_path / "a.safetensors", "second", lambda job: None, "")
    assert start_writing(jobs, tmp_path / "b.safetensors", "other", lambda job: None, "").wait(30)
    go.set()
    assert first.wait(30)
    assert start_writing(jobs, tmp_path / "a.safetensors", "second", lambda job: None, "").wait(30)


def test_a_free_name_is_neither_there_nor_being_written(tmp_path):
    jobs = Jobs()
    (tmp_path / "a.safetensors").write_bytes(b"")
    found = []
    for _ in range(2):
        job = Job("of a run")
        jobs.add(job)
        found.append(free_name(jobs, tmp_path, "a", job).name)
    assert found == ["a-2.safetensors", "a-3.safetensors"]
