"""What a training tells of itself: one JSON line every few steps, and the same for TensorBoard."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from schemas.errors import ConfigError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TrainingLog:
    """Appends to `log.jsonl` and to a TensorBoard log in one folder.

    Args:
        step: that the training goes on from; what a killed run logged beyond it is taken out.
        tensorboard: None: where it is installed. Raises ConfigError for True where it is not.
        writes: False for the processes that leave the log to the first one.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool | None = None, writes: bool = True) -> None:
        self._path = folder / "log.jsonl"
        self._writes = writes
        self._writer: SummaryWriter | None = None
        if not writes:
            return
        if self._path.exists():
            lines = self._path.read_text("utf-8").splitlines()
            kept = [line for line in lines if line and json.loads(line)["step"] <= step]
            self._path.write_text("".join(f"{line}\n" for line in kept), "utf-8")
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
