"""Runs git in a clone: which commit is checked out, which files differ from it, and the checkout of another commit.

The project may be in a subfolder of the clone (`dvc init --subdir`). All paths are relative to the current folder, even
the paths of files outside the project, which a checkout changes too.
"""

import os
import re
import subprocess
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from flows.errors import PipelineError

HASH_LENGTH = 40
# the command that git's error message names if the clone belongs to another user
ALLOWING_COMMAND = re.compile(r"git config --global --add safe\.directory .*")
WRITTEN_BY_RUNS = ("dvc.lock", "params.yaml")  # and metrics, if git tracks them
WRITTEN_BY_DVC = ("/dvc.lock", ".dvc", ".gitignore")  # how the paths of files end that DVC writes in any folder


def git(*arguments: str) -> str:
    """Returns the output of a git command. Raises PipelineError if the command fails or git is not installed."""
    process = run(*arguments)
    if process.returncode:
        raise git_error(arguments, process.stderr)
    return process.stdout.strip()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603  (LC_ALL: in English, for ALLOWING_COMMAND; a file name need not be UTF-8)
            ["git", *arguments], capture_output=True, encoding="utf-8", errors="backslashreplace",  # noqa: S607
            env=os.environ | {"LC_ALL": "C"},
        )  # fmt: skip
    except FileNotFoundError as error:
        raise PipelineError("there is no program git on PATH: install git, or correct PATH") from error


def git_error(arguments: Sequence[str], message: str) -> PipelineError:
    """Returns an error with git's message; if the clone belongs to another user, with the command that allows it."""
    if match := ALLOWING_COMMAND.search(message):
        return PipelineError(
            f"git refuses to read {Path.cwd()}, which belongs to another user; if you trust it: `{match[0]}`"
        )
    return PipelineError(f"git {' '.join(arguments)}: {message.strip()}")


def project_folder() -> str:
    """Returns the path of the current folder in its git repository, as `sub/folder/`; empty for the top folder."""
    return git("rev-parse", "--show-prefix")


def top_folder() -> str:
    return git("rev-parse", "--show-toplevel")


def changed_by_hand(outputs: Iterable[str]) -> list[str]:
    """Returns the tracked files that differ from the commit and that no run writes.

    `outputs`: the paths that stages write.
    """
    run_paths = [Path(path) for path in (*WRITTEN_BY_RUNS, *outputs)]
    return [
        name
        for name in list_files("diff", "--name-only", "HEAD")
        if not any(Path(name).is_relative_to(path) for path in run_paths) and not name.endswith(WRITTEN_BY_DVC)
    ]


def list_files(*arguments: str) -> list[str]:
    """Returns the files of the whole clone that a git command lists. `-z` keeps git from quoting special characters."""
    command, *rest = arguments
    folder = top_folder()
    names = git("-C", folder, command, "-z", *rest).split("\0")
    return [os.path.relpath(f"{folder}/{name}", Path.cwd().resolve()) for name in names if name]


def conflicting_files(commit: str) -> list[str]:
    """Returns the untracked files that the commit tracks with other content."""
    untracked = {*list_files("ls-files", "--others", "--exclude-standard")}
    in_commit = {*list_files("ls-tree", "-r", "--name-only", commit)}
    names = [name for name in sorted(untracked & in_commit) if not name.endswith(WRITTEN_BY_DVC)]
    return [name for name in names if git("hash-object", "--", name) != git("rev-parse", f"{commit}:./{name}")]


def name_loose_commit() -> None:
    """Creates a branch `kept-...` if the current commit is on no branch: after a checkout nobody would find it."""
    if not git("for-each-ref", "--contains", "HEAD"):
        git("branch", "--force", f"kept-{git('rev-parse', '--short', 'HEAD')}")


def current_branch() -> str:
    """Returns the branch; an empty text if a commit is checked out instead of a branch."""
    return git("branch", "--show-current")


def is_on_origin() -> bool:
    """Returns True if the current commit has been pushed, as far as this clone knows."""
    return bool(git("branch", "--remotes", "--contains", "HEAD"))


def text_at_head(path: str) -> str:
    """Returns the committed text of a file; an empty text if the file is not in the commit."""
    return git("show", f"HEAD:./{path}") if git("ls-tree", "HEAD", path) else ""


def check_out(revision: str, outputs: Collection[str]) -> str:
    """Checks out a commit, a branch of origin or a tag, and returns the commit.

    Raises:
        PipelineError: there is no such revision, or the checkout would lose changes that were made by hand.
    """
    if changed := changed_by_hand(outputs):
        raise PipelineError(
            f"{Path.cwd()}: changed and not committed: {', '.join(changed)}; every run checks out another commit in a "
            "clone that workers use: commit these files, or use another clone"
        )
    if not (len(revision) == HASH_LENGTH and (commit := find_commit(revision))):
        git("fetch", "--quiet", "--tags", "--force", "--prune", "origin")
        commit = find_commit(f"refs/remotes/origin/{revision}") or find_commit(revision)
    if not commit:
        raise PipelineError(f"no commit, branch or tag {revision} on origin: push it first")
    if conflicts := [name for name in conflicting_files(commit) if name not in outputs]:
        files = ", ".join(conflicts)
        raise PipelineError(f"{Path.cwd()}: files that are not in git here, but in {revision}: {files}; move them away")
    name_loose_commit()
    git("checkout", "--quiet", "--force", "--detach", commit)
    return commit


def find_commit(revision: str) -> str:
    """Returns the commit of a revision; an empty text if there is no such revision."""
    arguments = ["rev-parse", "--quiet", "--verify", "--end-of-options", f"{revision}^{{commit}}"]
    process = run(*arguments)
    return process.stdout.strip() if process.returncode == 0 else ""
