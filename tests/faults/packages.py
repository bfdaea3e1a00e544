"""Environments that are built in a second and ask nobody: one wheel, or one conda package, made here."""

from __future__ import annotations

import base64
import hashlib
import zipfile

from tests.conda_channel import Channel
from tests.faults.world import World

_FILES = {
    "alpha.py": "VERSION = '1.0'\n",
    "alpha-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: alpha\nVersion: 1.0\n",
    "alpha-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}


def project_with_environment(world: World) -> None:
    """Give the world's project an environment of its own, to be built."""
    wheel = world.project / "wheels" / "alpha-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in _FILES.items())
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**_FILES, "alpha-1.0.dist-info/RECORD": f"{record}alpha-1.0.dist-info/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    lines = "dependencies:\n  - --no-index\n  - --find-links wheels\n  - alpha\n"
    (world.project / "python_env.yaml").write_text(lines)
    command = "python -c 'import alpha' && python -I -S child.py"
    (world.project / "MLproject").write_text(
        f'python_env: python_env.yaml\nentry_points: {{main: {{command: "{command}"}}}}\n'
    )
    world.environment |= {"UV_CACHE_DIR": str(world.folder / "uv-cache"), "PIP_CONFIG_FILE": "/dev/null"}


def project_with_conda_environment(world: World) -> None:
    """Give the world's project an environment of one conda package, from a channel of its own."""
    channel = Channel(world.folder / "channel")
    channel.add("alpha", "1.0", {"bin/alpha": "#!/bin/sh\n"})
    channel.index()
    lines = f"channels: ['{channel.folder.as_uri()}']\ndependencies: [alpha]\n"
    (world.project / "conda.yaml").write_text(lines)
    (world.project / "MLproject").write_text(
        'conda_env: conda.yaml\nentry_points: {main: {command: "alpha && python -I -S child.py"}}\n'
    )
    world.environment |= {"RATTLER_CACHE_DIR": str(world.folder / "rattler"), "RATTLER_HOME": str(world.folder)}


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
