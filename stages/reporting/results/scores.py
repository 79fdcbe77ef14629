"""Computes the numbers of the report: intervals, scores of each class, the confusion matrix, calibration."""

import math
from statistics import NormalDist

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from stages.reporting.results.predictions import Floats, Predictions

Z95 = NormalDist().inv_cdf(0.975)


def wilson(k: int, n: int) -> tuple[float, float]:
    """Returns the 95 % interval of the share k / n (Wilson 1927), which is also valid for small n and near 0 and 1."""
    share, z2 = k / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half_width = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half_width), min(1.0, centre + half_width)


def mean_interval(values: Floats, seed: int, n_draws: int = 1000) -> tuple[float, float]:
    """Returns the 95 % interval of a mean, from percentiles of bootstrap samples."""
    rng = np.random.default_rng(seed)
    means = [float(rng.choice(values, len(values)).mean()) for _ in range(n_draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def class_scores(predictions: Predictions, n_train: dict[str, int]) -> pd.DataFrame:
    """Returns a row per class with label, train and valid (counts), precision, recall, f1, log_loss; NaN if undefined.

    The class with the lowest recall comes first."""
    labels = list(range(len(predictions.classes)))
    precision, recall, f1, valid = precision_recall_fscore_support(
        predictions.actual, predictions.predicted, labels=labels, zero_division=np.nan
    )
    losses_by_class = [predictions.losses[predictions.actual == label] for label in labels]
    table = pd.DataFrame(
        {
            "label": predictions.classes,
            "train": [n_train.get(name, 0) for name in predictions.classes],
            "valid": valid,
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "log_loss": [losses.mean() if len(losses) else np.nan for losses in losses_by_class],
        }
    )
    return table.sort_values("recall", kind="stable", ignore_index=True)


def most_confused(predictions: Predictions, n: int) -> list[tuple[str, str, int, int]]:
    """Returns (actual, predicted, pictures, pictures of the actual class), the most frequent confusion first."""
    counts = confusion(predictions)
    totals = counts.sum(1)
    np.fill_diagonal(counts, 0)
    cells = np.argsort(-counts, axis=None, kind="stable")[:n]
    pairs = [divmod(int(cell), len(counts)) for cell in cells]
    names = predictions.classes
    return [(names[a], names[b], int(counts[a, b]), int(totals[a])) for a, b in pairs if counts[a, b]]


def confusion(predictions: Predictions) -> np.ndarray:
    """Returns the confusion matrix, int64 (classes, classes); the rows are the actual classes."""
    labels = range(len(predictions.classes))
    counts: np.ndarray = confusion_matrix(predictions.actual, predictions.predicted, labels=list(labels))
    return counts


def calibration(predictions: Predictions, n_bins: int = 10) -> tuple[pd.DataFrame, float]:
    """Returns a table of bins and the expected calibration error (Guo et al. 2017, arXiv 1706.04599).

    The bins have equal width over the probability of the predicted class. The table has a row for each bin that is not
    empty, with the columns low, high, count, confidence, accuracy.
    """
    bins = np.minimum((predictions.confidence * n_bins).astype(int), n_bins - 1)
    table = pd.DataFrame({"bin": bins, "confidence": predictions.confidence, "accuracy": predictions.correct})
    rows = table.groupby("bin").agg(
        count=("confidence", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean")
    )
    rows.insert(0, "low", rows.index / n_bins)
    rows.insert(1, "high", (rows.index + 1) / n_bins)
    error = (rows["count"] * (rows["accuracy"] - rows["confidence"]).abs()).sum() / rows["count"].sum()
    return rows.reset_index(drop=True), float(error)
