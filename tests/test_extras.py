"""What a message tells to install is what pyproject.toml says."""

import tomllib
from pathlib import Path

import pytest

from sweeper.extras import install_command

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_an_extra_is_named_package_by_package(extra: str) -> None:
    wanted = PROJECT["optional-dependencies"][extra]

    assert sorted(install_command(extra).removeprefix("pip install ").replace("'", "").split()) == sorted(
        wanted
    )
