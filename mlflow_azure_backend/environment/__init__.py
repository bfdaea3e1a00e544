"""From what a project asks for to a folder with it: specification, lock, prefix.

``spec.py`` reads what is wanted (``EnvironmentSpec``), ``resolving.py`` resolves it to exact packages with their hashes
(``EnvironmentLock``, in ``lock.py``), ``store.py`` keeps one built prefix for each lock. The others serve
these. Nothing is imported here, so that a warm run loads only what it uses.
"""
