"""Estimates pi by throwing darts; needs nothing but Python, so any image with one will do."""

import argparse
import json
import random
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--trials", type=float, default=100_000)
parser.add_argument("--seed", type=float, default=7)
arguments = parser.parse_args()

darts = random.Random(int(arguments.seed))
hits = sum(darts.random() ** 2 + darts.random() ** 2 < 1 for _ in range(int(arguments.trials)))
estimate = 4 * hits / arguments.trials
print(f"pi is about {estimate:.4f}")

outputs = Path("outputs")
outputs.mkdir(exist_ok=True)
(outputs / "estimate.json").write_text(json.dumps({"estimate": estimate, "trials": int(arguments.trials)}))
