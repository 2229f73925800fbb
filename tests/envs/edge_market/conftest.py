"""Recorded episodes of the public AGOD simulator; tests that need them skip without them."""

from pathlib import Path

import pytest

AGOD = Path(__file__).parents[4] / "shared" / "data" / "agod"


@pytest.fixture
def agod() -> Path:
    if not AGOD.is_dir():
        pytest.skip(f"the recorded AGOD episodes are not at {AGOD}")
    return AGOD
