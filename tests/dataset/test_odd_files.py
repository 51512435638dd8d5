"""A folder may hold what is no file at all: named pipes, on which reading would wait for ever, and folders by a file's
name. Nothing waits, and the rest is done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lib_dsm.dataset import history
from lib_dsm.dataset.captions import read_caption
from lib_dsm.demo.install import TAGGER
from lib_dsm.errors import InputError
from lib_dsm.host.lora_pictures import prompts_from
from lib_dsm.pruning.tables import load_tables
from lib_dsm.pruning.tag_list import LISTS, load_tag_list

ROOT = Path(__file__).resolve().parents[2]
ALL = """
import sys
from pathlib import Path
from lib_dsm.cropping.cleaning import CleanOptions, find_flaws
from lib_dsm.cropping.plan import CropOptions
from lib_dsm.cropping.write import crop_folder
from lib_dsm.dataset import history
from lib_dsm.dataset.captions import read_caption
from lib_dsm.dataset.listing import list_pictures
from lib_dsm.dataset.looks import looks
from lib_dsm.dataset.project import Project
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.files import sha256
from lib_dsm.host.lora_pictures import prompts_from
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.run import tag_folder
from lib_dsm.training.config import RunConfig
from lib_dsm.training.pictures import plan_pictures

project, tagger = Path(sys.argv[1]), sys.argv[2]
folder = project / "DATASET_IMGS"
index = TagIndex.read(folder)
print("index", index.names, index.tags(2))
print("captions", read_caption(folder / "a.png").tags, sha256(folder / "b.png")[:4])
print("acts", len(history.summaries(folder)), history.recover(folder))
pictures = list_pictures(folder)[0]
print("looks", len(looks(pictures, project / "looks.json", 60.0)))
print("flaws", [flaw.path.name for flaw in find_flaws(pictures, CleanOptions()).flaws if flaw.kind == "unreadable"])
report = tag_folder(folder, TagOptions(model=tagger, on_existing="append"), project / "cache")
print("tagged", [path.name for path in report.written])
print("cropped", len(crop_folder(folder, project / "out", CropOptions()).written))
print("filled", len(Project(project).fill_set().copied))
plan = plan_pictures(RunConfig(name="x", checkpoint="", dataset=str(folder), width=64, height=64, size_step=8))
print("planned", [picture.path.name for picture in plan.pictures])
print("prompts", len(prompts_from(folder, 3)))
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_nothing_waits_for_a_named_pipe(tmp_path):
    folder = tmp_path / "DATASET_IMGS"
    (folder / ".dsm" / "history").mkdir(parents=True)
    for name in "ac":
        Image.new("RGB", (64, 64), (90, 20, 30) if name == "a" else "blue").save(folder / f"{name}.png")
    (folder / "c.txt").write_text("hat", encoding="utf-8")
    for name in ("b.png", "a.txt", ".dsm/history/000001.jsonl", ".dsm/tag-index.bin"):
        os.mkfifo(folder / name)
    ran = subprocess.run(
        [sys.executable, "-c", ALL, str(tmp_path), str(TAGGER)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = dict(line.partition(" ")[::2] for line in ran.stdout.splitlines())
    assert told["index"] == "['a.png', 'b.png', 'c.png'] ['hat']"
    assert told["acts"] == "0 []"
    assert "c.png" in told["tagged"] and "b.png" not in told["tagged"]
    assert told["planned"] == "['a.png', 'c.png']"
    assert told["filled"] == "2"


def test_a_folder_by_a_captions_name_is_no_caption(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").mkdir()
    (tmp_path / "b.txt").write_text("hat", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.txt cannot be read"):
        read_caption(tmp_path / "a.png")
    assert prompts_from(tmp_path, 2) == ["hat"]


@pytest.mark.parametrize("name", ["²", "١", "1" * 240])
def test_a_file_that_is_nearly_an_act_by_its_name_is_none_or_one(tmp_path, name):
    (tmp_path / ".dsm" / "history").mkdir(parents=True)
    (tmp_path / ".dsm" / "history" / f"{name}.jsonl").write_text('{"version": 1, "title": "x", "time": ""}\n')
    assert len(history.history(tmp_path)) == (name != "²")


def test_a_count_that_is_no_number_counts_as_none(tmp_path):
    (tmp_path / LISTS).mkdir()
    (tmp_path / LISTS / "list.csv").write_text(f"hat,0,²,\ncap,0,{'9' * 5000},\nshoe,0,7,\n", encoding="utf-8")
    assert load_tag_list(load_tables(tmp_path), tmp_path).counts["shoe"] == 7
