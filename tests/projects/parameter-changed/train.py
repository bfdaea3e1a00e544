import mlflow

mlflow.log_param("rate", 0.1)
mlflow.log_param("rate", 0.2)
