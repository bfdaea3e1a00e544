"""Greets, and logs how long the greeting was; needs nothing but MLflow."""

import argparse

import mlflow

parser = argparse.ArgumentParser()
parser.add_argument("--name", default="world")
name = parser.parse_args().name

greeting = f"hello, {name}"
print(greeting)
with mlflow.start_run():
    mlflow.log_metric("letters", len(greeting))
