"""The WebUIs that are not AUTOMATIC1111's own, as far as that decides what can be done in them."""

from __future__ import annotations

_PATCHED = "forge_loader"  # in modules.sd_models of reForge
_FORGES_OWN = "forge_model_reload"  # in modules.sd_models; reForge, whose weights can be trained, has no such function


def why_no_training() -> tuple[str, str] | None:
    """Problem and remedy where nothing can be trained in this WebUI, whatever model is loaded; else None."""
    from modules import sd_models

    if hasattr(sd_models, _FORGES_OWN):
        return (
            "Forge keeps its model in a form that cannot be trained yet.",
            "Train in AUTOMATIC1111's WebUI or in the studio; what is trained there can be used here. The other tabs "
            "work.",
        )
    return None


def is_reforge() -> bool:
    """Whether this is reForge, which computes with modules of its own under the names of AUTOMATIC1111's WebUI."""
    from modules import sd_models

    return hasattr(sd_models, _PATCHED)


def is_forked() -> bool:
    """Whether this is reForge or Forge, whose generation knows neither hypernetworks nor a LoRA's embeddings."""
    return is_reforge() or why_no_training() is not None
