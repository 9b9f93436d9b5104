"""What one node of a cluster has and sees. Uses the standard library alone and travels to the node as it is, so that a
node without sweeper, or with another version of it, can be asked too."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from typing import Any

_GPU_PROGRAM = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
_GPU_S = 120.0


def look(
    *,
    packages: Sequence[str],
    paths: Sequence[str],
    disks: Sequence[str],
    token: str | None,
    counts_gpus: bool,
    modules: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what this node has.

    Args:
        packages: Whose versions are asked for.
        paths: Files and directories that should be there.
        disks: Directories, or the nearest above them that exist, whose free room is asked for.
        token: A file that the driver has just written where the study will lie; its text is returned.
        counts_gpus: Whether torch is asked for its GPUs, which takes seconds.
        modules: That should be there to be imported; none of them is.
    """
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "host": socket.gethostname(),
        "versions": versions,
        "lacking": [module for module in modules if importlib.util.find_spec(module) is None],
        "missing": [path for path in paths if not os.path.exists(path)],
        "free_bytes": {disk: shutil.disk_usage(_nearest(disk)).free for disk in disks},
        "token": _text_of(token),
        "torch_gpus": _torch_gpus() if counts_gpus else None,
        "cannot_compile": cannot_compile(),
    }


def cannot_compile() -> str | None:
    """Say what is missing here for Triton, which compiles a launcher of its kernels in C at a trial's first step.

    Looked for where triton 3.6 does (runtime/build.py). None where nothing is, or where there is no Triton.
    """
    if importlib.util.find_spec("triton") is None:
        return None
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return "no C compiler (gcc or clang) was found"
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    header = os.path.join(sysconfig.get_paths(scheme=scheme)["include"], "Python.h")
    return None if os.path.exists(header) else f"{header} is missing"


def _nearest(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path) or "/"
    return path


def _text_of(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def _torch_gpus() -> int | None:
    """Return how many GPUs torch can use here; None where torch cannot be asked."""
    program = [sys.executable, "-c", _GPU_PROGRAM]
    try:
        done = subprocess.run(program, capture_output=True, text=True, timeout=_GPU_S, check=True)
        return int(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):  # it failed, hangs, or says something else
        return None
