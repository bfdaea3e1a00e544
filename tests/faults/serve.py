"""MLflow's own tracking server, its real handlers, as a light process: ``serve.py`` with PORT_FILE, BACKEND and ARTIFACTS."""

from __future__ import annotations

import os
import socketserver
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


class Server(socketserver.ThreadingMixIn, WSGIServer):
    """One thread for each connection."""

    daemon_threads = True
    request_queue_size = 128


class Handler(WSGIRequestHandler):
    """HTTP/1.1 is not spoken by ``wsgiref``: each connection is one request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def main() -> None:
    """Serve for ever; the port is in ``PORT_FILE`` once that can be asked."""
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = os.environ["BACKEND"]
    os.environ["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] = os.environ["ARTIFACTS"]
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = "mlflow-artifacts:/"
    os.environ["_MLFLOW_SERVER_SERVE_ARTIFACTS"] = "true"
    os.environ["MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE"] = "true"
    from mlflow.server import app

    with make_server("127.0.0.1", int(os.environ.get("PORT", "0")), app, Server, Handler) as server:
        staged = Path(os.environ["PORT_FILE"] + ".new")
        staged.write_text(str(server.server_port))
        staged.replace(os.environ["PORT_FILE"])
        server.serve_forever()


if __name__ == "__main__":
    main()
