"""What a handler says to the person: a line, or the place where the page shows a job. The page's scripts draw both."""

from __future__ import annotations

import html
import logging
import secrets
from collections.abc import Callable
from typing import Any

from lib_dsm.errors import DsmError
from lib_dsm.jobs import Job
from lib_dsm.ui.compat import update

logger = logging.getLogger("dsm.ui")


def place(widget: str, **data: str) -> str:
    """The element that the page's script `widget` grows in."""
    attributes = "".join(f' data-{key}="{html.escape(value)}"' for key, value in data.items() if value)
    return f'<div data-dsm="{widget}"{attributes}></div>'


def job_place(tab: str, job: Job | None = None) -> str:
    """The panel of a job just started, or of the tab's newest."""
    if job is None:
        return place("job", tab=tab)
    job.data["tab"] = tab
    return place("job", tab=tab, job=job.id)


def note(tab: str, text: str, remedy: str = "") -> str:
    """A line that something was done."""
    return place("job", tab=tab, note=text, remedy=remedy, once=secrets.token_hex(4))


def error(tab: str, problem: str, remedy: str = "") -> str:
    """A red line; a job of the tab that runs stays in view below it."""
    return place("job", tab=tab, problem=problem, remedy=remedy, once=secrets.token_hex(4))


def guarded(tab: str, outputs: int, handler: Callable[..., Any]) -> Callable[..., Any]:
    """The handler with every error turned into a line in the first of its outputs; the others then stay as they are."""

    def safe(*values: Any) -> Any:
        try:
            return handler(*values)
        except DsmError as failure:
            said = error(tab, failure.problem, failure.remedy)
        except Exception as failure:
            logger.exception("A handler of the tab %s failed", tab)
            said = error(tab, f"Something unexpected went wrong: {type(failure).__name__}: {failure}.", "See the log.")
        return said if outputs == 1 else [said, *[update() for _ in range(outputs - 1)]]

    return safe


def lines(text: str) -> str:
    """Several lines as they are."""
    return f'<pre class="dsm-text">{html.escape(text)}</pre>'
