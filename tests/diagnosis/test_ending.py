"""Which exception ended the program, told by programs that really run, and what must stay unknown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mlflow_azure_backend.diagnosis import Evidence, diagnose

RunScript = Callable[[Path, str, str], Evidence]

UNKNOWN = {
    # name: (command, train.py, where it is said to have failed)
    "exit code": (
        "python train.py",
        r"""
        import sys
        sys.exit(3)
        """,
        None,
    ),
    "words of its own": (
        "python train.py",
        r"""
        import sys
        sys.exit("[Errno 2] No such file or directory: 'data.csv'")
        """,
        None,
    ),
    "own class": (
        "python train.py",
        r"""
        class NoData(Exception): pass
        raise NoData("[Errno 2] No such file or directory: 'x.csv'")
        """,
        "train.py:2  raise NoData(\"[Errno 2] No such file or directory: 'x.csv'\")",
    ),
    "own FileNotFoundError": (
        "python train.py",
        r"""
        raise FileNotFoundError(2, 'No such file or directory', 'run prepare.py first')
        """,
        "train.py:1  raise FileNotFoundError(2, 'No such file or directory', 'run prepare.py first')",
    ),
    "own ModuleNotFoundError": (
        "python train.py",
        r"""
        def need():
            raise ModuleNotFoundError("No module named 'pandas'")
        need()
        """,
        "train.py:2  raise ModuleNotFoundError(\"No module named 'pandas'\")",
    ),
    "own MemoryError": (
        "python train.py",
        r"""
        raise MemoryError
        """,
        "train.py:1  raise MemoryError",
    ),
    "own PermissionError": (
        "python train.py",
        r"""
        raise PermissionError(13, 'Permission denied', 'you')
        """,
        "train.py:1  raise PermissionError(13, 'Permission denied', 'you')",
    ),
    "assertion": (
        "python train.py",
        r"""
        accuracy = 0.1
        assert accuracy > 0.5
        """,
        "train.py:2  assert accuracy > 0.5",
    ),
    "key of a dict": (
        "python train.py",
        r"""
        print({'a': 1}['b'])
        """,
        "train.py:1  print({'a': 1}['b'])",
    ),
    "arithmetic": (
        "python train.py",
        r"""
        def f(x):
            return 1 / x
        f(0)
        """,
        "train.py:2  return 1 / x",
    ),
    "a name": (
        "python train.py",
        r"""
        print(model)
        """,
        "train.py:1  print(model)",
    ),
    "a number in the data": (
        "python train.py",
        r"""
        float('abc')
        """,
        "train.py:1  float('abc')",
    ),
    "text that is not a file": (
        "python train.py",
        r"""
        import json
        json.loads("{'a': 1}")
        """,
        "train.py:2  json.loads(\"{'a': 1}\")",
    ),
    "surrogates": (
        "python train.py",
        r"""
        open('x', 'w').write('\udc80')
        """,
        "train.py:1  open('x', 'w').write('\\udc80')",
    ),
    "recursion": (
        "python train.py",
        r"""
        def f(x):
            return f(x)
        f(0)
        """,
        "train.py:2  return f(x)",
    ),
    "survived, then an exit code": (
        "python train.py",
        r"""
        import sys, traceback
        try:
            open('x.csv')
        except OSError:
            traceback.print_exc()
        print('on')
        sys.exit(3)
        """,
        None,
    ),
    "survived, then another end": (
        "python train.py",
        r"""
        import sys, traceback
        try:
            import nothere
        except ImportError:
            traceback.print_exc()
        sys.exit('accuracy too low')
        """,
        None,
    ),
    "survived by a with": (
        "python train.py",
        r"""
        import sys, traceback, contextlib
        @contextlib.contextmanager
        def survive():
            try:
                yield
            except OSError:
                traceback.print_exc()
        with survive():
            open('x.csv')
        sys.exit('too low')
        """,
        None,
    ),
    "only printed": (
        "python train.py",
        r"""
        print('OSError: [Errno 28] No space left on device')
        raise SystemExit(1)
        """,
        None,
    ),
    "only printed too": (
        "python train.py",
        r"""
        print('MemoryError')
        raise SystemExit(1)
        """,
        None,
    ),
    "in another thread": (
        "python train.py",
        r"""
        import sys, threading
        thread = threading.Thread(target=open, args=('x.csv',))
        thread.start()
        thread.join()
        sys.exit(1)
        """,
        None,
    ),
    "at the very end": (
        "python train.py",
        r"""
        import atexit, sys
        atexit.register(open, 'x.csv')
        sys.exit(1)
        """,
        None,
    ),
    "another command went on": (
        "python train.py; echo on; exit 1",
        r"""
        open('x.csv')
        """,
        "train.py:1  open('x.csv')",
    ),
    "another exit code": (
        "python train.py || exit 7",
        r"""
        open('x.csv')
        """,
        "train.py:1  open('x.csv')",
    ),
    "a group of two": (
        "python train.py",
        r"""
        import asyncio
        async def main():
            return await asyncio.gather(asyncio.sleep(0, 1), fail())
        async def fail():
            return [][1]
        asyncio.run(main())
        """,
        "train.py:5  return [][1]",
    ),
    "a row of a data frame": (
        "python train.py",
        r"""
        import pandas
        pandas.DataFrame({'a': [1]}).loc['r']
        """,
        "train.py:2  pandas.DataFrame({'a': [1]}).loc['r']",
    ),
    "a child": (
        "python train.py",
        r"""
        import subprocess
        subprocess.run(['bash', '-c', 'echo No such file or directory; exit 3'], check=True)
        """,
        "train.py:2  subprocess.run(['bash', '-c', 'echo No such file or directory; exit 3'], check=True)",
    ),
    "bash": ("echo 'No module named x'; exit 1", "", None),
    "137 alone": ("exit 137", "", None),
    "139 alone": ("echo Segmentation violation; exit 139", "", None),
    "127 alone": ("exit 127", "", None),
    "127 and words": ("echo 'crash: foo: command not found'; exit 127", "", None),
    "126 alone": ("echo 'train.py: Permission denied'; exit 126", "", None),
    "2 and words": ("echo 'error: argument --alpha: invalid float value'; exit 2", "", None),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_certain_stays_unknown(name: str, run_script: RunScript, tmp_path: Path) -> None:
    command, source, at = UNKNOWN[name]
    said = diagnose(run_script(tmp_path, command, source))
    assert (said.cause_id, said.at, said.fix) == ("unknown", at, None)


def test_an_unknown_end_is_told_in_the_programs_own_words(run_script: RunScript, tmp_path: Path) -> None:
    assert (
        diagnose(run_script(tmp_path, "python train.py", "import sys\nsys.exit(3)")).cause
        == "the command exited with 3"
    )
    said = diagnose(run_script(tmp_path, "python train.py", "raise ValueError('the rate\\nmust be positive')"))
    assert said.cause == "ValueError: the rate"


KNOWN = {
    # name: (train.py, cause, where)
    "a note": (
        r"""
        def load():
            try:
                open('x.csv')
            except OSError as error:
                error.__notes__ = ['while loading', 'the rows']
                raise
        load()
        """,
        "missing-file",
        "train.py:3  open('x.csv')",
    ),
    "from": (
        r"""
        def load():
            try:
                open('x.csv')
            except OSError as error:
                raise RuntimeError('no rows') from error
        load()
        """,
        "missing-file",
        "train.py:3  open('x.csv')",
    ),
    "while handling": (
        r"""
        try:
            open('x.csv')
        except OSError:
            import nothere
        """,
        "missing-module",
        "train.py:4  import nothere",
    ),
    "a pool": (
        r"""
        import multiprocessing
        def load(name):
            return open(name)
        if __name__ == '__main__':
            with multiprocessing.get_context('fork').Pool(1) as pool:
                pool.map(load, ['x.csv'])
        """,
        "missing-file",
        "train.py:3  return open(name)",
    ),
    "a process": (
        r"""
        import multiprocessing
        def load():
            return open('x.csv')
        worker = multiprocessing.get_context('fork').Process(target=load)
        worker.start()
        worker.join()
        raise SystemExit(worker.exitcode)
        """,
        "missing-file",
        "train.py:3  return open('x.csv')",
    ),
    "a child": (
        r"""
        import subprocess, sys
        if sys.argv[1:]:
            import nothere
        else:
            subprocess.run([sys.executable, __file__, 'x'], check=True)
        """,
        "missing-module",
        "train.py:3  import nothere",
    ),
    "told and exited": (
        r"""
        import sys, traceback
        try:
            open('x.csv')
        except OSError:
            traceback.print_exc()
            sys.exit(1)
        """,
        "missing-file",
        "train.py:3  open('x.csv')",
    ),
    "logged and exited": (
        r"""
        import logging, sys
        def main():
            try:
                open('x.csv')
            except OSError:
                logging.exception('no rows')
                sys.exit(1)
        main()
        """,
        "missing-file",
        "train.py:4  open('x.csv')",
    ),
    "a bar": (
        r"""
        import sys
        sys.stderr.write('\r 10%|#   |\r 20%|##  | 2/10')
        open('x.csv')
        """,
        "missing-file",
        "train.py:3  open('x.csv')",
    ),
    "others' last words": (
        r"""
        import atexit
        atexit.register(print, 'wandb: Run history:\nwandb: loss 1')
        with open('train.py'):
            open('x.csv')
        """,
        "missing-file",
        "train.py:4  open('x.csv')",
    ),
    "its own last words": (
        r"""
        import atexit
        atexit.register(print, 'rows read: 0\nbye')
        open('x.csv')
        """,
        "missing-file",
        "train.py:3  open('x.csv')",
    ),
    "no room in a finaliser": (
        r"""
        class Model:
            def __del__(self):
                raise ValueError
        model = Model()
        open('x.csv')
        """,
        "missing-file",
        "train.py:5  open('x.csv')",
    ),
    "a library's own": (
        r"""
        import json
        json.load(open('x.json'))
        """,
        "missing-file",
        "train.py:2  json.load(open('x.json'))",
    ),
    "several lines": (
        r"""
        print(
            open(
                'x.csv'
            )
        )
        """,
        "missing-file",
        "train.py:2  open(",
    ),
    "quotes in a name": (
        r"""
        open('a "b\' c.csv')
        """,
        "missing-file",
        "train.py:1  open('a \"b\\' c.csv')",
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_right_exception_is_found_however_it_is_told(name: str, run_script: RunScript, tmp_path: Path) -> None:
    source, cause, at = KNOWN[name]
    seen = run_script(tmp_path, "python train.py", source)
    said = diagnose(seen)
    assert (said.cause_id, said.at) == (cause, at), seen.log_tail.decode()


def test_the_working_folder_may_have_any_name(run_script: RunScript, tmp_path: Path) -> None:
    folder = tmp_path / "a\nb \"c\" 'd' é\u2028 {e} ; rm -rf"
    folder.mkdir()
    said = diagnose(run_script(folder, "python train.py", "open('x.csv')"))
    assert (said.cause_id, said.at) == ("missing-file", "train.py:1  open('x.csv')")


def test_a_linked_working_folder_is_the_users_own(run_script: RunScript, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to("real")
    assert diagnose(run_script(link, "python train.py", "open('x.csv')")).at == "train.py:1  open('x.csv')"
