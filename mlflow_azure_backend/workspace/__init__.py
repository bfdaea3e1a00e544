"""Everything that knows Azure: which workspace, as whom, and how it is asked.

The only room that imports ``azure.*``; what also works inside a job, without Azure's libraries, is ``runtime/``.
"""
