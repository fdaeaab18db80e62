"""Every error the project raises on purpose.

`code` is stable and goes into the `failures` and `rejected` tables; `retryable` says whether the same
input may succeed another time (a full disk) or never will (a NaN in a pose).
"""


class PosedreamerError(Exception):
    """Base class: the message says what is wrong, where, and what to do."""

    code = "error"
    retryable = False


class ConfigError(PosedreamerError):
    """The pipeline file, a policy or a command-line argument is wrong."""

    code = "config"


class InputError(PosedreamerError):
    """A file or a row given by the user cannot be used."""

    code = "input"


class RowError(PosedreamerError):
    """One row cannot be computed; the rest of its batch can."""

    code = "row"


class SchemaError(PosedreamerError):
    """A row breaks its table's schema: names table, row key, column and value."""

    code = "schema"


class ModelError(PosedreamerError):
    """A model file is missing, unsafe or of the wrong kind."""

    code = "model"


class LakeError(PosedreamerError):
    """The lake is missing, is no lake, or refuses a commit."""

    code = "lake"


class ConflictError(LakeError):
    """Another process committed the same thing first."""

    code = "conflict"
    retryable = True


class StageError(PosedreamerError):
    """A whole stage cannot go on: no memory for one row, a missing model, every row failing alike."""

    code = "stage"
    retryable = True


class DeprecatedRelease(UserWarning):
    """A release was opened that its author has deprecated; it reads as ever."""
