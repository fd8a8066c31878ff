from __future__ import annotations

import pytest

from tests.parity.zero_shot_golden import ZeroShotGolden


@pytest.fixture(scope="session")
def golden(shared_dir) -> ZeroShotGolden:
    return ZeroShotGolden(shared_dir / "golden")
