"""The table `fingerprints`: what each short string in the other tables stands for."""

import importlib.metadata
import json
import platform
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from etl.lake import Lake
from schemas.fingerprint import Fingerprint, difference

_PACKAGES = (
    "posedreamer",
    "accelerate",
    "dask",
    "deltalake",
    "diffusers",
    "numba",
    "numpy",
    "peft",
    "pillow",
    "pyarrow",
    "smplx",
    "torch",
    "transformers",
)


def software() -> dict[str, str]:
    """Versions of Python and of the packages that shape results."""
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def register(lake: Lake, *fingerprints: Fingerprint) -> None:
    """Notes the ingredients of fingerprints, each once."""
    n = len(fingerprints)
    lake.table("fingerprints").append(
        pa.table(
            {
                "fingerprint": [f.value for f in fingerprints],
                "udf": [f.udf for f in fingerprints],
                "ingredients": [f.json for f in fingerprints],
                "software": [json.dumps(software())] * n,
                "created_at": pa.array([datetime.now(UTC)] * n, pa.timestamp("us", "UTC")),
            }
        )
    )


def explain(lake: Lake, others: pa.Table, fingerprint: Fingerprint) -> str:
    """What differs between the last registered of the other rows' fingerprints and this one."""
    table = lake.table("fingerprints")
    values = pc.unique(others.column("fingerprint"))
    if not table.exists() or not len(values):
        return ""
    known = table.read(["ingredients", "created_at"], pc.field("fingerprint").isin(values))
    if not known.num_rows:
        return ""
    newest = known.sort_by([("created_at", "descending")]).column("ingredients")[0].as_py()
    return difference(newest, fingerprint.json)
