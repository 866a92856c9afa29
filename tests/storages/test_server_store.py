"""Studies on a PostgreSQL server, with real connections and a real server that is restarted."""

import dataclasses
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

from autocompress.errors import (
    AutocompressError,
    InputError,
    RunLockedError,
    StudyMismatchError,
)
from autocompress.executors.job import EvaluationJob
from autocompress.measurement import Measurement
from autocompress.run_record import RunRecord
from autocompress.runs.doctor import examine
from autocompress.storages import lease, server, server_store
from autocompress.storages.lease import PREFIX, LeaseNote, Witness, read_leases
from autocompress.storages.open_storage import drivers_of, store_for
from autocompress.storages.server import (
    VARIABLE,
    cause_of,
    check_server,
    is_lost_connection,
    open_server,
    parse_storage,
    shown,
)
from autocompress.storages.server_store import ServerStore
from autocompress.storages.sqlite_store import SqliteStore
from autocompress.study.listener import Listener
from autocompress.study.records import load_run
from autocompress.study.study import Study
from tests.study_fixtures import search_study

Share = Callable[..., Study]


@pytest.fixture
def share(
    open_study: Callable[..., Study], tmp_path: Path, postgres_url: str, monkeypatch: Any
) -> Share:
    """Opens one study for several drivers, each with a folder of its own."""
    monkeypatch.setenv(VARIABLE, postgres_url)  # the password, for readers

    def share_(folder: str = "a", **changes: Any) -> Study:
        store = ServerStore(parse_storage(postgres_url), "shared", tmp_path / folder)
        return open_study(folder, store=store, **changes)

    return share_


def search(study: Study, executor: object, budget: int, **changes: Any) -> RunRecord:
    return search_study(study, executor, budget, **{"sampler": "tpe", **changes})  # type: ignore[arg-type]


def add(study: Study, label: str | None = None, **level: int) -> Any:
    levels = {**{knob.name: 0 for knob in study.space.knobs}, **level}
    return study.add(levels, "search", label, 1)


def declare_dead(study: Study) -> None:
    """Make a driver's lease probed as if its process had been killed."""
    store = study._store
    assert isinstance(store, ServerStore)
    key = f"{PREFIX}{store.driver}"
    note = dict(study._study.user_attrs[key])
    study._study.set_user_attr(key, {**note, "pid": 2**22 + 1})  # beyond the largest there is


def test_a_study_on_a_server_is_what_one_in_a_file_is(
    share: Share, make_executor: type, tmp_path: Path
) -> None:
    with share() as study:
        search(study, make_executor(), 8)
    with share() as study:
        run = search(study, make_executor(), 16)

    assert [t.number for t in run.trials] == list(range(16))
    assert all(t.state == "complete" for t in run.trials)
    assert len(run.controls) == 6
    read = load_run(tmp_path / "a")
    assert read.trials == run.trials
    assert read.front() == run.front()
    assert examine(tmp_path / "a")[0].what == "study on the server: 16 finished trials"
    assert not (tmp_path / "a" / "study.db").exists()


def test_drivers_share_a_budget_exactly(share: Share, make_executor: type) -> None:
    runs: dict[str, RunRecord] = {}

    def drive(name: str) -> None:
        with share(name) as study:
            runs[name] = search(study, make_executor(), 30)

    threads = [threading.Thread(target=drive, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)

    assert sorted(runs) == ["a", "b", "c"]
    for run in runs.values():
        assert [t.number for t in run.trials] == list(range(30))
        assert run.n_finished == 30
        assert len({t.label for t in run.trials}) == 30
        searched = [tuple(t.levels.items()) for t in run.trials if t.role == "search"]
        assert len(set(searched)) == len(searched)


def test_trials_of_a_killed_driver_are_taken_over(share: Share, make_executor: type) -> None:
    dead = share("dead")
    dead.__enter__()
    search(dead, make_executor(), 3)
    left = add(dead, **{"weight_bits:head": 5})
    with share("heir") as heir:
        assert heir.interrupted() == []  # its driver lives

        declare_dead(dead)
        (job,) = heir.interrupted()
        assert job.number == left.number
        run = search(heir, make_executor(), 6)
        assert [t.state for t in run.trials] == ["complete"] * 6
        assert heir.history().trials[left.number].user_attrs["attempts"] == 2
    dead.__exit__()


def test_a_driver_that_ends_hands_its_trials_back_at_once(share: Share) -> None:
    with share("a") as study:
        left = add(study)
        assert len(drivers_of(study.folder)) == 1
    with share("b") as study:
        (job,) = study.interrupted()
        again = study.begin_again(job)
        assert again is not None
        assert (again.number, again.attempts) == (left.number, 1)  # nothing was held against it
    assert drivers_of(study.folder) == []


def test_a_driver_that_was_thought_dead_does_not_write_over_its_heir(
    share: Share, measure: Callable[[EvaluationJob], Measurement]
) -> None:
    with share("late") as late, share("heir") as heir:
        job = add(late)
        declare_dead(late)
        (left,) = heir.interrupted()
        taken = heir.begin_again(left)
        assert taken is not None
        assert heir.begin_again(left) is None  # it is ours by now

        plan = heir.space.decode(job.levels)
        figures = measure(EvaluationJob(plan=plan, seed=0, fidelity=1, keep=Path("nowhere")))
        late.complete(job, dataclasses.replace(figures, accuracy=0.1))
        assert heir.record().trials[job.number].state == "running"
        heir.complete(taken, figures)
        late.fail(job, "oom")
        (trial,) = late.record().trials
        assert trial.measurement == figures


def test_what_two_drivers_begin_at_once_is_begun_once(share: Share) -> None:
    with share("a") as one, share("b") as other:
        assert add(one, "baseline") is not None
        assert add(other, "baseline") is None
        assert add(other, **{"weight_bits:stem": 1}) is not None
        assert add(one, **{"weight_bits:stem": 1}) is None
        levels = {knob.name: 0 for knob in one.space.knobs}
        assert one.add({**levels, "weight_bits:stem": 2}, "search", None, 1, budget=2) is None
        assert len(one.history().trials) == 2


def test_a_search_outlives_a_restart_of_the_server(
    share: Share, make_executor: type, postgres_server: Any
) -> None:
    restarted: list[int] = []

    def restart(call: int) -> None:
        if call in (3, 6):
            postgres_server.restart()
            restarted.append(call)

    with share() as study:
        run = search(study, make_executor(restart), 9)
    assert restarted == [3, 6]
    assert [t.state for t in run.trials] == ["complete"] * 9


def test_a_server_that_stays_away_ends_the_search_with_one_line(
    share: Share, make_executor: type, monkeypatch: Any
) -> None:
    monkeypatch.setattr(server_store, "_DELAYS_S", (0.01, 0.01))
    refused = sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception("connection refused"))

    def gone(*args: object, **kwargs: object) -> None:
        raise refused

    with share() as study:
        search(study, make_executor(), 2)
        with monkeypatch.context() as patch:
            patch.setattr(optuna.study.Study, "get_trials", gone)
            with pytest.raises(AutocompressError) as caught:
                search(study, make_executor(), 4)
        assert "cannot be reached: connection refused" in caught.value.message
        assert "finished trials are kept" in caught.value.hint
        assert caught.value.exit_code == 1
    with share() as study:
        assert search(study, make_executor(), 4).n_finished == 4


def test_what_one_driver_does_for_all_no_other_does_at_the_same_time(share: Share) -> None:
    done: list[str] = []
    with share("a") as study, share("b") as other:

        def first() -> None:
            assert not other.alone(lambda: done.append("second"))
            done.append("first")

        assert study.alone(first)
        assert other.alone(lambda: done.append("third"))
    assert done == ["first", "third"]


def test_time_runs_out_while_another_driver_measures_the_table(
    share: Share, make_executor: type
) -> None:
    told: list[object] = []
    listener = Listener(on_wait=told.append, on_end=told.append)
    with share("a") as busy, share("b") as other:
        search(busy, make_executor(), 1)
        settings = {"sampler": "guided", "listener": listener, "timeout_s": 1.5}

        def measure() -> None:
            search(other, make_executor(), 5, measure_table=pytest.fail, **settings)

        assert busy.alone(measure)
        assert len(other.history().trials) == 1
    assert told[0] == 0
    assert told[-1] == "timeout"


def test_a_turn_that_never_ends_is_named(share: Share, monkeypatch: Any) -> None:
    monkeypatch.setattr(server_store, "_TURN_S", 0.2)
    with (
        share("a") as one,
        share("b") as other,
        pytest.raises(RunLockedError, match="held its lock"),
    ):
        one._store.in_turn(lambda: add(other))


def test_latency_of_all_machines_is_on_one_scale(
    share: Share, measure: Callable[[EvaluationJob], Measurement]
) -> None:
    with share() as study:
        jobs = [add(study, "baseline"), add(study, **{"weight_bits:stem": 1})]
        figures = measure(
            EvaluationJob(
                plan=study.space.decode(jobs[0].levels), seed=0, fidelity=1, keep=Path("n")
            )
        )
        study.complete(jobs[0], figures)
        slow = {"latency_ms": 1.5, "latency_spread_ms": 0.2, "baseline_latency_ms": 2.0}
        study.complete(jobs[1], dataclasses.replace(figures, **slow))
        told = study.record().trials[1].measurement
    assert told is not None
    assert (told.latency_ms, told.latency_spread_ms, told.baseline_latency_ms) == (0.75, 0.1, 1.0)


def test_another_identity_is_refused_by_name(share: Share) -> None:
    with share():
        pass
    with (
        pytest.raises(StudyMismatchError, match="seed: 0 then, 7 now"),
        share(identity={"seed": 7}),
    ):
        pass
    with pytest.raises(StudyMismatchError), share(objectives="accuracy,size"):
        pass


def test_a_study_of_somebody_else_is_refused_and_untouched(share: Share, postgres_url: str) -> None:
    storage = open_server(parse_storage(postgres_url))
    foreign = optuna.create_study(study_name="shared", storage=storage, directions=["maximize"])
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(StudyMismatchError, match="not made by autocompress"), share():
        pass
    assert dict(foreign.user_attrs) == {}
    assert len(foreign.trials) == 1
    storage.engine.dispose()


def test_tables_of_another_optuna_are_refused(share: Share, postgres_url: str) -> None:
    with share():
        pass
    engine = sqlalchemy.create_engine(parse_storage(postgres_url))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = 'v0.9.0.a'"))
    engine.dispose()
    with pytest.raises(StudyMismatchError, match="another version of Optuna"), share():
        pass


def test_a_folder_remembers_its_server_but_not_the_password(
    share: Share, tmp_path: Path, postgres_url: str, postgres_server: Any, monkeypatch: Any
) -> None:
    with share():
        pass
    folder = tmp_path / "a"
    for path in folder.iterdir():
        assert postgres_server.PASSWORD.encode() not in path.read_bytes()
    kept = json.loads((folder / "storage.json").read_text())
    assert kept["study"] == "shared"
    assert kept["storage"] == shown(parse_storage(postgres_url))

    assert isinstance(store_for(folder, None), ServerStore)
    elsewhere = parse_storage("postgresql://tester@127.0.0.1:1/other")
    with pytest.raises(StudyMismatchError, match="is kept in postgresql"):
        store_for(folder, elsewhere)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(InputError, match="cannot be opened") as caught:
        load_run(folder)
    assert VARIABLE in caught.value.hint
    monkeypatch.setenv("PGPASSWORD", postgres_server.PASSWORD)
    assert load_run(folder).n_finished == 0


def test_a_folder_with_a_study_of_its_own_is_refused(
    share: Share, open_study: Callable[..., Study]
) -> None:
    with open_study("a"):
        pass
    with pytest.raises(StudyMismatchError, match="holds a study of its own"), share("a"):
        pass


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "must be the address"),
        ("postgresql://me:s3cret-pw@host:port/db", "must be the address"),
        ("sqlite:///study.db", "kept in the run folder anyway"),
        ("oracel://me:s3cret-pw@host/db", "oracel"),
        ("postgresql+pg8000://me:s3cret-pw@host/db", "pg8000"),
        ("mysql://me:s3cret-pw@host/db", "mysql is not supported"),
        ("mssql+pyodbc://me:s3cret-pw@host/db?driver=/tmp/evil.so", "mssql"),
        ("postgresql://me:s3cret-pw@host/db?passfile=/etc/passwd", "option 'passfile'"),
        ("postgresql://me:s3cret-pw@host/db?service=x", "option 'service'"),
    ],
)
def test_parse_storage_refuses_what_is_no_server(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        parse_storage(text)
    assert "s3cret-pw" not in str(caught.value)


def test_a_server_that_only_a_run_folder_names_is_not_contacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would learn the user's name, and ask for the password."""
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PGPASSWORD", "s3cret-pw")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.2)
        address = f"postgresql://me@127.0.0.1:{server.getsockname()[1]}/db"
        content = {"storage": address, "study": "theirs"}
        (tmp_path / "storage.json").write_text(json.dumps(content))
        for act in (load_run, examine):
            with pytest.raises(InputError, match="was not used on this machine") as caught:
                act(tmp_path)
            assert f"{VARIABLE}=postgresql+psycopg://me@127.0.0.1" in caught.value.hint
        assert drivers_of(tmp_path) == []
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"port": 1}, "refused"),
        ({"database": "nowhere"}, "does not exist"),
        ({"password": "s3cret-wrong"}, "authentication failed"),
    ],
)
def test_check_server_says_what_is_wrong_in_one_line(
    postgres_url: str, change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    url = parse_storage(postgres_url).set(**change)
    with pytest.raises(InputError, match=words) as caught:
        check_server(parse_storage(url.render_as_string(hide_password=False)))
    assert "s3cret" not in str(caught.value)
    assert "\n" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_tables_holds_no_run(
    postgres_url: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv(VARIABLE, postgres_url)
    content = {"storage": shown(parse_storage(postgres_url)), "study": "nothing"}
    (tmp_path / "storage.json").write_text(json.dumps(content))
    with pytest.raises(AutocompressError) as caught:
        load_run(tmp_path)
    assert "\n" not in caught.value.message
    (tmp_path / "storage.json").write_text("{}")
    with pytest.raises(InputError, match="must name a storage and a study"):
        load_run(tmp_path)


def test_leases_of_ended_drivers_stay_readable(share: Share, postgres_url: str) -> None:
    with share() as study:
        study_id = study._study._study_id
    engine = sqlalchemy.create_engine(parse_storage(postgres_url))
    (left,) = read_leases(engine, study_id).values()
    engine.dispose()
    assert left.is_over
    assert not left.is_held(left.seen)


def test_the_driver_shows_what_others_are_at(share: Share, make_executor: type) -> None:
    waits: list[int] = []
    with share("a") as busy, share("b") as idle:
        job = add(busy, "baseline")

        def finish(n_elsewhere: int) -> None:
            waits.append(n_elsewhere)
            busy.fail(job, "oom: of the other driver")

        with pytest.raises(AutocompressError, match="original model could not be measured"):
            search(idle, make_executor(), 3, listener=Listener(on_wait=finish))
    assert waits == [1]


def lost() -> sqlalchemy.exc.OperationalError:
    return sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception("server closed"))


def test_a_trial_whose_beginning_was_not_answered_is_begun_all_the_same(
    share: Share, make_executor: type, monkeypatch: Any
) -> None:
    """The server went away after a trial was written, and before it said so."""
    with share() as study:
        search(study, make_executor(), 2)
        lose = [True]

        def cut(trial: object) -> None:
            if lose.pop() if lose else False:
                raise lost()

        monkeypatch.setattr(server_store, "_DELAYS_S", (0.01,))
        monkeypatch.setattr(study._store, "write_trial", cut)
        run = search(study, make_executor(), 6)
    assert [t.state for t in run.trials] == ["complete"] * 6


def test_a_turn_that_was_lost_is_begun_again(share: Share, monkeypatch: Any) -> None:
    monkeypatch.setattr(server_store, "_DELAYS_S", (0.01, 0.01))
    terminate = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with share() as study:
        store = study._store
        calls: list[int] = []

        def write() -> str:
            calls.append(len(calls))
            if len(calls) == 1:
                with store._storage.engine.connect() as connection:
                    connection.execute(sqlalchemy.text(terminate))
            store.check_turn()
            return "written"

        assert store.in_turn(write) == "written"
        assert calls == [0, 1]


def test_a_read_that_was_cut_off_is_one_of_a_lost_connection() -> None:
    """Optuna asks the dead session once more, and what that says hides the cause."""
    hidden = sqlalchemy.exc.PendingRollbackError("Can't reconnect")
    hidden.__context__ = lost()
    assert is_lost_connection(hidden)
    assert cause_of(hidden) == "server closed"
    assert not is_lost_connection(sqlalchemy.exc.PendingRollbackError("of another kind"))


def test_a_lease_expires_only_before_the_eyes_of_somebody(monkeypatch: Any) -> None:
    """After an outage nobody could renew theirs: that is no sign of death."""
    clock = [0.0]
    monkeypatch.setattr(lease.time, "monotonic", lambda: clock[0])
    note = LeaseNote(host="h", machine="elsewhere", pid=1, started=0.0, seen=1000.0)
    witness = Witness()
    assert not witness.has_expired("a", note, now=1030.0)
    assert not witness.has_expired("a", note, now=1300.0)  # the first probed after the outage
    clock[0] = 10.0
    renewed = dataclasses.replace(note, seen=1305.0)
    assert not witness.has_expired("a", renewed, now=1310.0)
    assert not witness.has_expired("a", renewed, now=1400.0)
    clock[0] = 31.0
    assert witness.has_expired("a", renewed, now=1421.0)
    assert witness.has_expired("a", dataclasses.replace(note, is_over=True), now=1001.0)
    assert witness.has_expired("b", None, now=1001.0)


def test_every_folder_says_itself_where_its_task_is(share: Share) -> None:
    for name in "ab":
        study = share(name)
        study._info.update(task=f"/{name}/task.py:task", arguments={}, options={"jobs": 1})
        with study:
            pass
    assert load_run(study.folder.with_name("a")).info["task"] == "/a/task.py:task"
    assert load_run(study.folder).info["task"] == "/b/task.py:task"


def test_what_an_address_says_stands(postgres_url: str) -> None:
    url = parse_storage(f"{postgres_url}?options=-csearch_path%3Dmine&connect_timeout=60")
    given = server._engine_options(url)["connect_args"]
    assert given["options"].endswith("-csearch_path=mine")
    assert "connect_timeout" not in given
    assert given["keepalives_idle"] == "30"


def test_a_usual_storage_leaves_runs_where_they_are(
    share: Share, open_study: Callable[..., Study], tmp_path: Path
) -> None:
    elsewhere = parse_storage("postgresql://tester@127.0.0.1:1/other")
    with open_study("file"):
        pass
    assert isinstance(store_for(tmp_path / "file", elsewhere, is_usual=True), SqliteStore)
    assert isinstance(store_for(tmp_path / "new", elsewhere, is_usual=True), ServerStore)
    with share("kept"):
        pass
    kept = store_for(tmp_path / "kept", elsewhere, is_usual=True)
    assert "other" not in kept.name
