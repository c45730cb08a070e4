"""That a model drives an agent is written into its settings once, is in force at once, never over a person's word."""

from backchannel.client import wire
from backchannel.client.drive import run
from backchannel.client.driven import drive_by_model, with_model
from backchannel.testing import World

from .helpers import collect, configure


def test_a_daemon_that_runs_learns_of_it_and_keeps_what_it_has(world: World) -> None:
    with world.agent("executor") as executor, world.agent("analyst") as analyst:
        executor.send("analyst", "use 8080")
        before = world.pid("analyst")
        caller = wire.Caller("analyst", world.paths)
        assert run(drive_by_model(caller)) == "model"
        assert (now := world.pid("analyst")) != before
        assert run(drive_by_model(caller)) == "model"
        assert world.pid("analyst") == now  # said once
        assert [d.text for d in collect(analyst, 1)] == ["use 8080"]
        caller.close()


def test_a_persons_word_stays(world: World) -> None:
    configure(world, "analyst", 'driven_by = "program"\nlease_s = 10\n')
    caller = wire.Caller("analyst", world.paths)
    assert run(drive_by_model(caller)) == "program"
    caller.close()


def test_other_settings_stay_as_they_are() -> None:
    assert with_model(None) == 'driven_by = "model"\n'
    assert with_model("lease_s = 10\n") == 'driven_by = "model"\nlease_s = 10\n'
    assert with_model(" driven_by='program'\n") == " driven_by='program'\n"
