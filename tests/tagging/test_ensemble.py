from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lib_dsm.errors import InputError
from lib_dsm.tagging.ensemble import Ensemble
from lib_dsm.tagging.labels import Labels
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.run import tag_folder, tag_picture
from lib_dsm.tagging.scores import FLOOR, Scores

ONE = Labels.of(("hair", "blue_eyes", "rin"), ("general", "general", "character"))
OTHER = Labels.of(("rin", "Blue Eyes", "hat"), ("character", "general", "general"))
unit = st.lists(st.floats(0, 1), min_size=3, max_size=3)


@given(unit, unit)
def test_scores_of_two_by_name(one: list[float], other: list[float]) -> None:
    def kept(value: float) -> float:
        return value if value >= FLOOR else 0.0

    (hair, eyes, rin), (rin2, eyes2, hat) = map(kept, one), map(kept, other)
    expected = {
        "union": [hair, max(eyes, eyes2), max(rin, rin2), hat],
        "intersection": [hair, min(eyes, eyes2), min(rin, rin2), hat],
        "mean": [hair, (eyes + eyes2) / 2, (rin + rin2) / 2, hat],
    }
    for how, values in expected.items():
        ensemble = Ensemble([ONE, OTHER], how)
        assert ensemble.labels.names == ("hair", "blue_eyes", "rin", "hat")
        assert ensemble.labels.character.tolist() == [2] and ensemble.labels.general.tolist() == [0, 1, 3]
        found = ensemble.combined([Scores.of(np.array(one)), Scores.of(np.array(other))]).dense(4)
        assert np.abs(found - [kept(value) for value in values]).max() <= FLOOR + 1e-4


def test_one_alone_stays_as_it_is() -> None:
    scores = Scores.of(np.array([0.2, 0.5, 0.9]))
    assert Ensemble([ONE], "union").combined([scores]) is scores


def test_two_families_look_at_a_folder(make_tagger: Callable[..., Path], tmp_path: Path) -> None:
    first, second = make_tagger(), make_tagger(family="joytag")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    options = TagOptions(model=str(first), also=(str(second),), combine="intersection")
    found = tag_picture(tmp_path / "a.png", options, tmp_path / "cache")
    alone = tag_picture(tmp_path / "a.png", TagOptions(model=str(first)), tmp_path / "cache")
    assert found.scores.keys() - {"by_an_artist"} == alone.scores.keys()
    assert tag_folder(tmp_path, options, tmp_path / "cache").written == [tmp_path / "a.png"]


def test_the_same_twice_is_refused(tagger_folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    with pytest.raises(InputError, match="twice"):
        tag_folder(tmp_path, TagOptions(model=str(tagger_folder), also=(str(tagger_folder),)), tmp_path)
