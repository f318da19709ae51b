"""The job queue against a real PostgreSQL: each job is done once in effect, none is forgotten, whoever dies."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import Engine, delete, select, text, update

from cloud.database import connect, migrate
from cloud.errors import JobError, LeaseLost
from cloud.jobs import ENDED, STATES, Lease, Queue, hold
from cloud.tables import JOBS

MOST = 3


@pytest.fixture(scope="module")
def engine(database: str) -> Iterator[Engine]:
    made = connect(database)
    migrate(made)
    yield made
    made.dispose()


@pytest.fixture
def queue(engine: Engine) -> Queue:
    with engine.begin() as connection:
        connection.execute(delete(JOBS))
    return Queue(engine, most_attempts=MOST)


def age(engine: Engine, *columns: str) -> None:
    """As if the database's clock had gone on: these instants are an hour ago."""
    with engine.begin() as connection:
        connection.execute(update(JOBS).values({column: text("now() - interval '1 hour'") for column in columns}))


def lapse(engine: Engine) -> None:
    age(engine, "lease_until")


def taken(queue: Queue, *kinds: str) -> Lease:
    lease = queue.take(kinds or ("analyse",))
    assert lease is not None
    return lease


def test_asking_twice_is_asking_once(queue: Queue) -> None:
    first = queue.put("analyse", "7", {"scene_id": 7})
    assert queue.put("analyse", "7", {"scene_id": 8}) == first
    assert queue.put("reembed", "7") != first
    assert queue.job(first).arguments == {"scene_id": 7}
    assert queue.counts()["analyse"] == {**dict.fromkeys(STATES, 0), "queued": 1}


def test_a_job_is_taken_by_one_worker_by_priority_then_age(queue: Queue) -> None:
    for subject, priority in (("a", 0), ("b", 5), ("c", 0)):
        queue.put("analyse", subject, priority=priority)
    assert [taken(queue).job.subject for _ in range(3)] == ["b", "a", "c"]
    assert queue.take(["analyse"]) is None


def test_a_worker_takes_only_kinds_that_it_knows(queue: Queue) -> None:
    queue.put("reembed", "all")
    assert queue.take(["analyse"]) is None and queue.take(["analyse", "reembed"]) is not None


def test_workers_at_once_take_each_job_once(queue: Queue) -> None:
    for number in range(60):
        queue.put("analyse", str(number))
    got: list[str] = []

    def work() -> None:
        while (lease := queue.take(["analyse"])) is not None or queue.counts()["analyse"]["queued"]:
            if lease is not None:
                got.append(lease.job.subject)
                lease.done()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got, key=int) == [str(number) for number in range(60)]


def test_who_lost_the_lease_can_neither_finish_nor_fail_the_job(queue: Queue, engine: Engine) -> None:
    id = queue.put("analyse", "1")
    first = taken(queue)
    assert queue.take(["analyse"]) is None
    lapse(engine)
    second = taken(queue)
    for word in (first.extend, first.done, first.hand_back, lambda: first.fail("x"), lambda: first.progress("x", 0.1)):
        with pytest.raises(LeaseLost):
            word()
    with engine.begin() as connection:
        with pytest.raises(LeaseLost):
            hold(connection, id, first.word)
        hold(connection, id, second.word)
    second.done({"moments": 3})
    assert (queue.job(id).state, queue.job(id).result) == ("done", {"moments": 3})
    with pytest.raises(LeaseLost) as late:
        second.fail("again")
    assert not late.value.is_cancelled and queue.job(id).state == "done"


def test_the_next_attempt_goes_on_from_the_checkpoint(queue: Queue, engine: Engine) -> None:
    id = queue.put("analyse", "1")
    first = taken(queue)
    first.progress("reading", 0.25, {"at": 12})
    first.progress("reading", 0.5)
    lapse(engine)
    second = taken(queue)
    assert (second.job.checkpoint, second.job.stage, second.job.progress) == ({"at": 12}, "reading", 0.5)
    second.done()
    assert (queue.job(id).checkpoint, queue.job(id).progress) == (None, 1.0)


def test_a_failed_job_waits_longer_each_time_and_is_parked_in_the_end(queue: Queue, engine: Engine) -> None:
    id = queue.put("analyse", "1")
    waits = []
    for attempt in range(1, MOST + 1):
        lease = taken(queue)
        assert lease.job.attempts == attempt
        lease.fail("the disk\nis full")
        job = queue.job(id)
        assert job.error == "the disk is full"
        if attempt < MOST:
            assert job.state == "queued" and queue.take(["analyse"]) is None
            with engine.connect() as connection:
                waits.append((job.run_after - connection.execute(text("SELECT now()")).scalar_one()).total_seconds())
            age(engine, "run_after")
    assert 0 < waits[0] <= 2 and 1.5 < waits[1] <= 4
    assert queue.job(id).state == "parked" and queue.take(["analyse"]) is None
    assert queue.retry(id) and taken(queue).job.attempts == 1


def test_a_hopeless_job_is_parked_at_once(queue: Queue) -> None:
    id = queue.put("analyse", "1")
    taken(queue).fail("damaged", retry=False)
    assert (queue.job(id).state, queue.job(id).attempts) == ("parked", 1)


def test_a_job_that_kills_its_workers_is_parked_with_its_last_stage(queue: Queue, engine: Engine) -> None:
    id, innocent = queue.put("analyse", "1"), queue.put("analyse", "2", priority=-1)
    for _ in range(MOST):
        taken(queue).progress("decoding", 0.3)
        lapse(engine)
    assert taken(queue).job.id == innocent
    job = queue.job(id)
    assert job.state == "parked" and f"attempt {MOST}" in job.error and "decoding" in job.error


def test_handing_back_is_no_attempt(queue: Queue) -> None:
    id = queue.put("analyse", "1")
    for _ in range(2 * MOST):
        taken(queue).hand_back()
    assert (queue.job(id).state, queue.job(id).attempts) == ("queued", 0)


def test_a_worker_notices_that_its_job_was_cancelled(queue: Queue) -> None:
    waiting, running = queue.put("analyse", "1"), queue.put("analyse", "2", priority=1)
    lease = taken(queue)
    assert queue.cancel(running) and queue.cancel(waiting)
    assert not queue.cancel(running), "it has ended"
    with pytest.raises(LeaseLost) as told:
        lease.extend()
    assert told.value.is_cancelled and lease.is_cancelled
    assert queue.take(["analyse"]) is None
    assert queue.retry(running) and taken(queue).job.id == running
    with pytest.raises(LeaseLost):
        lease.done()


def test_a_job_that_ended_begins_anew_only_when_asked(queue: Queue) -> None:
    id = queue.put("analyse", "1", {"model": "a"})
    taken(queue).done({"x": 1})
    assert queue.put("analyse", "1", {"model": "b"}) == id and queue.job(id).state == "done"
    assert queue.put("analyse", "1", {"model": "b"}, again=True) == id
    job = queue.job(id)
    assert (job.state, job.arguments, job.result, job.attempts) == ("queued", {"model": "b"}, None, 0)
    lease = taken(queue)
    assert queue.put("analyse", "1", {"model": "c"}, again=True) == id
    assert queue.job(id).arguments == {"model": "b"}, "one that runs goes on"
    lease.done()


def test_a_number_that_is_no_job_is_an_error(queue: Queue) -> None:
    for ask in (queue.cancel, queue.retry, queue.job):
        with pytest.raises(JobError, match="expected the number of a job, got 999999"):
            ask(999999)


def test_the_pulse_beats_whenever_a_job_moves_and_else_not(queue: Queue) -> None:
    pulses = [queue.pulse()]

    def beats() -> None:
        found = queue.pulse()
        assert found != pulses[-1] and found == queue.pulse()
        pulses.append(found)

    first = queue.put("analyse", "1")
    beats()
    queue.put("analyse", "2")
    beats()
    lease = taken(queue)
    beats()
    lease.progress("looking", 0.4)
    beats()
    lease.progress("looking", 0.5)
    beats()
    lease.done()
    beats()
    taken(queue).fail("not today")
    beats()
    queue.cancel(first + 1)
    beats()
    queue.retry(first + 1)
    beats()
    taken(queue).fail("never", retry=False)
    beats()


def test_watching_a_job_tells_each_step_until_its_end(queue: Queue) -> None:
    id = queue.put("analyse", "1")
    watched = queue.watch(id, every_s=0.01)
    assert next(watched).state == "queued"
    lease = taken(queue)
    assert next(watched).state == "running"
    lease.progress("looking", 0.4)
    step = next(watched)
    assert (step.stage, step.progress) == ("looking", 0.4)
    lease.done()
    assert [job.state for job in watched] == ["done"]


def test_watching_all_tells_of_jobs_that_run_and_how_they_end(queue: Queue) -> None:
    queue.put("analyse", "1")
    watched = queue.watch(every_s=0.01)
    lease = taken(queue)
    assert next(watched).state == "running"
    lease.done()
    assert next(watched).state == "done"


WORKER = """
import sys, time
from cloud.database import connect
from cloud.errors import LeaseLost
from cloud.jobs import Queue, hold
from sqlalchemy import text
engine = connect(sys.argv[1])
queue = Queue(engine, most_attempts=1000)
print("ready", flush=True)
while (lease := queue.take(["count"], lease_s=1.0)) is not None or queue.counts()["count"]["done"] < int(sys.argv[2]):
    if lease is None:
        time.sleep(0.02)
        continue
    try:
        done = int(lease.job.checkpoint or 0)
        for step in range(done, 3):
            time.sleep(0.01)
            lease.progress("counting", step / 3, step + 1)
        with engine.begin() as connection:
            hold(connection, lease.job.id, lease.word)
            connection.execute(text("INSERT INTO counted VALUES (:s) ON CONFLICT DO NOTHING"), {"s": lease.job.subject})
        lease.done()
    except LeaseLost:
        pass
"""


def test_killed_workers_forget_no_job_and_do_none_twice(queue: Queue, engine: Engine, database: str) -> None:
    count = 14
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE counted (subject text PRIMARY KEY)"))
    for number in range(count):
        queue.put("count", str(number))
    argv = [sys.executable, "-c", WORKER, database, str(count)]
    workers = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(2)]
    kills = 0
    while (done := queue.counts()["count"]["done"]) < count:
        worker = workers.pop(0)
        assert worker.stdout is not None and worker.stdout.readline() == b"ready\n"
        while queue.counts()["count"]["done"] < min(done + 3, count):  # the queue moves on, whoever is killed
            assert any(one.poll() is None for one in (worker, *workers)), "a worker died by itself"
            time.sleep(0.01)
        worker.kill()
        worker.communicate()
        kills += 1
        workers.append(subprocess.Popen(argv, stdout=subprocess.PIPE))
    for worker in workers:
        worker.kill()
        worker.communicate()
    assert queue.counts()["count"] == {**dict.fromkeys(STATES, 0), "done": count} and kills > 1
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM counted")).scalar_one() == count


class Workers(RuleBasedStateMachine):
    """Any words of workers and people in any order, beside a model of what must hold."""

    engine: Engine
    leases: list[Lease]

    @initialize()
    def begin(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(delete(JOBS))
        self.queue = Queue(self.engine, most_attempts=MOST)
        self.leases = []  # all that were ever given
        self.holder: dict[int, Lease] = {}  # who may speak for a job
        self.effects: dict[int, int] = {}  # how often each was done since it was put or retried
        self.put: set[int] = set()

    @rule(subject=st.sampled_from("abc"), again=st.booleans())
    def ask(self, subject: str, again: bool) -> None:
        before = {job.id: job.state for job in self.queue.list()}
        id = self.queue.put("analyse", subject, again=again)
        self.put.add(id)
        if again and before.get(id) in ENDED:
            self.effects[id] = 0

    @rule()
    def take(self) -> None:
        lease = self.queue.take(["analyse"])
        if lease is not None:
            assert lease.job.id not in self.holder, "a job that somebody holds was given away"
            assert lease.job.attempts <= MOST
            self.holder[lease.job.id] = lease
            self.leases.append(lease)

    @rule()
    def time_passes(self) -> None:
        age(self.engine, "run_after", "lease_until")
        self.holder.clear()  # each may still speak, as long as nobody took over

    @precondition(lambda self: getattr(self, "leases", None))
    @rule(choice=st.randoms(use_true_random=False), what=st.sampled_from(["done", "fail", "park", "back", "progress"]))
    def speak(self, choice: object, what: str) -> None:
        lease = choice.choice(self.leases)  # type: ignore[attr-defined]
        id = lease.job.id
        words = {
            "done": lambda: lease.done(),
            "fail": lambda: lease.fail("x"),
            "park": lambda: lease.fail("x", retry=False),
            "back": lambda: lease.hand_back(),
            "progress": lambda: lease.progress("x", 0.5),
        }
        with self.engine.connect() as connection:
            row = connection.execute(select(JOBS.c.lease, JOBS.c.state).where(JOBS.c.id == id)).one()
        may = row.state == "running" and row.lease == lease.word
        if self.holder.get(id) is lease:
            assert may, "who holds a lease that has not lapsed may speak"
        try:
            words[what]()
        except LeaseLost:
            assert not may
            return
        assert may, f"a worker without the lease said {what}"
        if what == "progress":
            self.holder[id] = lease  # extended
            return
        self.holder.pop(id, None)
        if what == "done":
            self.effects[id] = self.effects.get(id, 0) + 1

    @precondition(lambda self: getattr(self, "put", None))
    @rule(choice=st.randoms(use_true_random=False), again=st.booleans())
    def people(self, choice: object, again: bool) -> None:
        id = choice.choice(sorted(self.put))  # type: ignore[attr-defined]
        if again:
            self.queue.retry(id)
        elif self.queue.cancel(id):
            self.holder.pop(id, None)

    @invariant()
    def nothing_is_forgotten_or_done_twice(self) -> None:
        if not hasattr(self, "queue"):
            return
        jobs = {job.id: job for job in self.queue.list()}
        assert jobs.keys() == self.put
        assert all(times <= 1 for times in self.effects.values())
        assert all((jobs[id].state == "done") == (times == 1) for id, times in self.effects.items())

    def teardown(self) -> None:
        """Whatever happened: what is open comes to an end, given workers and time."""
        if not hasattr(self, "queue"):
            return
        for _ in range(4 * MOST):
            age(self.engine, "run_after", "lease_until")
            while (lease := self.queue.take(["analyse"])) is not None:
                lease.done()
        assert all(job.state in ENDED for job in self.queue.list())


def test_whatever_workers_and_people_say_each_job_is_done_once_and_none_is_forgotten(engine: Engine) -> None:
    Workers.engine = engine
    machine = Workers.TestCase
    machine.settings = settings(
        max_examples=20, stateful_step_count=20, database=None, suppress_health_check=list(HealthCheck)
    )
    machine().runTest()
