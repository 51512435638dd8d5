"""What a guard says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from lib_dsm.errors import GuardError


class Severity(str, Enum):
    """`fix`: the session corrects it and puts it back; `block`: training does not start unless overridden."""

    FIX = "fix"
    BLOCK = "block"
    WARN = "warn"
    INFO = "info"


@dataclass(frozen=True)
class Finding:
    """One thing a guard found: a sentence with the value at fault and a sentence with the remedy."""

    id: str
    severity: Severity
    problem: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data for the faces."""
        return {"id": self.id, "severity": self.severity.value, "problem": self.problem, "remedy": self.remedy}


def demand(findings: Iterable[Finding], override: Iterable[str] = ()) -> None:
    """Let training start only where nothing blocks that was not overridden by its id.

    Raises:
        GuardError: with the first blocking finding's sentences.
    """
    overridden = set(override)
    for finding in findings:
        if finding.severity is Severity.BLOCK and finding.id not in overridden:
            raise GuardError(finding.problem, finding.remedy)
