import os

os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
import mlflow

mlflow.set_tracking_uri("http://127.0.0.1:9")
mlflow.log_metric("loss", 0.1)
