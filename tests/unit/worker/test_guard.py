"""Emits from threads of user code are refused where there are such threads, and nothing changes where not."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from rainband.errors import EmitRefused
from rainband.topology.components import Bolt
from rainband.worker.guard import Guard
from rainband.worker.wiring import LocalTask


def local_task() -> LocalTask:
    bolt = Bolt()
    cast(Any, bolt).emit = lambda values, *, stream="default": (len(values),)
    return LocalTask(1, "bolt", bolt, cast(Any, None))


def elsewhere(task: LocalTask) -> BaseException | None:
    """What an emit in another thread raises."""
    errors: list[BaseException] = []

    def emit() -> None:
        try:
            task.instance.emit([1])
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=emit)
    thread.start()
    thread.join()
    return errors[0] if errors else None


def test_only_with_a_thread_of_user_code_there_is_something_to_guard() -> None:
    stop = threading.Event()
    lane, users = (threading.Thread(target=stop.wait) for _ in range(2))
    task = local_task()
    before = task.instance.emit
    guard = Guard(lambda: [lane])
    lane.start()
    guard.look([task])
    assert task.instance.emit is before
    users.start()
    guard.look([task])
    guarded = task.instance.emit
    assert guarded is not before
    assert task.instance.emit([1, 2], stream="other") == (2,)
    assert isinstance(elsewhere(task), EmitRefused)
    guard.look([task])
    assert task.instance.emit is guarded
    stop.set()
    for thread in (lane, users):
        thread.join()


def test_a_lane_is_left_alone() -> None:
    class Blocking(Bolt):
        blocking = True

    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    task = LocalTask(1, "bolt", Blocking(), cast(Any, None))
    guard = Guard(list)
    thread.start()
    guard.look([task])
    assert "emit" not in vars(task.instance)
    stop.set()
    thread.join()
    with pytest.raises(EmitRefused):
        task.instance.emit([1])
