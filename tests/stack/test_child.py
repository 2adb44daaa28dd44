"""What the supervisor does with a part that dies, fails or hangs; parts are small Python programs here."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from infra.settings import Settings
from infra.stack import child as child_module
from infra.stack import launch, probes, process
from infra.stack.child import Child
from infra.stack.errors import NotReady, StackError
from infra.stack.parts import SERVERS, Part
from infra.stack.state import RunFolder

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


def ready(settings: Settings) -> None:
    """A probe that always holds."""


def not_ready(settings: Settings) -> None:
    raise NotReady("it is asleep")


PART = Part("sleeper", SERVERS, port=lambda s: 1, ports=lambda s: [], command=lambda s: SLEEPER, probe=ready, stop_s=1)


class Stage:
    """A child and the clock it lives by."""

    def __init__(self, home: Path, pool: ThreadPoolExecutor) -> None:
        self.home, self.pool, self.now = home, pool, 1000.0
        self.children: list[Child] = []

    def child(self, part: Part) -> Child:
        self.children.append(Child(part, Settings(home=self.home), RunFolder(self.home), self.pool, self.now))
        return self.children[-1]

    def until(self, child: Child, check: Callable[[], bool], tick_s: float = 0.05) -> None:
        for _ in range(600):
            if check():
                return
            child.step(self.now, os.environ)
            self.now += tick_s
            time.sleep(0.01)
        raise AssertionError(f"stays {child.shown}")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ThreadPoolExecutor(2) as pool:
        made = Stage(tmp_path, pool)
        yield made
        process.end({c.identity: 0.0 for c in made.children if c.identity})
        for c in made.children:
            if c.process is not None:
                c.process.wait()


def test_it_prepares_starts_answers_finishes_and_is_ready(stage: Stage) -> None:
    order: list[str] = []
    part = replace(
        PART,
        prepare=lambda s: order.append("prepare"),
        probe=lambda s: order.append("probe"),
        finish=lambda s: order.append("finish"),
    )
    child = stage.child(part)
    stage.until(child, lambda: child.shown.health == "ready")
    assert order == ["prepare", "probe", "finish"]
    assert child.identity == process.read_pid_file(RunFolder(stage.home).pid_file("sleeper"))
    assert child.identity is not None
    assert os.getpgid(child.identity.pid) == child.identity.pid


def test_a_dead_child_is_started_again_after_a_growing_delay(stage: Stage) -> None:
    child = stage.child(PART)
    delays = []
    for deaths in range(1, 4):
        stage.until(child, lambda: child.shown.health == "ready")
        assert child.process is not None
        child.process.send_signal(signal.SIGKILL)
        child.process.wait()
        stage.until(child, lambda: child.shown.health == "restarting")
        died = stage.now
        assert (child.shown.pid, child.shown.restarts) == (None, deaths)
        assert child.shown.why == "ended with signal 9"
        stage.until(child, lambda: child.process is not None)
        delays.append(stage.now - died)
    assert [d >= b for d, b in zip(delays, child_module.BACK_OFF_S, strict=False)] == [True] * 3
    assert delays == sorted(delays)


def test_one_that_dies_at_its_very_first_start_ends_the_start_with_its_last_words(stage: Stage) -> None:
    dying = [sys.executable, "-c", "import sys; print('no such option'); sys.exit(3)"]
    child = stage.child(replace(PART, command=lambda s: dying, probe=not_ready))
    with pytest.raises(StackError, match=r"sleeper ends with status 3 at its start: no such option"):
        stage.until(child, lambda: False)


def test_one_that_never_answers_ends_the_start(stage: Stage) -> None:
    child = stage.child(replace(PART, probe=not_ready))
    with pytest.raises(StackError, match=r"does not answer after 180 s \(it is asleep\)"):
        stage.until(child, lambda: False, tick_s=1.0)


def test_once_ready_an_unforeseen_error_is_shown_and_ends_nothing(stage: Stage) -> None:
    faults: list[Exception] = []

    def probe(settings: Settings) -> None:
        if faults:
            raise faults[0]

    child = stage.child(replace(PART, probe=probe))
    stage.until(child, lambda: child.shown.health == "ready")
    faults.append(KeyError("surprise"))
    stage.until(child, lambda: child.shown.health == "failing", tick_s=1.0)
    assert child.shown.why == "KeyError"
    faults.clear()
    stage.until(child, lambda: child.shown.health == "ready")


def test_one_of_ours_that_hangs_is_ended_and_started_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"ready": True, "live": True}

    def probe(settings: Settings) -> None:
        if not answers["ready"]:
            raise NotReady("waits for kafka")

    monkeypatch.setattr(probes, "live", lambda host, port: answers["live"])
    child = stage.child(replace(PART, probe=probe, health_port=lambda s: 1))
    stage.until(child, lambda: child.shown.health == "ready")
    first = child.shown.pid
    answers["ready"] = False
    stage.until(child, lambda: child.shown.health == "failing", tick_s=1.0)
    before = stage.now
    stage.until(child, lambda: stage.now - before > 3 * child_module.HANG_S, tick_s=1.0)
    assert child.shown.pid == first  # not ready, but live: it waits for somebody else
    answers["live"] = False
    stage.until(child, lambda: child.shown.pid is None, tick_s=1.0)
    answers.update(ready=True, live=True)
    stage.until(child, lambda: child.shown.health == "ready", tick_s=1.0)
    assert child.shown.pid != first


def test_a_part_gets_the_slack_and_niceness_it_wants_and_the_variables_go_no_further(stage: Stage) -> None:
    said = stage.home / "said"
    program = "import json, os, pathlib, time\n"
    program += "group = pathlib.Path('/proc/self/autogroup')\n"
    program += "found = [pathlib.Path('/proc/self/timerslack_ns').read_text().strip(), os.nice(0),\n"
    program += "    group.read_text().split()[-1] if group.exists() else '7', dict(os.environ)]\n"
    program += f"pathlib.Path({str(said)!r}).write_text(json.dumps(found))\n"
    program += "time.sleep(60)"
    part = replace(
        PART,
        command=lambda s: [sys.executable, "-c", program],
        environment={launch.TIMER_SLACK: "700000", launch.NICE: "7", "KEPT": "1"},
    )
    before = os.nice(0)
    stage.until(stage.child(part), lambda: said.exists() and said.read_text().endswith("]"))
    slack, nice, session, environment = json.loads(said.read_text())
    assert (slack, nice, session) == ("700000", min(19, before + 7), "7")
    assert environment["KEPT"] == "1"
    assert not {launch.TIMER_SLACK, launch.NICE} & environment.keys()
