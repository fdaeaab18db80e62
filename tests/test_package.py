"""What is built from the checkout holds what the code reads at run time."""

from pathlib import Path

from setuptools import Distribution

ROOT = Path(__file__).parents[1]


def test_the_package_has_its_poses_policies_and_weights(monkeypatch):
    monkeypatch.chdir(ROOT)
    built = Distribution()
    built.parse_config_files()
    folders = [ROOT / name.replace(".", "/") for name in built.packages]
    packed = {p for folder in folders for pattern in built.package_data[""] for p in folder.glob(pattern)}
    needed = {
        p
        for house in ("schemas", "udfs", "etl")
        for kind in ("npz", "yaml", "safetensors", "css")
        for p in (ROOT / house).rglob(f"*.{kind}")
    }
    assert len(needed) > 15
    assert needed <= packed
