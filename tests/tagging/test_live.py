"""Options tried on kept scores, against tagging the folder by them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_dsm.dataset.matching import tag_key
from lib_dsm.errors import InputError, ModelError
from lib_dsm.tagging.live import BINS, Live
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.run import score_folder, tag_folder
from lib_dsm.tagging.session import Tagger


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(7)
    (tmp_path / "set").mkdir()
    for number in range(24):
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        Image.new("RGB", (32, 32), color).save(tmp_path / "set" / f"{number}.png")
    return tmp_path / "set"


CASES: list[dict[str, object]] = [
    {},
    {"threshold": 0.7, "character_threshold": 0.5},
    {"mcut": True},
    {"exclude": ("hat*",), "keep_underscores": True},
    {"replace": ("* tint=tint", "red middle=tint"), "threshold": 0.2},
    {"only": ("* tint",), "weights": False, "escape": False},
]


@pytest.mark.parametrize("how", CASES)
def test_counts_and_changes_are_those_of_tagging(
    pictures: Path, tagger_folder: Path, tmp_path: Path, how: dict[str, object]
) -> None:
    options = TagOptions(model=str(tagger_folder), **how)  # type: ignore[arg-type]
    score_folder(pictures, options, tmp_path / "cache")
    assert not list(pictures.glob("*.txt"))
    live = Live.read(pictures, options, tmp_path / "cache")
    report = tag_folder(pictures, options, tmp_path / "cache", dry_run=True)
    assert live.changes(options) == report.changes
    expected = Counter(tag_key(tag) for change in report.changes for tag in change.after)
    counts = live.counts(options)
    assert {tag_key(item.tag): item.count for item in counts.tags} == expected
    assert counts.total == sum(expected.values())


def test_trying_needs_no_network(
    pictures: Path, tagger_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TagOptions(model=str(tagger_folder))
    score_folder(pictures, options, tmp_path / "cache")

    def refuse(*_: object) -> None:
        raise AssertionError("the network was loaded")

    monkeypatch.setattr(Tagger, "__init__", refuse)
    live = Live.read(pictures, options, tmp_path / "cache")
    few, many = (live.counts(TagOptions(threshold=limit)).total for limit in (0.9, 0.1))
    assert few < many and not live.missing


def test_histogram(pictures: Path, tagger_folder: Path, tmp_path: Path) -> None:
    options = TagOptions(model=str(tagger_folder))
    score_folder(pictures, options, tmp_path / "cache")
    live = Live.read(pictures, options, tmp_path / "cache")
    report = tag_folder(pictures, TagOptions(model=str(tagger_folder), threshold=0.5), tmp_path / "cache", dry_run=True)
    found = live.histogram("Red Tint", options)
    assert found.name == "red_tint" and len(found.bins) == BINS and sum(found.bins) == 24
    assert sum(found.bins[BINS // 2 :]) == sum("red tint" in change.after for change in report.changes)
    assert found.threshold == pytest.approx(0.35, abs=1e-4)
    assert live.histogram("red tint", TagOptions(mcut=True)).threshold is None
    assert live.histogram("tint", TagOptions(replace=("red tint=tint",))).name == "red_tint"
    with pytest.raises(InputError, match="does not know"):
        live.histogram("nothing", options)


def test_what_was_not_looked_at_is_missing(pictures: Path, make_tagger: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_tagger()
    options = TagOptions(model=str(folder))
    with pytest.raises(ModelError, match="not looked at"):
        Live.read(pictures, options, tmp_path / "cache")
    with pytest.raises(ModelError, match="not here yet"):
        Live.read(pictures, TagOptions(model="wd-vit-v3"), tmp_path / "cache")
    score_folder(pictures, options, tmp_path / "cache")
    Image.new("RGB", (32, 32), (1, 2, 3)).save(pictures / "new.png")
    live = Live.read(pictures, options, tmp_path / "cache")
    assert live.missing == [pictures / "new.png"] and len(live.pictures) == 24
