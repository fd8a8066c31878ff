"""reserve report: the page of a run, at any time."""

from __future__ import annotations

from reserve.cli.app import main
from reserve.config import FitConfig
from reserve.tasks.pretrain.task import Pretrain
from reserve.train.run_folder import write_run_settings


def test_it_prints_the_page_of_a_run_that_has_not_logged_yet(tmp_path, capsys):
    write_run_settings(tmp_path, Pretrain(), FitConfig())
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    assert "Step 0 of 750000" in " ".join((tmp_path / "report.html").read_text("utf-8").split())


def test_a_folder_that_is_no_run_is_an_error(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 1
    assert "is not a run's folder: it has no config.yaml" in capsys.readouterr().err
