"""Undo and redo of caption edits; since tagging records its own too, the machinery lies with the captions."""

from lib_dsm.dataset.history import Act, Change, Outcome, apply, history, recording, redo, undo

__all__ = ["Act", "Change", "Outcome", "apply", "history", "recording", "redo", "undo"]
