"""Our fast reading against the reference preprocessing, on pictures that taggers get wrong."""

from pathlib import Path

import numpy as np

from lib_dsm.dataset.pictures import read_picture
from lib_dsm.demo.install import TAGGER
from lib_dsm.tagging.layouts import WD
from lib_dsm.tagging.preprocess import arrange
from lib_dsm.tagging.session import Tagger
from tests.tagging.hard_pictures import draw
from tests.tagging.reference import reference

SIDE = 448


def test_scores_agree_with_the_reference(tmp_path: Path) -> None:
    tagger = Tagger(TAGGER)
    differences = {}
    for path in draw(tmp_path):
        ours = tagger.scores(tagger.prepare(read_picture(path, draft_side=SIDE).image)[np.newaxis])
        theirs = tagger.scores(reference(path, tagger.side)[np.newaxis])
        differences[path.name] = float(np.abs(ours - theirs).max())
    print("\nlargest difference of a score:", {name: round(value, 4) for name, value in differences.items()})
    assert max(differences.values()) < 0.05, differences
    assert np.median(list(differences.values())) < 0.03


def test_pixels_agree_with_the_reference(tmp_path: Path) -> None:
    differences = {}
    for path in draw(tmp_path):
        ours = arrange(read_picture(path, draft_side=SIDE).image, SIDE, WD).astype(np.float32)
        differences[path.name] = float(np.abs(ours - reference(path, SIDE)).mean())
    print("\nmean difference of a pixel, of 255:", {name: round(value, 3) for name, value in differences.items()})
    assert max(differences.values()) < 0.1, differences
