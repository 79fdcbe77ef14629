"""The git side of a clone: which commit it is at, what differs from that, and how it gets to another."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

from flows.graph import PipelineError

HASH_LENGTH = 40
OURS = ("dvc.lock", "params.yaml")  # what a run itself changes, beside metrics that git holds


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)  # noqa: S603, S607
    if done.returncode:
        raise PipelineError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def changed_by_hand(outputs: Iterable[str]) -> list[str]:
    """Tracked files that differ from the commit and that no run writes. `outputs`: paths that stages write."""
    own = {*OURS, *outputs}
    return [name for name in git("diff", "--name-only", "HEAD").splitlines() if name not in own]


def go_to(revision: str, outputs: Iterable[str]) -> str:
    """Check out a commit, branch (as origin has it) or tag; returns the commit.

    Raises:
        PipelineError: it is nowhere, or files here were changed by hand: they are not thrown away.
    """
    if changed := changed_by_hand(outputs):
        raise PipelineError(
            f"{Path.cwd()}: changed and not committed: {', '.join(changed)}; a clone that workers use is checked out "
            "anew for every run: commit them, or use another clone"
        )
    if not (len(revision) == HASH_LENGTH and (commit := find(revision))):
        git("fetch", "--quiet", "--tags", "origin")
        commit = find(f"refs/remotes/origin/{revision}") or find(revision)
    if not commit:
        raise PipelineError(f"no {revision} in {git('remote', 'get-url', 'origin')}: push it there first")
    git("checkout", "--quiet", "--force", "--detach", commit)
    return commit


def find(revision: str) -> str:
    """Its commit; empty where there is none."""
    arguments = ["rev-parse", "--quiet", "--verify", "--end-of-options", f"{revision}^{{commit}}"]
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)  # noqa: S603, S607
    return done.stdout.strip() if done.returncode == 0 else ""
