"""Causes in the machine that the program met: memory of the GPU, no GPU, no screen, no keyboard, worker processes."""

from __future__ import annotations

import re
from typing import Final

from mlflow_azure_backend.diagnosis.case import Case, Finding, on_error, set_config, set_parameter, set_variable
from mlflow_azure_backend.diagnosis.ending import read_source
from mlflow_azure_backend.diagnosis.files import SHARED_MEMORY
from mlflow_azure_backend.diagnosis.outcomes import less_at_a_time

_ANY: Final = (
    "RuntimeError AssertionError torch.OutOfMemoryError torch.cuda.OutOfMemoryError torch.AcceleratorError"
    " cupy.cuda.memory.OutOfMemoryError tensorflow.python.framework.errors_impl.ResourceExhaustedError"
)


@on_error(_ANY, r"^CUDA out of memory|^CUDA error: out of memory|OOM when allocating tensor|^Out of memory allocating ")
def gpu_out_of_memory(case: Case, found: re.Match[str]) -> Finding:
    """The GPU's memory is full, not the machine's."""
    asked = re.search(r"Tried to allocate ([\d.]+ \w+)", found.string)
    amount = "" if asked is None else f" when it asks for {asked[1]} more"
    return Finding(f"the GPU is out of memory{amount}", less_at_a_time(case))


@on_error(
    _ANY,
    r"^Torch not compiled with CUDA enabled|^Found no NVIDIA driver on your system|^No CUDA GPUs are available"
    r"|^Attempting to deserialize object on a CUDA device but torch\.cuda\.is_available\(\) is False",
)
def no_gpu(case: Case, found: re.Match[str]) -> Finding:
    """The program wants a GPU, and there is none that PyTorch can use."""
    if found[0].startswith("Attempting"):
        return Finding(
            f"{case.place} loads what was saved on a GPU, and there is none here", 'load it with:  map_location="cpu"'
        )
    cpu_only = found[0].startswith("Torch not compiled")
    cause = (
        "the installed PyTorch is built without CUDA" if cpu_only else "this machine has no GPU that PyTorch can use"
    )
    devices = [
        name for name, value in case.evidence.parameters.items() if re.fullmatch(r"(?:cuda|gpu)(?::\d+)?", value)
    ]
    return Finding(cause, set_parameter(devices[0], "cpu") if len(devices) == 1 else None)


@on_error(
    "RuntimeError",
    r"^DataLoader worker \(pid.*(?:insufficient shared memory|Bus error)"
    r"|^unable to (?:open|write to|mmap) .*shared memory",
)
def shared_memory_full(_case: Case, _found: re.Match[str]) -> Finding:
    """PyTorch's loader processes hand over their data in /dev/shm."""
    fix = f"give it more:  {set_config('resources', {'shm_size': '8g'})}"
    return Finding(f"{SHARED_MEMORY}, where the loader's processes hand over their data, is full", fix)


@on_error(
    "_tkinter.TclError ImportError",
    r"^no display name and no \$DISPLAY|as 'headless' is currently running$|couldn't connect to display",
)
def no_display(case: Case, _found: re.Match[str]) -> Finding:
    """A window was to be opened, and a job has no screen."""
    cause = f"{case.place} opens a window, and a job has no screen"
    text = None if case.file is None else read_source(case.evidence.project_folder, case.file)
    for number, line in enumerate((text or "").split("\n"), start=1):
        chosen = re.search(r"\b(?:matplotlib|mpl|plt)\.(?:use|switch_backend)\(([\"']\w+[\"'])\)", line)
        if chosen is not None:
            source = line.strip().replace(chosen[1], '"Agg"')
            return Finding(cause, f"in {case.file}:{number} write:  {source}")
    drawn = case.went_through("matplotlib/pyplot.py", "matplotlib/__init__.py")
    return Finding(cause, f"draw into files only:  {set_variable('MPLBACKEND', 'Agg')}" if drawn else None)


@on_error("EOFError", "^EOF when reading a line$")
def asks_for_input(case: Case, _found: re.Match[str]) -> Finding:
    """``input()`` met the end of an empty standard input."""
    return Finding(
        f"{case.place} asks for input, and nothing answers: a job has no keyboard",
        "take the answer from a parameter instead of input()",
    )


@on_error(
    "TypeError AttributeError _pickle.PicklingError",
    r"^cannot pickle '([^']+)' object|^Can't (?:pickle|get) local object '?([^']+)'?"
    r"|^Can't pickle (<(?:function|class) [^>]*>+): ",
)
def cannot_pickle(case: Case, found: re.Match[str]) -> Finding:
    """An object cannot travel to another process or into a file."""
    what = next(filter(None, found.groups()))
    if found[1] is not None:
        return Finding(f"{case.place} sends or stores an object of type {what}, which cannot be pickled")
    cause = f"{case.place} sends or stores {what}, which cannot be pickled: it is not at the top level of a module"
    return Finding(cause, "define it with def at the top level of the file")


@on_error("RuntimeError", "^$")
def no_main_guard(case: Case, _found: re.Match[str]) -> Finding | None:
    """A started process imports the script, which starts a process, and so on."""
    if not case.went_through("multiprocessing/spawn.py") or case.error is None:
        return None
    if not case.error.frames[-1].source.startswith("raise RuntimeError('''"):
        return None
    return Finding(
        f"{case.place} starts a process while the script is being imported by one",
        'put what starts processes under:  if __name__ == "__main__":',
    )
