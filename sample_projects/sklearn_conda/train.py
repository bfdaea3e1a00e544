"""Tells three growers' wines apart by their chemistry, from the 178 bottles whose analyses scikit-learn ships."""

import argparse
import os

import mlflow
import mlflow.sklearn
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strength", type=float, default=1.0, help="of the penalty on large weights")
    args = parser.parse_args()
    wines = load_wine()
    print(f"strength={args.strength}  bottles={len(wines.target)}  in {os.environ.get('CONDA_PREFIX', 'no conda prefix')}")
    with mlflow.start_run():
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / args.strength))
        scores = cross_val_score(model, wines.data, wines.target, cv=5)
        for fold, score in enumerate(scores):
            mlflow.log_metric("accuracy_of_fold", score, step=fold)
        mlflow.log_metric("accuracy", scores.mean())
        print(f"accuracy {scores.mean():.3f}")
        mlflow.sklearn.log_model(model.fit(wines.data, wines.target), name="model")


if __name__ == "__main__":
    main()
