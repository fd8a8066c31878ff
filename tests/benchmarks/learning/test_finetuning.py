from benchmarks.learning.finetuning import link_videos


def test_training_videos_are_limited_and_held_out_ones_are_not(tmp_path):
    for split, count in (("train", 3), ("heldout", 2)):
        (tmp_path / "videos" / split).mkdir(parents=True)
        for number in range(count):
            for ending in ("mp4", "en.vtt", "info.json"):
                (tmp_path / "videos" / split / f"story-{number}.{ending}").write_text(f"{split} {number}")
    chosen = link_videos(tmp_path / "videos", tmp_path / "chosen", 2)
    assert link_videos(tmp_path / "videos", tmp_path / "chosen", 2) == chosen  # a second time too
    found = {split: sorted(path.name for path in (chosen / split).iterdir()) for split in ("train", "heldout")}
    names = [f"story-{number}.{ending}" for number in range(2) for ending in ("en.vtt", "info.json", "mp4")]
    assert found == {"train": names, "heldout": names}
    assert (chosen / "heldout" / "story-1.en.vtt").read_text() == "heldout 1"
