"""What this process runs on: packages, operating system, GPUs and their driver."""

import functools
import json
import logging
import os
import platform
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from sweeper.files import write_text
from sweeper.study.versions import versions

logger = logging.getLogger(__name__)

ATTEMPT_FILE = "environment.json"  # in a trial's directory
_WAIT_S = 10.0


@functools.cache
def machine_facts() -> dict[str, Any]:
    """Return what a result may depend on of this machine; asked once per process. Do not change it.

    GPUs are those of the whole machine, as `nvidia-smi` lists them; none where that is not there.
    """
    return {
        "node": socket.gethostname(),
        "packages": versions(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        **_gpus(),
    }


def write_attempt_environment(trial_dir: Path, device: str, *, computes_in_bf16: bool) -> None:
    """Keep what an attempt runs on, in place of the last one's."""
    facts = {"machine": machine_facts(), "device": device, "computes_in_bf16": computes_in_bf16}
    write_text(trial_dir / ATTEMPT_FILE, json.dumps(facts, indent=1))


def _gpus() -> dict[str, Any]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return {"gpus": [], "driver": None}
    asked = [command, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=_WAIT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        logger.debug("The GPUs could not be asked for: %s", error)
        return {"gpus": [], "driver": None}
    lines = [line.split(",") for line in done.stdout.splitlines() if "," in line]
    drivers = {line[1].strip() for line in lines}
    return {"gpus": [line[0].strip() for line in lines], "driver": ", ".join(sorted(drivers)) or None}
