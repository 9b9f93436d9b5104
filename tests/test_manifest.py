"""What a checkpoint's manifest says of its files, and how large ones are hashed."""

import hashlib
import json
from pathlib import Path

import pytest

from sweeper.checkpoint import manifest
from sweeper.checkpoint.manifest import FileFacts, Manifest, describe, matches, parse

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of a file of two and a half slices, and a small one."""
    monkeypatch.setattr(manifest, "SLICE_BYTES", MIB)
    place = tmp_path / "checkpoint"
    place.mkdir()
    (place / "large").write_bytes(bytes(range(256)) * (10 << 10))
    (place / "small").write_bytes(b"small")
    return place


def test_a_large_file_is_hashed_by_slices_and_a_small_one_as_ever(folder: Path) -> None:
    said = json.loads(describe(folder, step=1, samples=8).dump())["files"]
    content = (folder / "large").read_bytes()
    slices = b"".join(hashlib.sha256(content[at : at + MIB]).digest() for at in range(0, len(content), MIB))
    assert said["large"] == {
        "bytes": len(content), "sha256": hashlib.sha256(slices).hexdigest(), "slice_bytes": MIB
    }  # fmt: skip
    assert said["small"] == {"bytes": 5, "sha256": hashlib.sha256(b"small").hexdigest()}


@pytest.mark.parametrize("at", [0, MIB - 1, MIB, 2 * MIB + 7, 10 * 256 * 1024 - 1])
def test_a_changed_byte_of_any_slice_is_noticed(folder: Path, at: int) -> None:
    found = parse(describe(folder, step=1, samples=8).dump())
    assert found is not None
    assert matches(folder, found, read=True)
    content = bytearray((folder / "large").read_bytes())
    content[at] ^= 1
    (folder / "large").write_bytes(content)
    assert not matches(folder, found, read=True)


def test_a_manifest_of_whole_files_is_still_read(folder: Path) -> None:
    whole = {
        name: FileFacts(
            n_bytes=(folder / name).stat().st_size,
            sha256=hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        )
        for name in ("large", "small")
    }
    found = parse(Manifest(step=1, samples=8, files=whole).dump())
    assert found is not None
    assert matches(folder, found, read=True)


@pytest.mark.parametrize("slice_bytes", [-1, 0, 1])
def test_slices_that_nobody_writes_are_no_manifest(slice_bytes: int) -> None:
    files = {"large": FileFacts(n_bytes=9, sha256="0", slice_bytes=slice_bytes)}
    assert parse(Manifest(step=1, samples=8, files=files).dump()) is None
