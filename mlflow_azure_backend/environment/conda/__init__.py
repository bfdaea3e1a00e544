"""Conda environments without conda: read, solved by rattler and uv, locked in conda-lock's format.

``file.py`` reads a conda.yaml, ``wanted.py`` says what is to be resolved, ``solver.py`` resolves it in a process of its
own, ``locking.py`` starts that process and understands what it gives, ``building.py`` starts ``installing.py``. Only
those two processes import rattler and conda_lock, so a warm run loads neither.
"""
