"""Fails as freshly cloned projects do: a package is missing."""

import a_package_that_nobody_has

print(a_package_that_nobody_has)
