"""Write the published schema: ``python -m mlflow_azure_backend.config docs/backend_config.schema.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mlflow_azure_backend.config.schema import json_schema


def schema_text() -> str:
    """The content of the published file."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m mlflow_azure_backend.config FILE")
    Path(sys.argv[1]).write_text(schema_text(), encoding="utf-8")
