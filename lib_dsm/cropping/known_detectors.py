"""The detectors that are known by name and can be fetched, each when a person says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib_dsm import hub
from lib_dsm.hub import HubFile
from lib_dsm.jobs import Job

DETECTORS = "detectors"
"""The folder in the host's data folder for fetched detectors and those that a person puts there."""


@dataclass(frozen=True)
class KnownDetector:
    """A detector of a layout that detect.py knows. `finds` says what it is for, `megabytes` about how much is fetched,
    `licence` what its authors state."""

    name: str
    finds: str
    file: HubFile
    megabytes: float
    licence: str = "MIT"


KNOWN = (
    KnownDetector(
        "yunet", "faces in photographs",
        HubFile("opencv/face_detection_yunet", "face_detection_yunet_2023mar.onnx"), 0.2,
    ),
    KnownDetector(
        "anime-head", "heads in drawings",
        HubFile("deepghs/anime_head_detection", "head_detect_v0_s/model.onnx"), 45,
    ),
)  # fmt: skip


def find_known(name: str) -> KnownDetector | None:
    """The detector of that name; None for anything else, such as a file."""
    return next((known for known in KNOWN if known.name == name), None)


def here(known: KnownDetector, folder: Path) -> Path | None:
    """Its file where it was fetched into the folder of detectors before."""
    return hub.cached(known.file, folder)


def fetch_detector(known: KnownDetector, folder: Path, job: Job | None = None) -> Path:
    """Its file; it is downloaded into the folder of detectors unless it is there.

    Raises:
        ModelError, Cancelled: as `hub.fetch`.
    """
    remedy = f"Connect to the internet, or put {known.file.name} of {known.file.repository} into {folder} yourself."
    return hub.fetch(known.file, folder, f"detector {known.name}", remedy, job)
