"""Brings a stage up to date in this clone or on a worker of its pool; an unchanged stage is left as it is."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flows.errors import PipelineError
from flows.pipeline import lock_file
from flows.pipeline.dvc_adapter import cache_folder, open_repo
from flows.pipeline.graph import all_stages
from flows.pipeline.params import set_params
from flows.pipeline.planning import Decision, Verdict
from flows.processes.gpus import gpu_slot
from flows.processes.stage import Outcome, StageStatus, run_stage
from flows.sharing import clone
from flows.sharing.remote import has_shared_cache
from flows.sharing.remote_stage import run_on_worker
from flows.sharing.transfer_task import transfer


@dataclass
class Run:
    """The state that the tasks of one flow run share, because they are threads of one process.

    Args:
        send: pools whose stages go to workers.
        revision: the commit that the workers check out.
        params: the text of params.yaml for the workers, if it differs from the text in the commit.
    """

    force: bool = False
    pull: bool = False
    push: bool = False
    send: Sequence[str] = ()
    revision: str = ""
    params: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def is_unchanged(self, decision: Decision) -> bool:
        """Returns True if the plan keeps the stage and no stage directly upstream was executed. An executed
        stage may have changed its outputs."""
        statuses = [self.outcomes[name].status for name in decision.upstream]
        return decision.verdict is Verdict.UNCHANGED and StageStatus.EXECUTED not in statuses


def prepare(force: bool, pull: bool, push: bool, send: Sequence[str], set_param: Sequence[str]) -> Run:
    """Checks the request, then writes params.yaml.

    Raises:
        PipelineError: there is no remote, a worker would not see a change, or there is no such param. Then nothing has
            been written.
    """
    run = Run(force, pull or bool(send), push or bool(send), send)
    repo = open_repo(wait_for_lock=True)
    if (run.pull or run.push) and has_shared_cache(repo):
        print(f"the clones share the cache {cache_folder(repo)}: nothing has to be pulled or pushed")
    if send:
        if unknown := set(send) - {node.pool for node in all_stages(repo).values()}:
            raise PipelineError(f"no stage has `meta: {{pool: {', '.join(sorted(unknown))}}}` in its dvc.yaml")
        if files := [text for text in set_param if ":" in text.partition("=")[0]]:
            raise PipelineError(f"-S {files[0]}: workers get only params.yaml; commit and push other files")
        if changed := clone.changed_by_hand(lock_file.outputs(repo)):
            raise PipelineError(
                f"not committed: {', '.join(changed)}: workers see commits alone; commit and push first"
            )
        if not clone.is_on_origin():
            raise PipelineError("the current commit is not on origin, from where workers fetch it: `git push` first")
        run.revision = clone.git("rev-parse", "HEAD")
    set_params(set_param)
    if send and clone.git("diff", "--name-only", "HEAD", "params.yaml"):
        run.params = Path("params.yaml").read_text(encoding="utf-8")
    return run


def update(decision: Decision, run: Run, log: Callable[[str], None]) -> Outcome:
    """Brings a stage up to date. Raises FailedError, StoppedError or PipelineError."""
    name = decision.stage
    if run.is_unchanged(decision):
        return Outcome(name, StageStatus.UNCHANGED, 0)
    if decision.pool in run.send:
        return update_on_worker(decision, run, log)
    if run.pull:
        transfer("pull", [name], log, run.stop)
    with gpu_slot(decision.pool, decision.gpus, run.stop, log) as environment:
        outcome = run_stage(name, run.force, log, run.stop, environment)
    if run.push:
        transfer("push", [name], log, run.stop)
    return outcome


def update_on_worker(decision: Decision, run: Run, log: Callable[[str], None]) -> Outcome:
    if decision.verdict is not Verdict.RUN:  # for RUN the plan knows that this clone has no cached result
        transfer("push-cached-result", [decision.stage], log, run.stop)
    entries = lock_file.read(open_repo(wait_for_lock=True))
    parameters = {
        "stage": decision.stage,
        "revision": run.revision,
        "params": run.params,
        "entries": lock_file.entries_of(entries, [*decision.upstream, decision.stage]),
        "force": run.force,
    }
    outcome, new_entries = run_on_worker(decision.pool, parameters, log, run.stop)
    lock_file.merge(open_repo(wait_for_lock=True), new_entries)
    transfer("pull-plots", [decision.stage], log, run.stop)
    return outcome
