import mlflow

print(mlflow.__version__)
