"""The pipeline as a Prefect flow: one task run a stage, named after it, started as soon as what it needs is done.

DVC is the only cache, Prefect's is off: the states say what DVC did. Executed is Completed; restored and unchanged are
Cached, the message says which; what failed is Failed with its last lines; what lies below it stays NotReady.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dvc.exceptions import DvcException
from httpx import HTTPError
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, StateType
from prefect.futures import PrefectFuture, wait
from prefect.states import Cancelled, Completed, Failed
from prefect.utilities.annotations import quote

from flows.pages import table
from flows.pages.artifacts import publish
from flows.pages.table import Row
from flows.pipeline import lock_file as lock
from flows.pipeline.graph import PipelineError, open_repo, read_graph
from flows.plan import Decision, Verdict, Wish, plan
from flows.processes.cancel import watch_for_cancel
from flows.processes.locks import alone_with_recipe
from flows.processes.process import LOST, FailedError, StoppedError
from flows.processes.stage import How, Outcome
from flows.repair import mend
from flows.sharing import clone
from flows.sharing.dispatch import Run, bring, prepare
from flows.sharing.share import move

DVC_FAILED = "ERROR: failed to reproduce"  # says no more than that it failed
NOT_DONE = {StateType.FAILED: "failed", StateType.CRASHED: "failed", StateType.CANCELLED: "cancelled"}


@flow(name="recipe", persist_result=False)
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
        stages: with what they depend on; default: all of dvc.yaml.
        set_param: `section.key=value`, written to params.yaml first, as `dvc exp run -S` does.
        force: run every stage, whatever is remembered.
        pull: take from the DVC remote what others have made.
        push: give to the DVC remote what this run makes.
        send: pools whose stages go to workers, with pull and push; the others run here.
        revision: a branch or tag on origin, or a commit, that this clone goes to first.
    """
    try:
        with alone_with_recipe():
            for line in mend():
                print(line)
            if revision:
                go_to(revision)
            run = prepare(force, pull, push, send or [], set_param or [])
            with watch_for_cancel(run.stop):
                return bring_all(decide_all(stages or [], run), run)
    except (PipelineError, FailedError, DvcException, OSError) as error:
        return Failed(message=" ".join(str(error).split()))
    except StoppedError as error:
        return Cancelled(message=str(error))


def go_to(revision: str) -> None:
    """The commit's files, and of dvc.lock what this clone has done since the last one, where nobody has committed
    another result in the meantime."""
    repo = open_repo(wait_for_lock=True)
    before, done = lock.parse(clone.at_head(lock.LOCK)), lock.entries(repo)
    clone.go_to(revision, lock.outputs(repo))
    repo = open_repo(wait_for_lock=True)
    now = lock.entries(repo)
    own = [name for name in read_graph(repo) if name in done and done[name] != before.get(name)]
    lock.merge(repo, {name: done[name] for name in own if now.get(name) == before.get(name)})


def decide_all(stages: Sequence[str], run: Run) -> list[Decision]:
    """The plan. What is up to date here is pushed first, and what lies elsewhere is looked for there."""
    wish = Wish(run.force, run.pull, away=run.send)
    decisions = plan(open_repo(), stages, wish)
    up_to_date = [one.stage for one in decisions if one.verdict is Verdict.STAY]
    if run.push and up_to_date:
        said = move("settle", up_to_date, get_run_logger().info, run.stop)
        if lost := [line.removeprefix(LOST) for line in said if line.startswith(LOST)]:
            return plan(open_repo(), stages, replace(wish, lost=lost))
    return decisions


def bring_all(decisions: Sequence[Decision], run: Run) -> State[None]:
    before, futures = list(lock.entries(open_repo(wait_for_lock=True))), dict[str, PrefectFuture[Any]]()
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
    lock.in_order(open_repo(wait_for_lock=True), [one.stage for one in decisions], before)
    states = {name: future.state for name, future in futures.items()}
    rows = [row(one, states.get(one.stage), run.outcomes.get(one.stage)) for one in decisions]
    table.show(rows)
    try:
        publish(rows)
    except HTTPError as error:  # the stages are what they are, also where the server has gone
        print(f"nothing could be put on the run's page: {error}")
    return conclude(rows, run.stop.is_set())


@task(cache_policy=NO_CACHE)
def stage_task(decision: Decision, run: Run) -> State[None]:
    """One stage; its state says what became of it."""
    try:
        outcome = bring(decision, run, get_run_logger().info)
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
    said = [line for line in str(state.message).splitlines() if word == "failed" and not line.startswith(DVC_FAILED)]
    return Row(decision.stage, word, (*said[-1:], *decision.why))


def reasons(decision: Decision, outcome: Outcome) -> tuple[str, ...]:
    """The plan's, unless what it feared did not come."""
    stayed = outcome.how is How.UNCHANGED and decision.verdict is not Verdict.STAY
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
