"""What to install for an optional part of this package. Pure."""

import importlib.metadata
import re


def install_command(*extras: str) -> str:
    """Return the command that brings what some extras of this package need, package by package.

    Not `pip install sweeper[EXTRA]`: where this package came from is not known here, and an index may have another one
    of its name.
    """
    wanted = []
    for line in importlib.metadata.requires("sweeper") or ():
        requirement, _, marker = line.partition(";")
        named = re.search(r"""extra\s*==\s*["']([^"']+)["']""", marker)
        if named is not None and named[1] in extras:
            wanted.append(f"'{requirement.strip()}'")
    return " ".join(["pip install", *wanted])
