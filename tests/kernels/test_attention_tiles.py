from __future__ import annotations

import importlib.metadata

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


CHIP = tiles.Chip(90, "NVIDIA H200")


@pytest.fixture
def tuned_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "3.6.0")
    tiles.tuned.cache_clear()
    yield tiles.tuned_file(CHIP)
    tiles.tuned.cache_clear()


def test_the_file_is_of_one_chip_and_one_triton(tuned_file):
    assert tuned_file.name == "rotary_attention_NVIDIA_H200_sm90_triton3.6.0.json"


def test_tuned_choices_come_first(tuned_file):
    tile = tiles.CANDIDATES[90]["forward"][-1]
    assert tiles.CHOSEN[90]["long"]["forward"] != tile
    tiles.write_choices({"long": {"forward": tile}}, tuned_file)
    assert tiles.pick(CHIP, 640) == tiles.CHOSEN[90]["long"] | {"forward": tile}
    assert tiles.pick(CHIP, 241) == tiles.CHOSEN[90]["medium"]


def test_with_segment_ids_the_librarys_choices_hold(tuned_file):
    tiles.write_choices({"long": {"forward": tiles.CANDIDATES[90]["forward"][-1]}}, tuned_file)
    assert tiles.pick(CHIP, 640, segments=True) == tiles.CHOSEN[90]["long"]


def test_writing_leaves_nothing_beside_the_file(tuned_file):
    for tile in tiles.CANDIDATES[90]["forward"][:2]:
        tiles.write_choices({"long": {"forward": tile}}, tuned_file)
    assert list(tuned_file.parent.iterdir()) == [tuned_file]
    assert tiles.pick(CHIP, 640)["forward"] == tile


UNUSABLE = {
    "no tile of the library": '{"long": {"forward": [512, 512, 8, 2]}}',
    "no class": '{"huge": {"forward": [64, 64, 4, 2]}}',
    "a kernel of other lengths": '{"long": {"short_forward": [64, 64, 4, 1]}}',
    "no shape": '{"long": {"forward": 7}}',
    "no table": "[1, 2]",
    "no table of kernels": '{"long": [1]}',
    "cut off": '{"long": {"forw',
    "empty": "",
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("content", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_file_that_cannot_be_used_is_left_aside_with_a_warning(tuned_file, content):
    tuned_file.parent.mkdir(parents=True)
    tuned_file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.warns(UserWarning, match=r"rotary_attention: .*\.json is ignored: .*; tune again or remove it"):
        assert tiles.pick(CHIP, 640) == tiles.CHOSEN[90]["long"]


def test_a_folder_in_its_place_is_left_aside_with_a_warning(tuned_file):
    tuned_file.mkdir(parents=True)
    with pytest.warns(UserWarning, match="is ignored"):
        assert tiles.pick(CHIP, 640) == tiles.CHOSEN[90]["long"]


def test_without_a_tuned_file_the_librarys_choices_hold(tuned_file):
    assert tiles.pick(CHIP, 640) == tiles.CHOSEN[90]["long"]


def test_a_shared_tile_holds_its_class():
    tile = tiles.Tile(32, 32, 4, 1)
    assert tiles.holds("short_forward", tile, "tiny")
    assert not tiles.holds("short_forward", tile, "short")
    assert tiles.holds("forward", tile, "long")
