"""Solve conda packages and install them into a prefix; run by path, so that rattler's threads are not the emulator's.

``python -I conda_prefix.py PREFIX CHANNEL… -- SPECIFICATION…``; channels are addresses, specifications are conda's.
What it does is on standard output; what goes wrong is one line on standard error and exit code 1. rattler's own
settings (``config.toml``, its cache, its authentication file) hold.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import rattler


async def main(prefix: Path, channels: list[str], specifications: list[str]) -> None:
    """Fill the prefix."""
    config = rattler.Config.load_from_default_locations("rattler")
    client = rattler.Client.from_config(config)
    print(f"Solving {', '.join(specifications)} from {', '.join(channels)}", flush=True)  # noqa: T201
    records = await rattler.solve(
        [rattler.Channel(channel) for channel in channels],
        specifications,
        gateway=rattler.Gateway(client=client),
        virtual_packages=rattler.VirtualPackage.detect(),
    )
    for record in records:
        print(f"+ {record.name.normalized} {record.version} {record.build}", flush=True)  # noqa: T201
    await rattler.install(records, prefix, client=client, config=config, show_progress=False)
    (prefix / "conda-meta" / "history").touch()


if __name__ == "__main__":
    split = sys.argv.index("--")
    code = 0
    try:
        asyncio.run(main(Path(sys.argv[1]), sys.argv[2:split], sys.argv[split + 1 :]))
    except Exception as error:  # rattler's errors have no common class that could be imported
        print(" ".join(str(error).split()), file=sys.stderr)  # noqa: T201
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # rattler's threads may still run, and touch an interpreter that is being taken down (0.28: SIGSEGV)
