"""Predicts the OKS that images of a pose will reach, from what the images so far have reached."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import ValidationError

from schemas.errors import InputError, ModelError
from schemas.ids import uniform
from schemas.regressor import RegressorSettings
from udfs.pose_features import FEATURES, require_finite, rows_text
from udfs.threads import each
from udfs.udf import bytes_digest

_FORMAT = 1
_INDEX = "model.json"

_LEFT_OUT = 2
"""Folds that a member is trained without. Two members have then not seen a pose, and their mean and spread
are held-out ones."""

_FIXED: Mapping[str, Any] = {
    "objective": "regression",
    "feature_fraction": 0.3,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "deterministic": True,
    "force_row_wise": True,
    # The number of threads is written into the model. Members run beside each other instead.
    "num_threads": 1,
    "verbosity": -1,
}


@dataclass(frozen=True)
class HeldOut:
    """How good predictions are for poses that their members have not seen.

    Attributes:
        images, poses: that were predicted: all that were trained on.
        spearman: rank correlation of predicted and measured OKS, image by image.
        pose_spearman: the same for the means of each pose's images, which chance moves less.
        mae: mean absolute error.
        r2: share of the variance that is explained.
        spread_spearman: rank correlation of the spread and the absolute error.
    """

    images: int
    poses: int
    spearman: float
    pose_spearman: float
    mae: float
    r2: float
    spread_spearman: float


@dataclass(frozen=True)
class OksRegressor:
    """An ensemble of LightGBM boosters.

    Attributes:
        texts: the members in LightGBM's text format.
        names: of the features, in order.
        settings: it was trained with.
        held_out: how good it is.
        trained_on: where the data came from, in the caller's words.
    """

    texts: tuple[str, ...] = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    settings: RegressorSettings
    held_out: HeldOut
    trained_on: Mapping[str, Any]
    _boosters: tuple[Any, ...] = field(repr=False, compare=False)

    @classmethod
    def train(
        cls,
        features: np.ndarray,
        oks: np.ndarray,
        pose_ids: np.ndarray,
        settings: RegressorSettings | None = None,
        *,
        names: Sequence[str] = FEATURES,
        trained_on: Mapping[str, Any] | None = None,
    ) -> "OksRegressor":
        """Learns from N scored images. The same images in any order, on any number of cores: the same bytes.

        Args:
            features: (N, F), of `udfs.pose_features`.
            oks: (N,) in [0, 1].
            pose_ids: (N,) int64; all images of a pose are held out together.
            names: of the F features.
            trained_on: JSON values that are kept with the model, such as versions of tables.

        Raises InputError for too few images or poses, targets that are all alike or outside of [0, 1], and
        values that are not finite.
        """
        settings = settings or RegressorSettings()
        features, oks = np.ascontiguousarray(features, np.float32), np.asarray(oks, np.float32)
        pose_ids = np.asarray(pose_ids, np.int64)
        _check(features, oks, pose_ids, settings, tuple(names))
        order = _order(features, oks, pose_ids)
        features, oks, pose_ids = features[order], oks[order], pose_ids[order]
        count = settings.members
        unseen = _unseen(pose_ids, settings)
        texts = [""] * count

        def work(member: int) -> None:
            rows = ~unseen[member]
            texts[member] = _fit(features[rows], oks[rows], settings, names, settings.seed + member)

        each(work, count)
        boosters = tuple(_booster(text, f"member {k}") for k, text in enumerate(texts))
        predicted = _predictions(boosters, features).T[unseen.T].reshape(len(oks), _LEFT_OUT)
        return cls(
            tuple(texts),
            tuple(names),
            settings,
            _scores(oks, pose_ids, *_combined(predicted.T)),
            json.loads(json.dumps(trained_on or {})),  # as it will be read back
            boosters,
        )

    def predict(self, features: np.ndarray, names: Sequence[str] = FEATURES) -> tuple[np.ndarray, np.ndarray]:
        """Expected OKS of N poses and views, in [0, 1], and the members' standard deviation; (N,) float32.

        features: (N, F). Raises ModelError when the features' `names` are not those of the training, and
        InputError for values that are not finite.
        """
        self.require(names)
        if features.ndim != 2 or features.shape[1] != len(self.names):
            raise InputError(f"features have shape {features.shape}; (N, {len(self.names)}) was expected")
        require_finite(features, "features")
        return _combined(_predictions(self._boosters, np.ascontiguousarray(features, np.float32)))

    def predict_unseen(self, features: np.ndarray, pose_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `predict`, by the members that were not shown a pose: for images that it was trained on."""
        unseen = _unseen(np.asarray(pose_ids, np.int64), self.settings)
        predicted = _predictions(self._boosters, np.ascontiguousarray(features, np.float32))
        return _combined(predicted.T[unseen.T].reshape(-1, _LEFT_OUT).T)

    def require(self, names: Sequence[str]) -> None:
        """Raises ModelError when these are not the features that it was trained on."""
        if tuple(names) == self.names:
            return
        gone = [name for name in self.names if name not in set(names)]
        new = [name for name in names if name not in set(self.names)]
        changes = [f"{what} {_some(which)}" for what, which in (("gone:", gone), ("new:", new)) if which]
        raise ModelError(
            "the pose features changed since this regressor was trained "
            f"({'; '.join(changes) or 'another order'}); train it again"
        )

    def importance(self) -> dict[str, float]:
        """Feature name to its share of all gain, the largest first."""
        gain = sum(booster.feature_importance("gain") for booster in self._boosters)
        gain = gain / max(gain.sum(), 1e-12)
        order = np.argsort(-gain, kind="stable")
        return {self.names[i]: float(gain[i]) for i in order}

    def to_files(self) -> dict[str, bytes]:
        """File name to content. `model.json` has the digests of the others."""
        members = {f"member-{k}.txt": text.encode() for k, text in enumerate(self.texts)}
        index = {
            "format": _FORMAT,
            "features": self.names,
            "settings": self.settings.model_dump(mode="json"),
            "held_out": vars(self.held_out),
            "trained_on": self.trained_on,
            "members": {name: bytes_digest(data) for name, data in members.items()},
        }
        text = json.dumps(index, indent=1, sort_keys=True, allow_nan=False)
        return {**members, _INDEX: text.encode()}

    @property
    def digest(self) -> str:
        """Of what predicts; see `model_digest`."""
        return model_digest(self.to_files()[_INDEX])

    @classmethod
    def from_files(
        cls, read: Callable[[str], bytes], folder: str, digest: str | None = None
    ) -> "OksRegressor":
        """Reads the files of a folder.

        digest: what `digest` must be. Nothing of another model is given to LightGBM.
        Raises ModelError for files that are missing, damaged or no such model.
        """
        data = _read(read, f"{folder}/{_INDEX}")
        if digest is not None and model_digest(data, f"{folder}/{_INDEX}") != digest:
            raise ModelError(f"{folder}: not the regressor with the digest {digest}; train it again")
        try:
            index = json.loads(data)
            if index["format"] != _FORMAT:
                raise ValueError(f"format {index['format']}, this software reads {_FORMAT}")
            settings = RegressorSettings.model_validate(index["settings"])
            held_out = HeldOut(**index["held_out"])
            names, members = tuple(index["features"]), dict(index["members"])
            trained_on = dict(index["trained_on"])
        except (ValueError, TypeError, KeyError, ValidationError) as error:
            raise ModelError(f"{folder}/{_INDEX} describes no regressor: {error}") from error
        texts, boosters = [], []
        for k in range(settings.members):
            path = f"{folder}/member-{k}.txt"
            content = _read(read, path)
            if bytes_digest(content) != members.get(f"member-{k}.txt"):
                raise ModelError(f"{path} is not what {_INDEX} says it is; train the regressor again")
            texts.append(content.decode(errors="replace"))
            boosters.append(_booster(texts[-1], path))
            if tuple(boosters[-1].feature_name()) != names:
                raise ModelError(f"{path} has other features than {_INDEX}; train the regressor again")
        return cls(tuple(texts), names, settings, held_out, trained_on, tuple(boosters))


def _check(
    features: np.ndarray,
    oks: np.ndarray,
    pose_ids: np.ndarray,
    settings: RegressorSettings,
    names: Sequence[str],
) -> None:
    n = len(oks)
    if features.shape != (n, len(names)) or oks.shape != (n,) or pose_ids.shape != (n,):
        raise InputError(
            f"features {features.shape}, OKS {oks.shape} and pose ids {pose_ids.shape} do not fit each other "
            f"and {len(names)} names"
        )
    if n < settings.min_images:
        raise InputError(
            f"{n} scored images are too few to train on: {settings.min_images} are needed; generate more "
            "or lower `min_images`"
        )
    require_finite(features, "features")
    require_finite(oks, "OKS")
    outside = np.flatnonzero((oks < 0) | (oks > 1))
    if len(outside):
        raise InputError(f"OKS lies outside of 0 to 1 in {rows_text(outside)}")
    poses, needed = len(np.unique(pose_ids)), 2 * settings.members
    if poses < needed or _unseen(pose_ids, settings).all(axis=1).any():
        raise InputError(
            f"the {n} scored images show {poses} poses; at least {needed} are needed for "
            f"{settings.members} folds: generate more poses or lower `members`"
        )
    if oks.min() == oks.max():
        raise InputError(f"all {n} images have the same OKS, {oks[0]:.3g}: there is nothing to learn")


def _order(features: np.ndarray, oks: np.ndarray, pose_ids: np.ndarray) -> np.ndarray:
    """(N,) an order that follows from the rows' content alone: by their bytes."""
    parts = (pose_ids[:, None], features, oks[:, None])
    packed = np.concatenate([part.view(np.uint8) for part in parts], axis=1)
    return np.argsort(packed.view(f"V{packed.shape[1]}").ravel(), kind="stable")


def model_digest(index: bytes, path: str = _INDEX) -> str:
    """BLAKE2b (128 bits, hex) of what a `model.json` says of features, settings and members' files.

    Not of what it was trained on: the same rows of a table make the same model, whatever version it had.
    Raises ModelError for what is no such file.
    """
    try:
        facts = json.loads(index)
        what = {name: facts[name] for name in ("format", "features", "settings", "members")}
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path} describes no regressor: {error}") from error
    return bytes_digest(json.dumps(what, sort_keys=True).encode())


def _unseen(pose_ids: np.ndarray, settings: RegressorSettings) -> np.ndarray:
    """(members, N) bool: the images whose poses a member is not shown. A pose's fold follows from its id."""
    fold = (uniform(pose_ids, "fold", settings.seed) * settings.members).astype(np.int64)
    return np.stack([(fold - k) % settings.members < _LEFT_OUT for k in range(settings.members)])


def _fit(
    features: np.ndarray, oks: np.ndarray, settings: RegressorSettings, names: Sequence[str], seed: int
) -> str:
    import lightgbm

    parameters = {
        **_FIXED,
        "learning_rate": settings.learning_rate,
        # Interactions that few images cannot show are not looked for: 5 leaves for 3,400.
        "num_leaves": min(settings.leaves, max(4, int(len(oks) ** 0.5 / 10))),
        "min_data_in_leaf": min(settings.min_rows, max(1, len(oks) // 10)),
        "seed": seed % 2**31,
    }
    data = lightgbm.Dataset(features, oks, feature_name=list(names), params=parameters)
    return lightgbm.train(parameters, data, settings.trees).model_to_string()


def _booster(text: str, what: str) -> Any:
    import lightgbm

    if not text.startswith("tree\n"):
        raise ModelError(f"{what} is no LightGBM model in text format")
    try:
        return lightgbm.Booster(model_str=text)
    except (lightgbm.basic.LightGBMError, ValueError) as error:
        raise ModelError(f"{what} is no LightGBM model in text format: {error}") from error


def _predictions(boosters: Sequence[Any], features: np.ndarray) -> np.ndarray:
    """(members, N) float64."""
    out = np.empty((len(boosters), len(features)))

    def work(member: int) -> None:
        if len(features):
            out[member] = boosters[member].predict(features, num_threads=1)

    each(work, len(boosters))
    return out


def _combined(predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean within [0, 1] and standard deviation of (members, N) predictions, (N,) float32 each."""
    mean = np.clip(predicted.mean(axis=0), 0, 1)
    return mean.astype(np.float32), predicted.std(axis=0, ddof=1).astype(np.float32)


def _scores(oks: np.ndarray, pose_ids: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> HeldOut:
    oks, mean = oks.astype(np.float64), mean.astype(np.float64)
    error = np.abs(mean - oks)
    _, inverse, images = np.unique(pose_ids, return_inverse=True, return_counts=True)
    by_pose = [np.bincount(inverse, values) / images for values in (mean, oks)]
    return HeldOut(
        images=len(oks),
        poses=len(images),
        spearman=_spearman(mean, oks),
        pose_spearman=_spearman(*by_pose),
        mae=float(error.mean()),
        r2=float(1 - (error**2).mean() / oks.var()),
        spread_spearman=_spearman(spread, error),
    )


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; 0 where one of them is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (a, b)]
    if any(rank.std() == 0 for rank in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _read(read: Callable[[str], bytes], path: str) -> bytes:
    try:
        return read(path)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; train the regressor again") from error


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
