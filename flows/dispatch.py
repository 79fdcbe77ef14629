"""Where a stage of a run is brought up to date: not at all, in this clone, or on a worker of its pool."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flows import clone, lock
from flows.elsewhere import run_elsewhere
from flows.graph import PIPELINE, PipelineError, open_repo, read_graph
from flows.locks import slot
from flows.params import set_params
from flows.plan import Decision, Verdict
from flows.remote import shared
from flows.share import move
from flows.stage import How, Outcome, run_stage


@dataclass
class Run:
    """What the tasks of one flow run share: they are threads of one process.

    `send`: pools whose stages go to workers; `revision` and `params` (text of params.yaml, where it differs from the
    commit's) are what those need.
    """

    force: bool = False
    pull: bool = False
    push: bool = False
    send: Sequence[str] = ()
    revision: str = ""
    params: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def stays(self, decision: Decision) -> bool:
        """The plan's word, unless something above had to be made anew against it: its bytes may be others."""
        above = [self.outcomes[name].how for name in decision.upstream]
        return decision.verdict is Verdict.STAY and How.EXECUTED not in above


def prepare(force: bool, pull: bool, push: bool, send: Sequence[str], set_param: Sequence[str]) -> Run:
    """Write params.yaml, unless what is asked for cannot work.

    Raises:
        PipelineError: no remote, changes that workers would not see, a param that is none; nothing was written.
    """
    run = Run(force, pull or bool(send), push or bool(send), send)
    repo = open_repo(wait_for_lock=True)
    if (run.pull or run.push) and shared(repo):
        print(f"the clones share the cache {repo.cache.local.path}: nothing has to be pulled or pushed")
    if send:
        nodes = read_graph(repo).values()
        if other := [node.name for node in nodes if node.pool in send and node.dvc.path_in_repo != PIPELINE]:
            raise PipelineError(f"{', '.join(other)}: workers run the stages of the top folder's {PIPELINE} alone")
        if unknown := set(send) - {node.pool for node in nodes}:
            raise PipelineError(f"no stage of dvc.yaml has `meta: {{pool: {', '.join(sorted(unknown))}}}`")
        if files := [one for one in set_param if ":" in one.partition("=")[0]]:
            raise PipelineError(f"-S {files[0]}: workers get params.yaml alone; commit and push other files")
        if changed := clone.changed_by_hand(lock.outputs(repo)):
            raise PipelineError(
                f"not committed: {', '.join(changed)}: workers see commits alone; commit and push first"
            )
        if not clone.on_origin():
            raise PipelineError("the commit here is not on origin, where workers get it: `git push` first")
        run.revision = clone.git("rev-parse", "HEAD")
    set_params(set_param)
    if send and clone.git("diff", "--name-only", "HEAD", "params.yaml"):
        run.params = Path("params.yaml").read_text(encoding="utf-8")
    return run


def bring(decision: Decision, run: Run, log: Callable[[str], None]) -> Outcome:
    """Raises FailedError, StoppedError or PipelineError."""
    name = decision.stage
    if run.stays(decision):
        return Outcome(name, How.UNCHANGED, 0)
    if decision.pool in run.send:
        return on_worker(decision, run, log)
    if run.pull:
        move("pull", [name], log, run.stop)
    with slot(decision.pool, run.stop, log):
        outcome = run_stage(name, run.force, log, run.stop)
    if run.push:
        move("push", [name], log, run.stop)
    return outcome


def on_worker(decision: Decision, run: Run, log: Callable[[str], None]) -> Outcome:
    if decision.verdict is not Verdict.RUN:  # of that the plan knows that nothing is remembered here
        move("offer", [decision.stage], log, run.stop)
    known = lock.entries(open_repo(wait_for_lock=True))
    needed = [name for name in (*decision.upstream, decision.stage) if name in known]
    parameters = {
        "stage": decision.stage,
        "revision": run.revision,
        "params": run.params,
        "entries": {name: known[name] for name in needed},
        "force": run.force,
    }
    outcome, entry = run_elsewhere(decision.pool, parameters, log, run.stop)
    lock.merge(open_repo(wait_for_lock=True), {decision.stage: entry})
    move("look", [decision.stage], log, run.stop)
    return outcome
