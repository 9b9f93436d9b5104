"""The command that checks a cluster."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli_words import Address, AsJson, Overrides, Storage, tell
from sweeper.errors import ConfigError
from sweeper.help_text import examples


def doctor(
    sweep: Annotated[
        Path | None, typer.Argument(metavar="[SWEEP.yaml]", help="Check what this sweep needs too.")
    ] = None,
    overrides: Overrides = None,
    directory: Annotated[
        str | None,
        typer.Option(
            "--dir",
            metavar="DIR",
            help="The study's directory, as for launch; without a sweep file where studies lie: `studies`.",
        ),
    ] = None,
    storage: Storage = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Check every node: versions, GPUs, paths, disk, storage, and whether they can compute together."""
    from sweeper import api, readiness
    from sweeper.preflight.diagnosis import findings_text
    from sweeper.preflight.doctor import examine

    config = None
    if sweep is not None:
        config = api.read_config(sweep, overrides or ())
        config = readiness.with_options(
            config, readiness.LaunchOptions(dir=directory, storage=storage, address=address)
        )
    place = Path(directory or "studies").absolute() if config is None else readiness.study_directory(config)
    findings = examine(
        config, address=readiness.cluster_of(address) if config is None else config.resources.address,
        storage=storage if config is None else config.storage, directory=place,
    )  # fmt: skip
    wrong = [finding for finding in findings if not finding.is_fine]
    told = {"is_fine": not wrong, "findings": [dataclasses.asdict(finding) for finding in findings]}
    tell(lambda: told, lambda: findings_text(findings), as_json=as_json)
    if wrong:
        raise typer.Exit(ConfigError.exit_code)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(epilog=examples("doctor"))(doctor)
