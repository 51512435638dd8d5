"""Charts of an extraction as HTML: errors by layer, the change by layer, sizes against errors."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lib_dsm.extraction.report import ExtractionReport
    from lib_dsm.extraction.survey import Outlook, Survey

_SHOWN = 40


def of_report(report: ExtractionReport) -> str:
    """The relative error of each layer that a low rank carries, the greatest first."""
    layers = sorted((module for module in report.modules if module.rank), key=lambda module: -module.error)
    rows = ((f"{module.name} · rank {module.rank}", module.error, f"{module.error:.1%}") for module in layers)
    return _chart(f"Relative error by layer, {report.path.name}", rows, len(layers))


def of_survey(survey: Survey, outlooks: Sequence[Outlook]) -> str:
    """Errors for a few sizes, and the layers that changed most, with the share their first 16 values hold."""
    sizes = ((f"{item.label} · {item.bytes / 1e6:.1f} MB", item.error, f"{item.error:.1%}") for item in outlooks)
    layers = sorted(survey.spectra.items(), key=lambda item: -item[1].square)
    rows = (
        (f"{name} · ‖Δ‖ {spectrum.square ** 0.5:.3g}", 1 - spectrum.lost(16) / spectrum.square,
         f"{1 - spectrum.lost(16) / spectrum.square:.0%} in 16 values")
        for name, spectrum in layers if spectrum.square
    )  # fmt: skip
    return _chart("Size against error", sizes, len(outlooks)) + _chart(
        "Spectra, the largest changes", rows, len(layers)
    )


def _chart(title: str, rows: Iterable[tuple[str, float, str]], count: int) -> str:
    shown = [row for _, row in zip(range(_SHOWN), rows, strict=False)]
    bars = "".join(
        f'<div class="dsm-bars-row"><span>{html.escape(name)}</span>'
        f'<i><b style="width:{100 * min(1.0, max(0.0, value)):.1f}%"></b></i><em>{html.escape(text)}</em></div>'
        for name, value, text in shown
    )
    more = f"<p>{count - len(shown)} more.</p>" if count > len(shown) else ""
    return f'<div class="dsm-bars"><h3>{html.escape(title)}</h3>{bars}{more}</div>'
