"""The pipeline as a Prefect flow: one task run a stage, named after it, started as soon as what it needs is done.

DVC is the only cache, Prefect's is off: the states say what DVC did. Executed is Completed; restored and unchanged are
Cached, the message says which; what failed is Failed with its last lines; what lies below it stays NotReady.
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
from flows.processes.locks import alone_with_recipe
from flows.processes.stage import How, Outcome
from flows.repair import repair
from flows.sharing import clone
from flows.sharing.dispatch import Run, prepare, update
from flows.sharing.transfer_task import transfer

DVC_FAILED = "ERROR: failed to reproduce"  # says no more than that it failed
NOT_DONE = {StateType.FAILED: "failed", StateType.CRASHED: "failed", StateType.CANCELLED: "cancelled"}
LONGEST_NAME = 200


def run_name() -> str:
    """The run's name at first; once the clone has gone to `revision`, the commit is known and the name is set again."""
    parameters: Mapping[str, Any] = flow_run.parameters
    return describe_run(parameters.get("revision"), parameters.get("set_param"), knows_commit=False)


def describe_run(revision: str | None, set_param: Iterable[str] | None, knows_commit: bool) -> str:
    """Branch, commit and `-S` values: `main 5f0285c train_full.n_cycles=2`; `+changes` where files differ from it."""
    words = [revision] if revision else []
    if knows_commit or not revision:
        try:
            words = [revision or clone.branch(), clone.git("rev-parse", "--short", "HEAD")]
            words += ["+changes"] if clone.changed_by_hand(lock_file.outputs(open_repo(wait_for_lock=True))) else []
        except (PipelineError, DvcException):
            words = words or ["no commit"]
    return " ".join(filter(None, [*words, *(set_param or [])]))[:LONGEST_NAME]


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
        stages: stages, with what they depend on, or dvc.yaml files with all their stages; default: all of dvc.yaml.
        set_param: `section.key=value`, written to params.yaml first, as `dvc exp run -S` does.
        force: run every stage, whatever is cached.
        pull: take from the DVC remote what other clones have made.
        push: give to the DVC remote what this run makes.
        send: pools whose stages go to workers, with pull and push; the others run here.
        revision: a branch or tag on origin, or a commit, that this clone goes to first.
    """
    try:
        with alone_with_recipe():
            for line in repair():
                print(line)
            if revision:
                go_to(revision)
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


def go_to(revision: str) -> None:
    """Check out the commit; entries of dvc.lock that this clone has made since its last commit are kept, where nobody
    has committed another result in the meantime."""
    repo = open_repo(wait_for_lock=True)
    done = lock_file.read(repo)
    before = {lock: lock_file.parse(clone.at_head(lock)) for lock in done}
    clone.go_to(revision, lock_file.outputs(repo))
    repo = open_repo(wait_for_lock=True)
    now, kept = lock_file.read(repo), lock_file.Entries()
    for lock, name in map(lock_file.place, all_stages(repo)):
        entry, committed = done.get(lock, {}).get(name), before.get(lock, {}).get(name)
        if entry not in (None, committed) and now.get(lock, {}).get(name) == committed:
            kept.setdefault(lock, {})[name] = entry
    lock_file.merge(repo, kept)


def decide_all(stages: Sequence[str], run: Run) -> list[Decision]:
    """The plan. With `push`, what is up to date is pushed first; what is not here must be in the remote, or runs."""
    options = PlanOptions(run.force, run.pull, remote_pools=run.send)
    decisions = make_plan(open_repo(), stages, options)
    up_to_date = [one.stage for one in decisions if one.verdict is Verdict.UNCHANGED]
    if not (run.push and up_to_date):
        return decisions
    lost = transfer("ensure-pushed", up_to_date, get_run_logger().info, run.stop)
    return make_plan(open_repo(), stages, replace(options, lost=lost)) if lost else decisions


def update_all(decisions: Sequence[Decision], run: Run) -> State[None]:
    before, futures = lock_file.read(open_repo(wait_for_lock=True)), dict[str, PrefectFuture[Any]]()
    try:
        for one in decisions:
            named: Any = stage_task.with_options(name=one.stage, task_run_name=one.stage)
            # quoted: Prefect would look through it for futures while other tasks write to it
            futures[one.stage] = named.submit(one, quote(run), wait_for=[futures[name] for name in one.upstream])
        wait(list(futures.values()))
    except BaseException as error:  # Ctrl-C, or SIGTERM from a worker: no stage may outlive its run
        run.stop.set()
        wait(list(futures.values()))
        if not isinstance(error, KeyboardInterrupt):
            raise
    lock_file.put_in_order(open_repo(wait_for_lock=True), [one.stage for one in decisions], before)
    states = {name: future.state for name, future in futures.items()}
    rows = [row(one, states.get(one.stage), run.outcomes.get(one.stage)) for one in decisions]
    table.show(rows)
    try:
        publish(rows)
    except HTTPError as error:  # the stages are done, also where the server no longer answers
        print(f"nothing could be put on the run's page: {error}")
    return conclude(rows, run.stop.is_set())


@task(cache_policy=NO_CACHE)
def stage_task(decision: Decision, run: Run) -> State[None]:
    """One stage; its state says what became of it."""
    try:
        outcome = update(decision, run, get_run_logger().info)
    except (FailedError, PipelineError) as error:
        return Failed(message=str(error))
    except StoppedError as error:
        return Cancelled(message=str(error))
    run.outcomes[decision.stage] = outcome
    why = "; ".join(reasons(decision, outcome))
    state = "Completed" if outcome.how is How.EXECUTED else "Cached"
    return Completed(name=state, message=f"{outcome.how}{why and ': '}{why}")


def row(decision: Decision, state: State[Any] | None, outcome: Outcome | None) -> Row:
    if outcome:
        facts = (outcome.seconds, outcome.items, outcome.computed, outcome.worker)
        return Row(decision.stage, outcome.how, reasons(decision, outcome), *facts)
    if state is None:
        return Row(decision.stage, "not run", decision.why)
    word = NOT_DONE.get(state.type, "not run")
    lines = str(state.message).splitlines()
    message = [line for line in lines if word == "failed" and not line.startswith(DVC_FAILED)]
    return Row(decision.stage, word, (*message[-1:], *decision.why))


def reasons(decision: Decision, outcome: Outcome) -> tuple[str, ...]:
    """The plan's, but none for a stage that stayed unchanged although the plan expected otherwise."""
    stayed = outcome.how is How.UNCHANGED and decision.verdict is not Verdict.UNCHANGED
    return () if stayed else decision.why


def conclude(rows: Sequence[Row], stopped: bool = False) -> State[None]:
    """The flow's own state: Completed only if every stage is up to date."""
    counts = Counter(row.state for row in rows)
    message = ", ".join(f"{n} {word}" for word, n in counts.items())
    if counts["cancelled"] or (stopped and counts["not run"]):
        return Cancelled(message=message)
    if counts["failed"] or counts["not run"]:
        failed = ", ".join(row.stage for row in rows if row.state == "failed")
        return Failed(message=f"{failed} failed: {message}")
    return Completed(message=message)
