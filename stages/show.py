"""show: print what each step gained and where the results lie; the end of `make demo`."""

import json
import sys

import pandas as pd

from stages.runtime import receipt
from stages.runtime.folders import stage_folder


def rises(steps: pd.DataFrame) -> list[str]:
    """The steps that left the log loss higher than they found it, and by how much. Nothing goes on from head's TTA."""
    chain = steps[steps["step"] != "head's TTA"]
    rise = chain["log_loss"].diff()
    return [f"{chain['step'][row]} (+{rise[row]:.4f})" for row in chain.index[rise > 0]]


def main() -> None:
    out = stage_folder("evaluate")
    if not (out / "steps.csv").exists():
        sys.exit(f"show: no {out / 'steps.csv'}: run `dvc repro` first")
    steps = pd.read_csv(out / "steps.csv", dtype={"kept_epoch": str}).fillna({"kept_epoch": ""})
    print("\nWhat each step gained, on the validation pictures:\n")
    print(steps.to_string(index=False, na_rep=""))
    if rose := rises(steps):
        print(f"\nLog loss rose in: {', '.join(rose)}.")
    trained = steps[(steps["kept_epoch"] == "0") & (steps["epochs"] > 0)]
    for step in trained["step"]:
        print(f"\nNo epoch of '{step}' beat what came before it, so that went on to the next step (keep: best).")
    if len(trained):
        print("For photographs of everyday things see the rates in the README, 'Your own pictures'.")
    receipts = [json.loads(path.read_text(encoding="utf-8")) for path in receipt.folder().glob("*.json")]
    if receipts:
        print("\nWhere the time went, when each stage last ran here (seconds):")
        for one in sorted(receipts, key=lambda one: -one["seconds"]):
            print(f"  {one['stage']:12} {one['seconds']:7.1f}")
    if (out / "report.html").exists():
        print(f"\nTo look at it all, open {out / 'report.html'} in a browser.")
    print("\nWhere the results lie:")
    for path in sorted(out.glob("[!.]*")):
        if (
            path.name != "submission.csv" or path.read_text(encoding="utf-8").count("\n") > 1
        ):  # without test pictures its header alone
            print(f"  {path}")
    print("\nNext: `source .venv/bin/activate`, then `dvc metrics show`, `dvc plots show`, `python -m flows.plan`")


if __name__ == "__main__":
    main()
