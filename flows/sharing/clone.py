"""The git side of a clone: which commit it is at, what differs from that, and how it gets to another.

The project may lie in a subfolder of the clone (`dvc init --subdir`): paths are relative to the current folder, also
those of files outside it, which a checkout changes as well.
"""

import os
import re
import subprocess
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from flows.errors import PipelineError

HASH_LENGTH = 40
ALLOW = re.compile(r"git config --global --add safe\.directory .*")  # git's own words on whose the clone is
OURS = ("dvc.lock", "params.yaml")  # what a run itself changes, beside metrics that git holds
BY_DVC = ("/dvc.lock", ".dvc", ".gitignore")  # what DVC itself writes, in any folder


def git(*arguments: str) -> str:
    """What it prints. Raises PipelineError: git refuses, or there is none."""
    done = run(*arguments)
    if done.returncode:
        raise refusal(arguments, done.stderr)
    return done.stdout.strip()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603  (in English, for ALLOW; a name need not be UTF-8)
            ["git", *arguments], capture_output=True, encoding="utf-8", errors="backslashreplace",  # noqa: S607
            env=os.environ | {"LC_ALL": "C"},
        )  # fmt: skip
    except FileNotFoundError as error:
        raise PipelineError("there is no program git on PATH: install it, or correct PATH") from error


def refusal(arguments: Sequence[str], message: str) -> PipelineError:
    """In git's words; of those about a clone that belongs to another user, the command that allows it."""
    if found := ALLOW.search(message):
        return PipelineError(
            f"git refuses to read {Path.cwd()}, which belongs to another user; if you trust it: `{found[0]}`"
        )
    return PipelineError(f"git {' '.join(arguments)}: {message.strip()}")


def prefix() -> str:
    """Of the current folder in its repository, as `sub/folder/`; empty at the top."""
    return git("rev-parse", "--show-prefix")


def top() -> str:
    return git("rev-parse", "--show-toplevel")


def changed_by_hand(outputs: Iterable[str]) -> list[str]:
    """Tracked files that differ from the commit and that no run writes. `outputs`: paths that stages write."""
    own = [Path(one) for one in (*OURS, *outputs)]
    return [
        name
        for name in names("diff", "--name-only", "HEAD")
        if not any(Path(name).is_relative_to(one) for one in own) and not name.endswith(BY_DVC)
    ]


def names(*arguments: str) -> list[str]:
    """A git command's list of files of the whole clone, also where a name has signs that git would quote."""
    command, *rest = arguments
    folder = top()
    found = git("-C", folder, command, "-z", *rest).split("\0")
    return [os.path.relpath(f"{folder}/{name}", Path.cwd().resolve()) for name in found if name]


def in_the_way(commit: str) -> list[str]:
    """Files that git does not keep here, but the commit does, with other content."""
    here = {*names("ls-files", "--others", "--exclude-standard")}
    there = {*names("ls-tree", "-r", "--name-only", commit)}
    return [
        name
        for name in sorted(here & there)
        if not name.endswith(BY_DVC) and git("hash-object", "--", name) != git("rev-parse", f"{commit}:./{name}")
    ]


def keep_commits() -> None:
    """A commit made here on no branch would be found by nobody after a checkout: it gets a branch."""
    if not git("for-each-ref", "--contains", "HEAD"):
        git("branch", "--force", f"kept-{git('rev-parse', '--short', 'HEAD')}")


def branch() -> str:
    """Empty where a commit is checked out and no branch."""
    return git("branch", "--show-current")


def on_origin() -> bool:
    """Has the commit here been pushed, as far as this clone knows?"""
    return bool(git("branch", "--remotes", "--contains", "HEAD"))


def at_head(path: str) -> str:
    """A file's text as committed; empty where it is not."""
    return git("show", f"HEAD:./{path}") if git("ls-tree", "HEAD", path) else ""


def go_to(revision: str, outputs: Collection[str]) -> str:
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
        git("fetch", "--quiet", "--tags", "--force", "--prune", "origin")
        commit = find(f"refs/remotes/origin/{revision}") or find(revision)
    if not commit:
        raise PipelineError(f"no {revision} on origin: push it there first")
    if lost := [name for name in in_the_way(commit) if name not in outputs]:
        raise PipelineError(f"{Path.cwd()}: not in git here, but in {revision}: {', '.join(lost)}; move them away")
    keep_commits()
    git("checkout", "--quiet", "--force", "--detach", commit)
    return commit


def find(revision: str) -> str:
    """Its commit; empty where there is none."""
    arguments = ["rev-parse", "--quiet", "--verify", "--end-of-options", f"{revision}^{{commit}}"]
    done = run(*arguments)
    return done.stdout.strip() if done.returncode == 0 else ""
