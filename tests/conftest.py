import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports torch or a hub: one thread, and nothing that asks the network. The tests' models are so small
# that threads cost more than they give, and ten times as much where they outnumber the cores.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
# Equal bits are promised on the CPU, so a GPU is tested where it is asked for: `CUDA_VISIBLE_DEVICES=0 pytest …`.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", GRADIO_ANALYTICS_ENABLED="False")

settings.register_profile("dsm", deadline=None, print_blob=True)
settings.load_profile("dsm")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

pytest_plugins = ["tests.micro", "tests.browser.chromium"]


def pytest_configure(config: pytest.Config) -> None:
    """What takes minutes and says again what another test says is left to `DSM_LONG=1 pytest …`."""
    config.addinivalue_line("markers", "long: only where DSM_LONG is set")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """See `pytest_configure`."""
    if item.get_closest_marker("long") and not os.environ.get("DSM_LONG"):
        pytest.skip("DSM_LONG is not set")
