"""The pipeline as a Prefect flow. Each stage is a task run that has its name and starts when its upstream stages end.

DVC is the only cache, and Prefect's cache is off. The states of the task runs say what DVC did: Completed means
executed. Cached means restored or unchanged, and the message says which. Failed has the last lines of the output as its
message, and the stages downstream of a failed stage stay NotReady.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from dvc.exceptions import DvcException
from httpx import HTTPError
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.utilities.annotations import quote

from flows.errors import FailedError, PipelineError, StoppedError
from flows.pages import table
from flows.pages.artifacts import publish
from flows.pages.table import Row
from flows.pipeline import lock_file
from flows.pipeline.dvc_adapter import open_repo
from flows.pipeline.graph import all_stages
from flows.pipeline.planning import Decision, PlanOptions, Verdict, make_plan
from flows.processes.cancel import watch_for_cancel
from flows.processes.locks import lock_clone_for_run
from flows.processes.stage import Outcome, StageStatus
from flows.repair import repair
from flows.sharing import clone
from flows.sharing.dispatch import Run, prepare, update
from flows.sharing.transfer_task import transfer

DVC_FAILED = "ERROR: failed to reproduce"  # a line that does not say why the stage failed
FAILURE_WORDS = {StateType.FAILED: "failed", StateType.CRASHED: "failed", StateType.CANCELLED: "cancelled"}
MAX_NAME_LENGTH = 200  # characters


def run_name() -> str:
    """Returns the run's first name. After the checkout of `revision` the commit is known, and the run is renamed."""
    parameters: Mapping[str, Any] = flow_run.parameters
    return describe_run(parameters.get("revision"), parameters.get("set_param"), knows_commit=False)


def describe_run(revision: str | None, set_param: Iterable[str] | None, knows_commit: bool) -> str:
    """Returns branch, commit and `-S` values, as `main 5f0285c train_full.n_cycles=2`. `+changes` after the commit
    means that files differ from it."""
    words = [revision] if revision else []
    if knows_commit or not revision:
        try:
            words = [revision or clone.current_branch(), clone.git("rev-parse", "--short", "HEAD")]
            words += ["+changes"] if clone.changed_by_hand(lock_file.outputs(open_repo(wait_for_lock=True))) else []
        except (PipelineError, DvcException):
            words = words or ["no commit"]
    return " ".join(filter(None, [*words, *(set_param or [])]))[:MAX_NAME_LENGTH]


@flow(name="recipe", flow_run_name=run_name, persist_result=False)
def recipe(
    stages: list[str] | None = None,
    set_param: list[str] | None = None,
    force: bool = False,
    pull: bool = False,
    push: bool = False,
    send: list[str] | None = None,
    revision: str | None = None,
) -> Any:
    """Bring the pipeline in the current folder up to date.

    Args:
        stages: stages, with the stages that they depend on, or dvc.yaml files with all their stages; by default all
            stages of dvc.yaml.
        set_param: `section.key=value` texts. They are first written to params.yaml, as by `dvc exp run -S`.
        force: run every stage, even if its result is cached.
        pull: fetch what other clones have computed from the DVC remote.
        push: upload the results of this run to the DVC remote.
        send: pools whose stages go to workers; this implies pull and push. Stages of other pools run in this clone.
        revision: a branch or tag on origin, or a commit, that this clone checks out first.
    """
    try:
        with lock_clone_for_run():
            for line in repair():
                print(line)
            if revision:
                check_out(revision)
                set_run_name(describe_run(revision, set_param, knows_commit=True))
            run = prepare(force, pull, push, send or [], set_param or [])
            with watch_for_cancel(run.stop):
                return update_all(decide_all(stages or [], run), run)
    except (PipelineError, FailedError, DvcException, OSError) as error:
        return Failed(message=" ".join(str(error).split()))
    except StoppedError as error:
        return Cancelled(message=str(error))


def set_run_name(name: str) -> None:
    if run_id := flow_run.get_id():
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(run_id), name=name)


def check_out(revision: str) -> None:
    """Checks out the commit. It keeps the dvc.lock entries that differ from this clone's old commit, unless the stage's
    entry changed between the two commits."""
    repo = open_repo(wait_for_lock=True)
    own_entries = lock_file.read(repo)
    old_entries = {lock: lock_file.parse(clone.text_at_head(lock)) for lock in own_entries}
    clone.check_out(revision, lock_file.outputs(repo))
    repo = open_repo(wait_for_lock=True)
    new_entries, kept_entries = lock_file.read(repo), lock_file.Entries()
    for lock, name in map(lock_file.position, all_stages(repo)):
        entry, old_entry = own_entries.get(lock, {}).get(name), old_entries.get(lock, {}).get(name)
        if entry not in (None, old_entry) and new_entries.get(lock, {}).get(name) == old_entry:
            kept_entries.setdefault(lock, {})[name] = entry
    lock_file.merge(repo, kept_entries)


def decide_all(stages: Sequence[str], run: Run) -> list[Decision]:
    """Returns the plan. With `push`, the stages that are up to date are pushed first. If their outputs are neither in
    this clone nor in the remote, the stages run again."""
    options = PlanOptions(run.force, run.pull, remote_pools=run.send)
    decisions = make_plan(open_repo(), stages, options)
    up_to_date = [decision.stage for decision in decisions if decision.verdict is Verdict.UNCHANGED]
    if not (run.push and up_to_date):
        return decisions
    lost = transfer("ensure-pushed", up_to_date, get_run_logger().info, run.stop)
    return make_plan(open_repo(), stages, replace(options, lost=lost)) if lost else decisions


def update_all(decisions: Sequence[Decision], run: Run) -> State[None]:
    old_entries, futures = lock_file.read(open_repo(wait_for_lock=True)), dict[str, PrefectFuture[Any]]()
    try:
        for decision in decisions:
            name = decision.stage
            named_task: Any = stage_task.with_options(name=name, task_run_name=name)
            upstream = [futures[stage] for stage in decision.upstream]
            # `quote` keeps Prefect from searching `run` for futures while other tasks write to it
            futures[name] = named_task.submit(decision, quote(run), wait_for=upstream)
        wait(list(futures.values()))
    except BaseException as error:  # Ctrl-C, or SIGTERM from a Prefect worker: no stage may outlive its run
        run.stop.set()
        wait(list(futures.values()))
        if not isinstance(error, KeyboardInterrupt):
            raise
    lock_file.sort_new_entries(open_repo(wait_for_lock=True), [decision.stage for decision in decisions], old_entries)
    states = {name: future.state for name, future in futures.items()}
    rows = [make_row(decision, states.get(decision.stage), run.outcomes.get(decision.stage)) for decision in decisions]
    table.show(rows)
    try:
        publish(rows)
    except HTTPError as error:  # the stages are done, even if the server no longer answers
        print(f"the results could not be published on the run's page: {error}")
    return conclude(rows, run.stop.is_set())


@task(cache_policy=NO_CACHE)
def stage_task(decision: Decision, run: Run) -> State[None]:
    """Brings one stage up to date. The returned state says what happened."""
    try:
        outcome = update(decision, run, get_run_logger().info)
    except (FailedError, PipelineError) as error:
        return Failed(message=str(error))
    except StoppedError as error:
        return Cancelled(message=str(error))
    run.outcomes[decision.stage] = outcome
    why = "; ".join(reasons(decision, outcome))
    state = "Completed" if outcome.status is StageStatus.EXECUTED else "Cached"
    return Completed(name=state, message=f"{outcome.status}{why and ': '}{why}")


def make_row(decision: Decision, state: State[Any] | None, outcome: Outcome | None) -> Row:
    if outcome:
        why = reasons(decision, outcome)
        numbers = (outcome.seconds, outcome.items, outcome.computed)
        return Row(decision.stage, outcome.status, why, *numbers, outcome.worker)
    if state is None:
        return Row(decision.stage, "not run", decision.why)
    word = FAILURE_WORDS.get(state.type, "not run")
    lines = str(state.message).splitlines()
    message = [line for line in lines if word == "failed" and not line.startswith(DVC_FAILED)]
    return Row(decision.stage, word, (*message[-1:], *decision.why))


def reasons(decision: Decision, outcome: Outcome) -> tuple[str, ...]:
    """Returns the plan's reasons, but none if the stage stayed unchanged although the plan expected a change."""
    is_unchanged = outcome.status is StageStatus.UNCHANGED and decision.verdict is not Verdict.UNCHANGED
    return () if is_unchanged else decision.why


def conclude(rows: Sequence[Row], stopped: bool = False) -> State[None]:
    """Returns the state of the flow run. It is Completed only if every stage is up to date."""
    counts = Counter(row.state for row in rows)
    message = ", ".join(f"{n} {word}" for word, n in counts.items())
    if counts["cancelled"] or (stopped and counts["not run"]):
        return Cancelled(message=message)
    if counts["failed"] or counts["not run"]:
        failed = ", ".join(row.stage for row in rows if row.state == "failed")
        return Failed(message=f"{failed} failed: {message}")
    return Completed(message=message)
