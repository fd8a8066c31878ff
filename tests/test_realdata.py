"""Pretraining on real clips (../shared/realdata): short, in many codecs, few with transcripts."""

from __future__ import annotations

import json

from reserve.cli.app import main
from reserve.train.metrics import read_metrics


def test_pretrains_on_real_clips(shared_dir, tmp_path):
    folders = [str(shared_dir / "realdata" / name) for name in ("video_open", "video_local_only")]
    status = main(
        [
            "pretrain",
            "--config=tiny",
            "--videos",
            *folders,
            f"--out={tmp_path}",
            "--data.num_segments=16",
            "--data.seq_len=320",
            "--train.batch_size=1",
            "--train.num_workers=0",
            "--optimizer.num_train_steps=2",
            "--optimizer.num_warmup_steps=1",
            "--train.log_every=1",
        ]
    )
    assert status == 0
    files = [json.loads(line) for line in (tmp_path / "files.jsonl").read_text().splitlines()]
    segments = {file["file"].rsplit("/", 1)[-1]: file["segments"] for file in files if file["status"] == "prepared"}
    assert segments["manifesto.mp4"] >= 16
    assert all(file["reason"] for file in files if file["status"] == "skipped")
    assert len(files) == 33
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]
