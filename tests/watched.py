"""What filtering opens and imports, seen from a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from etl.lake import Lake

ROOT = Path(__file__).parents[1]

_BEFORE = """
import json, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
"""
_AFTER = """
heavy = {"torch", "dask", "distributed", "diffusers", "PIL", "scipy", "numba", "matplotlib"}
print(json.dumps({"said": said, "opened": opened, "heavy": sorted(heavy & set(sys.modules))}))
"""


def run_light(lake: Lake, code: str, *arguments: str) -> Any:
    """What `code`, given the lake's address and the arguments in `sys.argv`, leaves in `said`.

    Fails where it opens an image or a file under `files/`, opens no lake at all, or imports what is heavy.
    Some images are broken before, so that reading one would be seen as well.
    """
    for path in lake.table("images").read(["image_path"]).column("image_path").to_pylist()[:20]:
        lake.store.write(path, b"not to be read")
    run = subprocess.run(
        [sys.executable, "-c", _BEFORE + code + _AFTER, lake.url, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    seen = json.loads(run.stdout)
    assert seen["heavy"] == []
    assert [p for p in seen["opened"] if "lake.json" in p]
    assert [p for p in seen["opened"] if "/files/" in p or p.endswith((".jpg", ".png"))] == []
    return seen["said"]
