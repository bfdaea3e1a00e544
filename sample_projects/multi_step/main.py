"""Two steps, each a run of its own below this one; the second reads what the first has left."""

import argparse

import mlflow

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--alpha", type=float, default=0.5)
parser.add_argument("--backend", default="local", help="the backend of the two steps")
args = parser.parse_args()


def step(entry_point, **parameters):
    # The environment is this program's own, which has all that the steps need.
    submitted = mlflow.projects.run(
        ".", entry_point, parameters=parameters, backend=args.backend, env_manager="local", run_name=entry_point
    )
    return mlflow.get_run(submitted.run_id)


with mlflow.start_run():
    prepared = step("prepare", seed=0)
    trained = step("train", patients=f"runs:/{prepared.info.run_id}/patients.csv", alpha=args.alpha)
    mlflow.log_metric("r2", trained.data.metrics["r2"])
    print(f"r2 {trained.data.metrics['r2']:.3f}")
