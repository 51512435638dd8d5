"""What a guard says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
    """One thing a guard found: a sentence with the value at fault and a sentence with the remedy.

    `apply` is the remedy as settings to change, by the options' names, where it is nothing but that.
    """

    id: str
    severity: Severity
    problem: str
    remedy: str = ""
    apply: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data for the faces."""
        apply = {key: list(value) if isinstance(value, tuple) else value for key, value in self.apply.items()}
        return {
            "id": self.id,
            "severity": self.severity.value,
            "problem": self.problem,
            "remedy": self.remedy,
            "apply": apply,
        }


def demand(findings: Iterable[Finding], override: Iterable[str] = ()) -> None:
    """Let training start only where nothing blocks that was not overridden by its id.

    Raises:
        GuardError: with the first blocking finding's sentences.
    """
    overridden = set(override)
    for finding in findings:
        if finding.severity is Severity.BLOCK and finding.id not in overridden:
            raise GuardError(finding.problem, finding.remedy)
