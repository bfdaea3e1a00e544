"""The notebook card, looked at by a real browser."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path

import mlflow
import pytest

from mlflow_azure_backend.card import Card

Write = Callable[[Mapping[str, str]], Path]
Browse = Callable[..., bytes]
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">&amp;\"'"
CARD = Card(
    run_id="4f2a9c1e8b7d4c3e9a1f0b2c3d4e5f60",
    run_name=HOSTILE,
    status="FAILED",
    project=HOSTILE,
    phases=[("submitted in", 0.42), ("ran for", 12.34)],
    link='http://127.0.0.1:9/#/experiments/0/runs/4f2a"><script>',
    cause=HOSTILE,
    fix=HOSTILE,
    metrics={HOSTILE: 0.1234567, "r2": 1.0},
    lines=["\x1b[31mred\x1b[0m", "10%\r100%", HOSTILE, "x" * 5000],
)


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Ask a headless browser for a page that shows some HTML."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser is not None, "no browser: run tools/system-packages"

    def ask(html: str, *arguments: str, colours: str = "background:#fff;color:#111") -> bytes:
        page = tmp_path / "page.html"
        page.write_text(f'<!doctype html><meta charset="utf-8"><title>calm</title><body style="{colours}">{html}')
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
        command += ["--window-size=800,600", "--hide-scrollbars", *arguments, page.as_uri()]
        return subprocess.run(command, check=True, capture_output=True, timeout=120).stdout

    return ask


class _Texts(HTMLParser):
    """The tags and texts of a page as the browser understood it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_browser_shows_every_text_and_runs_none(browse: Browse) -> None:
    shown = _Texts()
    shown.feed(browse(CARD.html(), "--dump-dom").decode())
    text = "".join(shown.texts)
    assert "calm" in text  # the page's title: no script has changed it
    assert not {"script", "img", "link", "iframe"} & set(shown.tags)
    for expected in ("FAILED", "submitted in 0.4 s", "ran for 12.3 s", "0.123457", "red\n100%\n", CARD.run_id):
        assert expected in text
    assert text.count(HOSTILE) == 6
    assert max(map(len, text.split("\n"))) < 1000


@pytest.mark.parametrize("colours", ["background:#fff;color:#111", "background:#1e1e1e;color:#ddd"])
def test_a_browser_draws_it_on_light_and_on_dark(browse: Browse, tmp_path: Path, colours: str) -> None:
    drawn, empty = tmp_path / "card.png", tmp_path / "empty.png"
    browse(CARD.html(), f"--screenshot={drawn}", colours=colours)
    browse("", f"--screenshot={empty}", colours=colours)
    assert struct.unpack(">II", drawn.read_bytes()[16:24]) == (800, 600)
    assert drawn.stat().st_size > 3 * empty.stat().st_size


def test_nothing_is_fetched_and_an_odd_link_is_none() -> None:
    from dataclasses import replace

    for word in ("src=", "url(", "@import", "<link", "<script"):
        assert word not in replace(CARD, run_name="n", project="p", cause=None, fix=None, metrics={}, lines=[]).html()
    assert "href" not in replace(CARD, link="javascript:alert(1)").html()


def test_a_submitted_run_shows_itself(store: str, write_project: Write) -> None:
    script = "import mlflow\nwith mlflow.start_run():\n    mlflow.log_metric('letters', 5)\nprint('a < b')\n"
    folder = write_project({"MLproject": "entry_points: {main: {command: python x.py}}\n", "x.py": script})
    submitted = mlflow.projects.run(str(folder), backend="azureml", experiment_name="contract")
    html = submitted._repr_html_()
    assert "FINISHED" in html
    assert submitted.run_id in html
    assert "a &lt; b" in html
    assert "letters" in html
    assert "ran for" in html
