"""The settings of a set: agreed on once."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from reserve.config import FilterConfig
from reserve.data.prepare.shards.plan import ShardPlan, agree_on_settings, by_shard
from reserve.data.prepare.video import PreparationSettings
from reserve.data.shards.layout import shard_of
from reserve.data.shards.records import read_settings
from reserve.data.sources.discover import discover_sources
from reserve.errors import BadInput


@pytest.fixture
def settings(shard_set):
    return read_settings((shard_set / "settings.json").read_bytes())


def test_the_first_process_decides_the_number_of_shards_and_versions_may_differ(settings, tmp_path):
    assert agree_on_settings(tmp_path, settings) == settings
    later = replace(settings, num_shards=9, versions={"torch": "9"})
    assert agree_on_settings(tmp_path, later) == settings


def test_each_setting_that_differs_is_named(settings, tmp_path):
    agree_on_settings(tmp_path, settings)
    other = replace(settings, decoders=("x",), data=settings.data | {"languages": ["de"], "new": 1})
    with pytest.raises(BadInput) as caught:
        agree_on_settings(tmp_path, other)
    assert str(caught.value) == (
        f"{tmp_path} was prepared with other settings: decoders was ['pyav'], is ['x'] now; data.languages was ['en'], "
        "is ['de'] now; data.new was not known, is 1 now. Give those, or choose another OUT"
    )


def test_auto_goes_on_with_the_decoder_of_an_older_set(settings, tmp_path):
    agree_on_settings(tmp_path, replace(settings, decoders=("pyav",)))
    assert agree_on_settings(tmp_path, replace(settings, decoders=("auto",))).decoders == ("pyav",)
    with pytest.raises(BadInput, match=r"decoders was \['pyav'\], is \['dali'\] now"):
        agree_on_settings(tmp_path, replace(settings, decoders=("dali",)))


def test_damaged_settings_are_named(settings, tmp_path):
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(BadInput, match=rf"{tmp_path}: settings\.json is damaged"):
        agree_on_settings(tmp_path, settings)


def test_a_plan_of_one_shard_is_all_that_a_task_gets(shard_source, settings, tmp_path):
    sources = discover_sources([shard_source])
    plan = ShardPlan(tmp_path, settings, PreparationSettings(), FilterConfig(), by_shard(sources, 3))
    part = pickle.loads(pickle.dumps(plan.only(1)))
    assert part.items(1) == plan.items(1) != []
    assert [item.source.video_id for item in part.items(1)] == [
        source.video_id for source in sources if shard_of(source.video_id, 3) == 1
    ]
    assert part.items(0) == []
