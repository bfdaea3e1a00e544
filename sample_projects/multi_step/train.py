"""Fits a ridge regression on the first four fifths of the patients, and tries it on the others."""

import argparse
import csv
from pathlib import Path

import mlflow
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--patients", required=True, help="URI of the table")
parser.add_argument("--alpha", type=float, default=0.5)
args = parser.parse_args()

table = Path(mlflow.artifacts.download_artifacts(args.patients))
with table.open(newline="") as file:
    rows = [[float(cell) for cell in row] for row in csv.reader(file)]
split = len(rows) * 4 // 5
x, y = [row[:-1] for row in rows], [row[-1] for row in rows]

with mlflow.start_run():
    model = Ridge(alpha=args.alpha).fit(x[:split], y[:split])
    r2 = r2_score(y[split:], model.predict(x[split:]))
    mlflow.log_metric("r2", r2)
print(f"r2 {r2:.3f}")
