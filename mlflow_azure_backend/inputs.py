"""What a job reads that is not in its project: remote ``path`` parameters, fetched to this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mlflow_azure_backend.errors import ParameterError
from mlflow_azure_backend.project import Argument, ParameterType, is_remote
from mlflow_azure_backend.redaction import without_credentials


def fetch_remote_paths(
    arguments: Sequence[Argument], storage_dir: Path | None, progress: Callable[[str], None]
) -> dict[str, str]:
    """Download every remote ``path`` parameter, as MLflow does: to a new folder below the storage directory.

    Args:
        arguments: The job's parameters.
        storage_dir: MLflow's ``--storage-dir``; None for the temporary directory.
        progress: Told of each download.

    Returns:
        The local path of each parameter that was fetched, by its name.

    Raises:
        ParameterError: One cannot be downloaded.
    """
    remote = [argument for argument in arguments if argument.type is ParameterType.PATH and is_remote(argument.given)]
    if not remote:
        return {}
    from mlflow.artifacts import download_artifacts  # seconds to import, and rarely needed

    fetched = {}
    try:
        if storage_dir is not None:
            storage_dir.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="mlflow-azure-", dir=storage_dir))
    except OSError as error:
        raise ParameterError(
            f"the storage directory cannot be used: {error.strerror}",
            where=storage_dir,
            next_step="give another --storage-dir",
        ) from None
    for position, argument in enumerate(remote):
        progress(f"downloading {without_credentials(argument.given)}")
        target = folder / f"param_{position}"
        target.mkdir()
        try:
            fetched[argument.name] = download_artifacts(artifact_uri=argument.given, dst_path=str(target))
        except Exception as error:  # the artifact stores' own kinds are countless
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ParameterError(
                f"{without_credentials(argument.given)} cannot be downloaded: {without_credentials(reason)}",
                where=argument.name,
                next_step="check the address and that you may read it",
            ) from error
    return fetched
