import threading

import pytest

from lib_dsm.errors import BusyError
from lib_dsm.host.create import create_network
from lib_dsm.host.run import examine_run, train
from lib_dsm.host.turn import Turns
from lib_dsm.jobs import Job

SOON = 60  # seconds


@pytest.mark.parametrize("act", ["check", "create"])
def test_a_training_waits_for_a_check_and_for_a_creation(studio, run_config, monkeypatch, act):
    from lib_dsm.guards import check as guards
    from lib_dsm.host import create

    inside, go_on = threading.Event(), threading.Event()

    def hold(module, name):
        own = getattr(module, name)

        def held(*args):
            inside.set()
            assert go_on.wait(SOON)
            return own(*args)

        monkeypatch.setattr(module, name, held)

    hold(*((guards, "passed") if act == "check" else (create, "_findings")))
    config = run_config(name="zorgbrief", output="")
    brief = threading.Thread(
        target=(lambda: examine_run(studio, config))
        if act == "check"
        else lambda: create_network(studio, config, Job(""))
    )
    brief.start()
    assert inside.wait(SOON)
    job = studio.jobs.start("train", lambda job: train(studio, run_config(max_steps=1, save_every=0), job))
    assert not job.wait(0.5)
    go_on.set()
    assert job.wait(SOON) and job.state == "done", job.error
    brief.join(SOON)


def test_whoever_waited_is_refused_where_a_training_came_first():
    turns, refused = Turns(), threading.Event()
    with turns.taken(brief=True):
        waits, ends = threading.Event(), threading.Event()

        def training():
            waits.set()
            with turns.taken(brief=False):
                assert ends.wait(SOON)

        def other():
            with turns.taken(brief=True):
                pass

        first = threading.Thread(target=training)
        first.start()
        assert waits.wait(SOON)
    # The turn is free now, and the training has it or is about to.
    try:
        while True:
            try:
                other()
            except BusyError:
                refused.set()
                break
    finally:
        ends.set()
        first.join(SOON)
    assert refused.is_set()
    other()  # and it is free again


def test_a_turn_that_ends_in_an_error_is_over():
    turns = Turns()
    with pytest.raises(ValueError), turns.taken(brief=False):
        raise ValueError
    with turns.taken(brief=False), pytest.raises(BusyError), turns.taken(brief=True):
        pass
