"""The stories that the data sets of the tests are made from."""

import pytest

from reserve.synthetic.datasets.scenes import Stories, read_stories


@pytest.fixture(scope="session")
def stories(narrated_videos) -> Stories:
    return read_stories(narrated_videos)
