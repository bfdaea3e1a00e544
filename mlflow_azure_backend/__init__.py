"""Run any MLproject on this machine, in a container or on Azure Machine Learning.

The way through the package is drawn in ``docs/how_it_works.md``; start reading at ``backend.py``.
"""

__version__ = "0.1.0"
