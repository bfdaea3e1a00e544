"""Predicts the progression of diabetes from the 442 patients whose records scikit-learn ships.

An elastic net is trained by stochastic gradient descent, so that there is a curve to look at.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import mlflow
import mlflow.sklearn
from sklearn.datasets import load_diabetes
from sklearn.linear_model import SGDRegressor
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alpha", type=float, default=0.5, help="strength of the penalty")
    parser.add_argument("--l1-ratio", type=float, default=0.5, help="share of the L1 penalty")
    parser.add_argument("--epochs", type=float, default=40)
    return parser.parse_args()


def train(args):
    patients = load_diabetes()
    x_train, x_test, y_train, y_test = train_test_split(patients.data, patients.target, random_state=0)
    print(f"alpha={args.alpha}  patients={len(patients.target)}")
    scaler = StandardScaler().fit(x_train)
    model = SGDRegressor(
        penalty="elasticnet", alpha=args.alpha / 10, l1_ratio=args.l1_ratio, eta0=0.002, random_state=0
    )
    curve = []
    for epoch in range(int(args.epochs)):
        model.partial_fit(scaler.transform(x_train), y_train)
        error = mean_squared_error(y_test, model.predict(scaler.transform(x_test))) ** 0.5
        mlflow.log_metric("rmse", error, step=epoch)
        curve.append(error)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3d}  rmse {error:.2f}")
    r2 = r2_score(y_test, model.predict(scaler.transform(x_test)))
    mlflow.log_metric("r2", r2)
    print(f"r2 {r2:.3f}")
    return make_pipeline(scaler, model), curve


def draw(curve):
    figure, axes = plt.subplots()
    axes.plot(range(1, len(curve) + 1), curve)
    axes.set(xlabel="epoch", ylabel="rmse", title="error on patients that were held out")
    outputs = Path("outputs")
    outputs.mkdir(exist_ok=True)
    figure.savefig(outputs / "rmse.png")


def main():
    args = parse_arguments()
    with mlflow.start_run():
        model, curve = train(args)
        draw(curve)
        mlflow.sklearn.log_model(model, name="model")


if __name__ == "__main__":
    main()
