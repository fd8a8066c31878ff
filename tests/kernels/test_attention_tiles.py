from __future__ import annotations

import json

import pytest

from reserve_kernels.attention import tiles


@pytest.mark.parametrize("chips", tiles.CHOSEN)
def test_every_choice_is_a_candidate(chips):
    for kernels in tiles.CHOSEN[chips].values():
        assert all(tile in tiles.CANDIDATES[chips][kernel] for kernel, tile in kernels.items())


@pytest.mark.parametrize("chips", tiles.CHOSEN)
@pytest.mark.parametrize("name", tiles.LENGTH_CLASSES)
def test_a_class_has_all_its_kernels_and_shared_tiles_hold_its_sequences(chips, name):
    kernels = tiles.CHOSEN[chips][name]
    assert tuple(kernels) in (tiles.SHARED, tiles.WALKING)
    if tuple(kernels) == tiles.SHARED:
        assert all(tile.queries == tile.keys >= tiles.LENGTH_CLASSES[name] for tile in kernels.values())


@pytest.mark.parametrize(
    ("max_seqlen", "name"), [(1, "tiny"), (32, "tiny"), (33, "short"), (64, "short"), (241, "medium"), (1312, "long")]
)
def test_length_class(max_seqlen, name):
    assert tiles.length_class(max_seqlen) == name


# Consumer chips, whose shared memory is that of sm_86 or less, take the choices of sm_80.
@pytest.mark.parametrize(
    ("architecture", "chips"), [(80, 80), (86, 80), (89, 80), (90, 90), (100, 100), (103, 100), (120, 80)]
)
def test_family(architecture, chips):
    assert tiles.family(architecture) == chips


@pytest.fixture
def tuned_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tiles.tuned_file(90)
    file.parent.mkdir(parents=True)
    tiles.tuned.cache_clear()
    yield file
    tiles.tuned.cache_clear()


def test_tuned_choices_come_first(tuned_file):
    tile = tiles.CANDIDATES[90]["forward"][-1]
    assert tiles.CHOSEN[90]["long"]["forward"] != tile
    tuned_file.write_text(json.dumps({"long": {"forward": tile}}))
    assert tiles.pick(90, 640) == tiles.CHOSEN[90]["long"] | {"forward": tile}
    assert tiles.pick(90, 241) == tiles.CHOSEN[90]["medium"]


@pytest.mark.parametrize("choice", [{"long": {"forward": [512, 512, 8, 2]}}, {"huge": {"forward": [64, 64, 4, 2]}}])
def test_a_tuned_choice_that_is_no_candidate_is_refused(tuned_file, choice):
    tuned_file.write_text(json.dumps(choice))
    with pytest.raises(ValueError, match="is no candidate for 'forward'"):
        tiles.pick(90, 640)


def test_without_a_tuned_file_the_librarys_choices_hold(tuned_file):
    assert tiles.pick(90, 640) == tiles.CHOSEN[90]["long"]
