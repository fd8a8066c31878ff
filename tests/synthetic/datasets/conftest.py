"""The stories that the data sets of the tests are made from."""

from dataclasses import replace

import pytest

from reserve.synthetic.datasets.scenes import Stories, read_stories


@pytest.fixture(scope="session")
def stories(narrated_videos) -> Stories:
    return read_stories(narrated_videos)


@pytest.fixture(scope="session")
def short_stories(stories) -> Stories:
    """One video for training and one held out, the first three scenes of each."""
    shortened = (replace(story, scenes=story.scenes[:3]) for story in (stories.train[0], stories.heldout[0]))
    return Stories(*((story,) for story in shortened))
