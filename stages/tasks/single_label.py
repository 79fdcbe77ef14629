"""The task of single labels: each item has one of two or more classes. It uses softmax and cross entropy.

torch is imported within the functions that use it, so that `split` and `evaluate`, which need only labels and metrics,
do not load it.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import AfterValidator, Field

from stages.runtime.errors import StageError
from stages.runtime.params import Section

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def _unique(classes: list[str]) -> list[str]:
    if len(set(classes)) < len(classes):
        raise ValueError("a class occurs twice")
    return classes


class SingleLabel(Section):
    """Targets are class indices, int64 (n,); predictions are probabilities (n, classes). Model files store the fields.

    `classes`: the names of the classes, in the order of every probability vector.
    """

    name: Literal["single_label"]
    classes: Annotated[list[str], Field(min_length=2), AfterValidator(_unique)]

    main_metrics: ClassVar[dict[str, str]] = {"accuracy": "accuracy", "log_loss": "valid_loss"}

    @classmethod
    def from_labels(cls, labels: Sequence[str]) -> Self:
        return cls(name="single_label", classes=sorted(set(labels)))

    @classmethod
    def from_columns(cls, columns: Iterable[object]) -> Self:
        names = [str(column) for column in columns]
        classes = [name.removeprefix("plain:") for name in names if name.startswith("plain:")]
        return cls(name="single_label", classes=classes)

    @staticmethod
    def strata(labels: Sequence[str]) -> list[str]:
        return list(labels)

    @staticmethod
    def counts(labels: Sequence[str]) -> dict[str, int]:
        return dict(sorted(Counter(labels).items()))

    @property
    def n_outputs(self) -> int:
        return len(self.classes)

    @property
    def uninformed_loss(self) -> float:
        return math.log(len(self.classes))

    def parse(self, labels: Sequence[str], ids: Sequence[str]) -> Ints:
        index = {name: number for number, name in enumerate(self.classes)}
        for row, (label, id_) in enumerate(zip(labels, ids, strict=True), start=1):
            if label not in index:
                first = ", ".join(self.classes[:5]) + (", ..." if len(self.classes) > 5 else "")
                raise StageError(
                    f"row {row}, {id_}: the label `{label}` is none of the {len(index)} classes of train ({first}): "
                    "correct it, or run split and the stages after it again"
                )
        return np.array([index[label] for label in labels], np.int64)

    def loss(
        self,
        outputs: "torch.Tensor",
        y: "torch.Tensor",
        weight: "torch.Tensor | None" = None,
        label_smoothing: float = 0.0,
    ) -> "torch.Tensor":
        """Returns the cross entropy.

        `label_smoothing`: the share of the target that is spread over all classes (Szegedy et al. 2016, arXiv
        1512.00567).
        """
        from torch.nn import functional as F

        if weight is None:
            return F.cross_entropy(outputs.float(), y, label_smoothing=label_smoothing)
        each = F.cross_entropy(outputs.float(), y, label_smoothing=label_smoothing, reduction="none")
        return (weight * each).sum() / weight.sum().clamp(min=1e-12)  # 0 instead of 0 / 0 if all weights are 0

    def predict(self, outputs: "torch.Tensor") -> "torch.Tensor":
        from torch.nn import functional as F

        return F.softmax(outputs.float(), dim=1)

    def losses(self, predictions: Array, y: Array) -> Floats:
        """Returns -ln(p) of each item, where p is the probability of its true class.

        As in scikit-learn, p is at least the epsilon of its dtype, so the mean is scikit-learn's log loss.
        """
        p_true = predictions[np.arange(len(y)), y].clip(np.finfo(predictions.dtype).eps, 1)
        losses: Floats = -np.log(p_true.astype(np.float64))
        return losses

    def scores(self, predictions: Array, y: Array) -> dict[str, Array]:
        return {"accuracy": predictions.argmax(1) == y}

    def decode(self, predictions: Array) -> list[str]:
        return [self.classes[position] for position in predictions.argmax(1)]

    def columns(self, prefix: str, predictions: Array) -> dict[str, Array]:
        return {f"{prefix}:{name}": predictions[:, position] for position, name in enumerate(self.classes)}

    def read(self, table: pd.DataFrame, prefix: str) -> Floats:
        """Returns the predictions in float64. Each row is scaled to sum to 1."""
        values = table[[f"{prefix}:{name}" for name in self.classes]].to_numpy(np.float64)
        scaled: Floats = values / values.sum(axis=1, keepdims=True)
        return scaled

    def answer(self, predictions: Array) -> dict[str, Any]:
        columns = {"predicted": self.decode(predictions), "probability": predictions.max(axis=1)}
        return columns | self.columns("probability", predictions)

    def submission(self, predictions: Array) -> dict[str, Floats]:
        """Returns one column of probabilities per class. Each row is scaled to sum to 1 in float64, then rounded to 6
        decimals."""
        values = predictions.astype(np.float64)
        values = (values / values.sum(axis=1, keepdims=True)).round(6)
        return {name: values[:, position] for position, name in enumerate(self.classes)}

    def metrics(self, predictions: Array, y: Array) -> dict[str, float]:
        """Returns scikit-learn's metrics. Means over classes include only classes that occur in `y`."""
        from sklearn.metrics import f1_score, log_loss, matthews_corrcoef, recall_score  # this import takes a second

        predicted, present = predictions.argmax(1), np.unique(y)
        values = {
            "accuracy": (predicted == y).mean(),
            "log_loss": log_loss(y, predictions, labels=range(len(self.classes))),
            "balanced_accuracy": recall_score(y, predicted, average="macro", labels=present),
            "macro_f1": f1_score(y, predicted, average="macro", labels=present, zero_division=0),
            "mcc": matthews_corrcoef(y, predicted),
        }
        return {name: float(value) for name, value in values.items()}

    def baselines(self, y: Array) -> dict[str, float]:
        """Returns the accuracy of always predicting the most common class, and the log loss of always predicting the
        shares of the classes."""
        shares = np.bincount(y) / len(y)
        present = shares[shares > 0]
        return {"accuracy": float(shares.max()), "log_loss": float(-(present * np.log(present)).sum())}

    def facts(self, predictions: Array) -> dict[str, Any]:
        return {"confidence": {"mean_probability_of_class_named": round(float(predictions.max(axis=1).mean()), 6)}}

    def output_to_explain(self, outputs: "torch.Tensor") -> "torch.Tensor":
        """Returns the index of the class with the highest probability."""
        return outputs.argmax(1)
