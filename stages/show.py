"""show: print accuracy and log loss after each step, and where the results are. `make demo` ends with this program."""

import json
import sys

import pandas as pd

from stages.runtime import receipt
from stages.runtime.folders import stage_folder


def loss_increases(steps: pd.DataFrame) -> list[str]:
    """Returns the steps after which the log loss is higher than before, and by how much. Leaves out the head's TTA."""
    chain = steps[steps["step"] != "head's TTA"]
    rise = chain["log_loss"].diff()
    return [f"{chain['step'][row]} (+{rise[row]:.4f})" for row in chain.index[rise > 0]]


def main() -> None:
    out = stage_folder("evaluate")
    if not (out / "steps.csv").exists():
        sys.exit(f"show: no {out / 'steps.csv'}: run `dvc repro` first")
    steps = pd.read_csv(out / "steps.csv", dtype={"kept_epoch": str}).fillna({"kept_epoch": ""})
    print("\nAccuracy and log loss after each step, on the validation pictures:\n")
    print(steps.to_string(index=False, na_rep=""))
    if increases := loss_increases(steps):
        print(f"\nLog loss rose in: {', '.join(increases)}.")
    trained = steps[(steps["kept_epoch"] == "0") & (steps["epochs"] > 0)]
    for step in trained["step"]:
        print(f"\nNo epoch of '{step}' improved the log loss, so the next step got the earlier weights (keep: best).")
    if len(trained):
        print("For photographs of everyday objects see the rates in the README, 'Your own pictures'.")
    receipts = [json.loads(path.read_text(encoding="utf-8")) for path in receipt.folder().glob("*.json")]
    if receipts:
        print("\nRun time of each stage when it last ran in this clone, in seconds:")
        for content in sorted(receipts, key=lambda content: -content["seconds"]):
            print(f"  {content['stage']:12} {content['seconds']:7.1f}")
    if (out / "report.html").exists():
        print(f"\nAll results are in the report: open {out / 'report.html'} in a browser.")
    print("\nWhere the results are:")
    for path in sorted(out.glob("[!.]*")):
        if (
            path.name != "submission.csv" or path.read_text(encoding="utf-8").count("\n") > 1
        ):  # without test pictures it has only a header
            print(f"  {path}")
    print("\nNext: `source .venv/bin/activate`, then `dvc metrics show`, `dvc plots show`, `python -m flows.plan`")


if __name__ == "__main__":
    main()
