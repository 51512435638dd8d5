"""What became of an extraction, or would become of it, as plain data for the page's charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lib_dsm.extraction.edit_lora import EditReport
from lib_dsm.extraction.hypernetwork_lora import HypernetworkReport
from lib_dsm.extraction.ranks import Spectrum
from lib_dsm.extraction.report import LOW_RANK, ExtractionReport, LeftOut
from lib_dsm.extraction.survey import Outlook, Survey
from lib_dsm.files import is_file

SPECTRA = 12  # layers whose singular values are drawn, those that changed most
_POINTS = 64  # of a spectrum
_NAMED = 8  # keys of what was left out for one reason

Facts = dict[str, Any]


def of_report(report: ExtractionReport) -> Facts:
    """Of two checkpoints: `layers` in the model's order, `spectra` of those that changed most, `left_out` by reason."""
    reasons: dict[str, list[LeftOut]] = {}
    for item in report.left_out:
        reasons.setdefault(item.reason, []).append(item)
    layers = [
        {"name": item.name, "rank": item.rank, "error": item.error, "norm": item.norm, "kind": item.kind}
        for item in report.modules
    ]
    return {
        "what": "checkpoint",
        "file": str(report.path),
        "bytes": report.path.stat().st_size if is_file(report.path) else report.bytes,
        "error": report.error,
        "total_error": report.total_error,
        "layers": layers,
        "spectra": _spectra(layers, {item.name: item.values for item in report.modules}),
        "words": list(report.words),
        "left_out": [
            {"reason": reason, "count": len(items), "keys": [item.key for item in items[:_NAMED]]}
            for reason, items in reasons.items()
        ],
        "notes": [report.note] if report.note else [],
    }  # fmt: skip


def of_survey(survey: Survey, outlooks: Sequence[Outlook], chosen: Outlook, ranks: Mapping[str, int]) -> Facts:
    """Before anything is written: `outlooks` with the ranks they stand for, and what is `chosen` in the form."""
    layers = [_layer(name, ranks.get(name, 0), item) for name, item in survey.spectra.items() if item.square]
    return {
        "what": "survey",
        "outlooks": [_outlook(item) for item in outlooks],
        "chosen": _outlook(chosen),
        "layers": layers,
        "spectra": _spectra(layers, {name: item.values for name, item in survey.spectra.items()}),
    }


def of_fit(report: HypernetworkReport) -> Facts:
    """Of a hypernetwork: the share of each layer's effect, R² on captions kept apart."""
    return {
        "what": "hypernetwork",
        "file": str(report.path),
        "bytes": report.path.stat().st_size,
        "fit": report.fit,
        "exact": report.exact,
        "layers": [
            {"name": name, "rank": 0, "error": max(0.0, 1.0 - fit) ** 0.5, "norm": 0.0, "kind": "fit", "fit": fit}
            for name, fit in report.fits.items()
        ],
        "notes": list(report.lost),
    }


def of_edit(report: EditReport) -> Facts:
    """Of files of LoRAs: what a rank took from each module."""
    return {
        "what": "edit",
        "file": str(report.path),
        "bytes": report.bytes,
        "error": report.error,
        "layers": [
            {"name": name, "rank": 0, "error": error, "norm": 0.0, "kind": LOW_RANK}
            for name, error in report.errors.items()
        ],
        "words": list(report.embeddings),
        "notes": report.notes(),
    }


def _outlook(item: Outlook) -> Facts:
    return {"label": item.label, "bytes": item.bytes, "error": item.error, "rank": item.rank,
            "conv_rank": item.conv_rank}  # fmt: skip


def _layer(name: str, rank: int, item: Spectrum) -> Facts:
    error = (item.lost(rank) / item.square) ** 0.5
    return {"name": name, "rank": rank, "error": error, "norm": item.square**0.5, "kind": LOW_RANK}


def _spectra(layers: Sequence[Facts], values: Mapping[str, Sequence[float]]) -> list[Facts]:
    """The singular values of the layers that changed most, at `places` from 1."""
    largest = sorted((layer for layer in layers if values[layer["name"]]), key=lambda layer: -layer["norm"])
    found = []
    for layer in largest[:SPECTRA]:
        known = values[layer["name"]]
        places = _places(len(known))
        found.append({**layer, "places": places, "values": [known[place - 1] for place in places]})
    return found


def _places(count: int) -> list[int]:
    """Places from 1 to `count`, close together where the values fall steeply."""
    if count <= _POINTS:
        return list(range(1, count + 1))
    return sorted({round(count ** (step / (_POINTS - 1))) for step in range(_POINTS)})
