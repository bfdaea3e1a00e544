"""Shuffles the 442 patients whose records scikit-learn ships, and leaves them as an artifact."""

import argparse
import csv
import random
import tempfile
from pathlib import Path

import mlflow
from sklearn.datasets import load_diabetes

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=float, default=0)
args = parser.parse_args()

patients = load_diabetes()
rows = [[*map(float, record), float(progress)] for record, progress in zip(patients.data, patients.target)]
random.Random(int(args.seed)).shuffle(rows)

with mlflow.start_run(), tempfile.TemporaryDirectory() as folder:
    table = Path(folder) / "patients.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    mlflow.log_artifact(table)
    mlflow.log_metric("patients", len(rows))
print(f"{len(rows)} patients")
