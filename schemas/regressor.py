"""How the regressor is trained that predicts OKS from poses."""

from pydantic import BaseModel, ConfigDict, Field


class RegressorSettings(BaseModel):
    """An ensemble of boosted trees, each trained without some of the poses.

    Attributes:
        members: of the ensemble; the poses are cut into as many folds, and each member misses two of them.
        trees: of each member.
        leaves: of a tree at the most; few images get fewer.
        learning_rate: of each tree.
        min_rows: images that a leaf has at least.
        min_images: scored images that there must be.
        seed: of the folds and the trees.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: int = Field(default=6, ge=3, le=64)
    trees: int = Field(default=150, ge=1, le=10_000)
    leaves: int = Field(default=31, ge=2, le=1024)
    learning_rate: float = Field(default=0.05, gt=0, le=1)
    min_rows: int = Field(default=20, ge=1, le=100_000)
    min_images: int = Field(default=100, ge=20, le=10_000_000)
    seed: int = Field(default=0, ge=0, lt=2**31)
