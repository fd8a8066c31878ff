"""The pages that are written from the code are up to date."""

from __future__ import annotations

import generated_pages


def test_pages_are_up_to_date():
    assert generated_pages.stale() == [], "run `make docs`"


def test_an_edit_by_hand_is_found(tmp_path, monkeypatch):
    texts = generated_pages.pages()
    monkeypatch.setattr(generated_pages, "ROOT", tmp_path)
    monkeypatch.setattr(generated_pages, "pages", lambda: texts)
    (tmp_path / "docs").mkdir()
    for name, text in texts.items():
        (tmp_path / name).write_text(text, "utf-8")
    assert generated_pages.stale() == []
    (tmp_path / "docs/api.md").write_text(texts["docs/api.md"] + " ", "utf-8")
    (tmp_path / "docs/configuration.md").unlink()
    assert generated_pages.stale() == ["docs/api.md", "docs/configuration.md"]
