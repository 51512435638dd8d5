"""A large picture is decoded once, whoever wants it in whatever size."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from lib_dsm.api import thumbnails
from lib_dsm.api.thumbnails import STAGE, Thumbnails


@pytest.fixture
def decoded(monkeypatch):
    """The names and sides of what was decoded from files."""
    found = []
    real = thumbnails.thumbnail_bytes
    monkeypatch.setattr(
        thumbnails, "thumbnail_bytes", lambda path, side: found.append((path.name, side)) or real(path, side)
    )
    return found


def photograph(path, size=(2600, 1800)):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def test_a_large_png_is_decoded_once_for_all_sizes(tmp_path, decoded):
    path = photograph(tmp_path / "a.png")
    kept = Thumbnails()
    with ThreadPoolExecutor(4) as threads:
        small, again, large, picture = threads.map(
            lambda side: kept.picture(path) if side is None else kept.of(path, side), (192, 192, STAGE, None)
        )
    assert decoded == [("a.png", STAGE)] and small == again
    shown = Image.open(io.BytesIO(small))
    assert shown.size == (192, 133) and Image.open(io.BytesIO(large)).size == (1400, 969)
    assert picture.size == (2600, 1800) and picture.image.size == (1400, 969) and picture.alpha is None
    direct = Image.open(path).resize((192, 133), Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(shown, np.int16) - np.asarray(direct, np.int16)).mean() < 3
    photograph(path, (1900, 2500))  # another picture by now
    assert Image.open(io.BytesIO(kept.of(path, 192))).size == (146, 192) and len(decoded) == 2


def test_small_ones_and_jpegs_are_read_at_the_size_wanted(tmp_path, decoded):
    kept = Thumbnails()
    kept.of(photograph(tmp_path / "small.png", (600, 400)), 192)
    kept.of(photograph(tmp_path / "large.jpg"), 192)
    kept.of(tmp_path / "large.jpg", STAGE)
    kept.of(tmp_path / "large.jpg", 256)
    assert decoded == [("small.png", 192), ("large.jpg", 192), ("large.jpg", STAGE)]


def test_the_first_one_is_made_before_it_is_asked_for(tmp_path, decoded):
    path = photograph(tmp_path / "a.png")
    kept = Thumbnails()
    kept.ahead(lambda: path).join()
    kept.ahead(lambda: None).join()
    kept.ahead(lambda: tmp_path / "gone.png").join()
    kept.of(path, STAGE)
    kept.of(path, 192)
    assert decoded == [("a.png", STAGE)]
