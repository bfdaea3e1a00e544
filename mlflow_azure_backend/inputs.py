"""What a job reads that is not in its project: ``path`` parameters and the ``inputs`` of the configuration."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import unquote, urlsplit

from mlflow_azure_backend.errors import ConfigError, ParameterError
from mlflow_azure_backend.project import Argument, ParameterType, is_remote
from mlflow_azure_backend.redaction import without_credentials

if TYPE_CHECKING:
    from mlflow_azure_backend.config import BackendConfig, DataInput, DataOutput

    Item = TypeVar("Item", DataInput, DataOutput)

INPUT_VARIABLE: Final = "AZURE_ML_INPUT_"
"""Before the name of an input: the variable of the job that says where it is, as in Azure ML's own jobs."""

_MLFLOW_SERVER: Final = "/mlflow-artifacts/artifacts"
"""In the path of an HTTP address that MLflow's own client downloads."""
_SECONDS: Final = 60.0
"""How long a web server may be silent."""
_FOLDERS: Final = ("uri_folder", "mltable", "mlflow_model")


def with_places(config: BackendConfig, arguments: Sequence[Argument], client_folder: Path) -> BackendConfig:
    """The configuration with the absolute path of every input and output that is on this machine.

    Args:
        config: As the user wrote it.
        arguments: The project's parameters: a ``path`` is an input by its own name.
        client_folder: Where a relative path starts.

    Raises:
        ConfigError: An input is not there or not of its type, or an output cannot be where it is to be; names all.
    """
    if not config.inputs and not config.outputs:
        return config
    inputs = {name: _placed(item, client_folder) for name, item in config.inputs.items()}
    outputs = {name: _placed(item, client_folder) for name, item in config.outputs.items()}
    paths = {argument.name for argument in arguments if argument.type is ParameterType.PATH}
    problems = [f"inputs.{name}: the project has a path parameter of that name" for name in inputs if name in paths]
    problems += [f"inputs.{name}: {text}" for name, item in inputs.items() for text in _problems_of_input(item)]
    problems += [f"outputs.{name}: {text}" for name, item in outputs.items() for text in _problems_of_output(item)]
    if problems:
        raise ConfigError("; ".join(problems), where="backend_config")
    return config.model_copy(update={"inputs": inputs, "outputs": outputs})


def refuse_remote(outputs: Mapping[str, DataOutput]) -> None:
    """For jobs on this machine, which write to this machine.

    Raises:
        ConfigError: An output is to go elsewhere; names all of them.
    """
    if names := [f"outputs.{name}" for name, output in outputs.items() if output.path and is_remote(output.path)]:
        raise ConfigError(
            f"{', '.join(names)}: a job on this machine writes to a folder of this machine",
            where="backend_config",
            next_step="leave path out: the output becomes an artifact of the run",
        )


def refuse_local(outputs: Mapping[str, DataOutput]) -> None:
    """For jobs elsewhere, which do not see the folders of this machine.

    Raises:
        ConfigError: An output is to go to this machine; names all of them.
    """
    if names := [f"outputs.{name}" for name, output in outputs.items() if output.path and not is_remote(output.path)]:
        raise ConfigError(
            f"{', '.join(names)}: a job in a workspace cannot write to a folder of this machine",
            where="backend_config",
            next_step="leave path out, or name a place of the workspace: azureml://datastores/NAME/paths/FOLDER",
        )


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
    paths = [argument for argument in arguments if argument.type is ParameterType.PATH]
    return _fetch({argument.name: argument.given for argument in paths}, storage_dir, progress)


def fetch_inputs(
    inputs: Mapping[str, DataInput], storage_dir: Path | None, progress: Callable[[str], None]
) -> dict[str, Path]:
    """Where on this machine each input is; remote ones are downloaded, as remote ``path`` parameters are.

    Raises:
        ParameterError: One cannot be downloaded.
        ConfigError: What was downloaded is not of its type.
    """
    wanted = {f"inputs.{name}": item.path for name, item in inputs.items()}
    fetched = _fetch(wanted, storage_dir, progress)
    found = {name: Path(fetched.get(f"inputs.{name}", item.path)) for name, item in inputs.items()}
    for name, item in inputs.items():
        if problem := next(_problems_of_type(found[name], item.type), None):
            raise ConfigError(problem, where=f"inputs.{name}")
    return found


def _placed(item: Item, folder: Path) -> Item:
    """A relative path starts at ``folder``; a ``file:`` URI of this machine is a path."""
    if item.path is None or is_remote(item.path):
        return item
    plain = unquote(urlsplit(item.path).path) if item.path.startswith("file:") else item.path
    return item.model_copy(update={"path": str(folder.absolute() / plain)})


def _problems_of_input(item: DataInput) -> Iterator[str]:
    if not is_remote(item.path):
        path = Path(item.path)
        yield from _problems_of_type(path, item.type) if path.exists() else (f"there is no {path}",)
    elif _is_web_file(item.path) and item.type in _FOLDERS:
        yield f'a web address is one file: add "type": "uri_file" ({without_credentials(item.path)})'


def _problems_of_output(item: DataOutput) -> Iterator[str]:
    if item.path is None or is_remote(item.path):
        return
    path = Path(item.path)
    if item.type == "uri_file":
        if path.is_dir():
            yield f'{path} is a folder: add "type": "uri_folder", or name a file in it'
        path = path.parent
    if path.exists() and not path.is_dir():
        yield f"{path} is a file, and the output needs a folder there"


def _problems_of_type(path: Path, kind: str) -> Iterator[str]:
    if kind == "uri_file" and path.is_dir():
        yield f'{path} is a folder: leave out "type": "uri_file"'
    elif kind in _FOLDERS and not path.is_dir():
        yield f'{path} is a file: add "type": "uri_file"'


def _fetch(wanted: Mapping[str, str], storage_dir: Path | None, progress: Callable[[str], None]) -> dict[str, str]:
    """The local copy of each that is remote, by its name."""
    remote = {name: address for name, address in wanted.items() if is_remote(address)}
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
    for position, (name, address) in enumerate(remote.items()):
        if address.startswith("azureml:") and not address.startswith("azureml://"):
            what = f"{address} is registered in a workspace, and only a job there can read it"
            raise ParameterError(what, where=name, next_step="give the address of its files, or a cluster as compute")
        progress(f"downloading {without_credentials(address)}")
        target = folder / f"param_{position}"
        target.mkdir()
        try:
            if _is_web_file(address):
                fetched[name] = str(_download(address, target))
            else:
                fetched[name] = download_artifacts(artifact_uri=address, dst_path=str(target))
        except Exception as error:  # the artifact stores' own kinds are countless
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ParameterError(
                f"{without_credentials(address)} cannot be downloaded: {without_credentials(reason)}",
                where=name,
                next_step="check the address and that you may read it",
            ) from error
    return fetched


def _is_web_file(address: str) -> bool:
    """Whether it is a plain file of a web server, which MLflow's HTTP client takes for its own server's."""
    parts = urlsplit(address)
    return parts.scheme in ("http", "https") and _MLFLOW_SERVER not in parts.path


def _download(address: str, folder: Path) -> Path:
    import requests  # MLflow has loaded it

    place = folder / (Path(unquote(urlsplit(address).path)).name or "download")
    with requests.get(address, stream=True, timeout=_SECONDS) as answer, place.open("wb") as stream:
        answer.raise_for_status()
        answer.raw.decode_content = True
        shutil.copyfileobj(answer.raw, stream)
    return place
