"""PoseDreamer: photographs of people with exact SMPL-X labels, as versioned Delta tables.

from posedreamer import Lake

release = Lake("lake").release("0.1.0")
frame = release.to_pandas(columns=["image_path", "oks"], where="oks >= 0.8 and persons == 1")
joints = release.array("joints_3d")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etl.lake import Lake
    from etl.query import Release
    from schemas.errors import PosedreamerError

__all__ = ["Lake", "PosedreamerError", "Release"]

_HOMES = {"Lake": "etl.lake", "Release": "etl.query", "PosedreamerError": "schemas.errors"}


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
