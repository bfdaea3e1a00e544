"""Tells three growers' wines apart by their chemistry, from the 178 bottles whose analyses scikit-learn ships."""

import argparse
import os

import mlflow
import mlflow.sklearn
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", type=float, default=100)
    args = parser.parse_args()
    wines = load_wine()
    print(f"trees={args.trees:.0f}  bottles={len(wines.target)}  in {os.environ.get('CONDA_PREFIX', 'no conda prefix')}")
    with mlflow.start_run():
        model = RandomForestClassifier(n_estimators=int(args.trees), random_state=0)
        scores = cross_val_score(model, wines.data, wines.target, cv=5)
        for fold, score in enumerate(scores):
            mlflow.log_metric("accuracy_of_fold", score, step=fold)
        mlflow.log_metric("accuracy", scores.mean())
        print(f"accuracy {scores.mean():.3f}")
        mlflow.sklearn.log_model(model.fit(wines.data, wines.target), name="model")


if __name__ == "__main__":
    main()
