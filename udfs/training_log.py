"""What a training tells of itself: one JSON line every few steps, and the same for TensorBoard."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from schemas.errors import ConfigError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TrainingLog:
    """Appends to `log.jsonl` and to a TensorBoard log in one folder.

    Args:
        step: that the training goes on from; what a killed run logged beyond it is taken out, and so is the
            line that it was killed in.
        tensorboard: None: where it is installed. Raises ConfigError for True where it is not.
        writes: False for the processes that leave the log to the first one.

    Attributes:
        last: what was logged of the step that the training goes on from; empty where nothing was.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool | None = None, writes: bool = True) -> None:
        self._path = folder / "log.jsonl"
        self._writes = writes
        self._writer: SummaryWriter | None = None
        self.last: Mapping[str, float] = {}
        if not writes:
            return
        if self._path.exists():
            kept = [row for row in _rows(self._path) if row["step"] <= step]
            scratch = self._path.with_name(f".{self._path.name}.tmp")
            scratch.write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
            scratch.replace(self._path)
            if kept and kept[-1]["step"] == step:
                self.last = {name: value for name, value in kept[-1].items() if name != "step"}
        self._writer = _writer(folder / "tensorboard", step, tensorboard)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if not self._writes:
            return
        row = {"step": step} | {name: float(f"{value:.6g}") for name, value in values.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)


def _rows(path: Path) -> Iterator[dict[str, float]]:
    """The rows of a log but those that a kill left torn: no training depends on them."""
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            yield row


def _writer(folder: Path, step: int, wanted: bool | None) -> "SummaryWriter | None":
    if wanted is False:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        if wanted:
            raise ConfigError("tensorboard is not installed: pip install 'posedreamer[train]'") from error
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
