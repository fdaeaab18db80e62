"""PoseDreamer: photographs of people with exact SMPL-X labels, as versioned Delta tables.

from posedreamer import Lake

release = Lake("lake").release("0.1.0")
frame = release.to_pandas(columns=["image_path", "oks"], where="oks >= 0.8 and persons == 1")
joints = release.array("joints_3d")

What `Lake` and `Release` can do is said where they are defined: `help(posedreamer.Release)`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etl.lake import Lake
    from etl.query import Release
    from etl.release_diff import diff_releases
    from etl.release_events import deprecate_release, tag_release
    from etl.run import publish, select_images
    from etl.settings import load_pipeline
    from etl.verify import verify_release
    from schemas.errors import PosedreamerError

__all__ = [
    "Lake",
    "PosedreamerError",
    "Release",
    "deprecate_release",
    "diff_releases",
    "load_pipeline",
    "publish",
    "select_images",
    "tag_release",
    "verify_release",
]

_HOMES = {
    "Lake": "etl.lake",
    "PosedreamerError": "schemas.errors",
    "Release": "etl.query",
    "deprecate_release": "etl.release_events",
    "diff_releases": "etl.release_diff",
    "load_pipeline": "etl.settings",
    "publish": "etl.run",
    "select_images": "etl.run",
    "tag_release": "etl.release_events",
    "verify_release": "etl.verify",
}


def __getattr__(name: str) -> Any:
    """Public names load what they need when they are asked for, so that importing this costs nothing."""
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("posedreamer")
    raise AttributeError(f"module 'posedreamer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


if __name__ == "__main__":
    from etl.cli import main

    main()
