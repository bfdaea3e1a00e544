"""Only what a run left in ``./outputs``, and nothing that a link leads to."""

from __future__ import annotations

import os
from pathlib import Path

from mlflow_azure_backend.outputs import changed_outputs, list_outputs


def test_new_and_changed_files_count_and_old_ones_do_not(nasty_path: Path) -> None:
    outputs = nasty_path / "outputs"
    (outputs / "deep er").mkdir(parents=True)
    (outputs / "old").write_text("1")
    (outputs / "changed").write_text("1")
    before = list_outputs(nasty_path)
    os.utime(outputs / "changed", ns=(5, 5))
    (outputs / "deep er" / "new\nline").write_text("2")
    assert changed_outputs(nasty_path, before) == ["changed", "deep er/new\nline"]


def test_links_are_not_followed(nasty_path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("1")
    (nasty_path / "outputs").mkdir()
    (nasty_path / "outputs" / "folder").symlink_to(tmp_path / "elsewhere")
    (nasty_path / "outputs" / "file").symlink_to(tmp_path / "elsewhere" / "secret")
    os.mkfifo(nasty_path / "outputs" / "pipe")
    assert list_outputs(nasty_path) == {}


def test_outputs_that_is_a_link_or_a_file_or_missing_has_no_files(tmp_path: Path) -> None:
    assert list_outputs(tmp_path) == {}
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").touch()
    (tmp_path / "outputs").symlink_to(tmp_path / "elsewhere")
    assert list_outputs(tmp_path) == {}
    (tmp_path / "outputs").unlink()
    (tmp_path / "outputs").touch()
    assert list_outputs(tmp_path) == {}
