"""show: print what each step gained and where the results lie; the end of `make demo`."""

from pathlib import Path

import pandas as pd

from stages.common.stage import StageError, run

OUT = Path("data/evaluate")


def main() -> None:
    if not (OUT / "steps.csv").exists():
        raise StageError(f"no {OUT / 'steps.csv'}: run `dvc repro` first")
    steps = pd.read_csv(OUT / "steps.csv", dtype={"kept_epoch": str}).fillna({"kept_epoch": ""})
    print("\nWhat each step gained, on the validation pictures:\n")
    print(steps.to_string(index=False, na_rep=""))
    for step in steps.loc[steps["kept_epoch"] == "0", "step"]:
        print(f"\nNo epoch of '{step}' beat what came before it, so that went on to the next step (keep: best).")
    print("\nWhere the results lie:")
    for path in sorted(OUT.glob("[!.]*")):
        print(f"  {path}")
    print("\nNext: `dvc metrics show`, `dvc plots show`, `dvc exp run -S train_full.n_cycles=2`")


if __name__ == "__main__":
    run(main)
