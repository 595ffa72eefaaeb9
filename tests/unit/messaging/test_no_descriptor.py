"""Without a free file descriptor nothing new is connected to, what is there goes on, and nobody is surprised."""

from __future__ import annotations

import contextlib
import threading

import pytest

from kit.descriptors import without_descriptors
from rainband.errors import Refused
from rainband.messaging.keys import Keys
from rainband.messaging.network import ZmqNetwork

NOBODY = "127.0.0.1:9"


def test_what_is_sent_to_somebody_new_is_not_taken() -> None:
    with contextlib.closing(ZmqNetwork("127.0.0.1", 0)) as one, contextlib.closing(ZmqNetwork("127.0.0.1", 0)) as two:
        while not one.send(two.address, b"before"):
            one.wait(0.01)
        with without_descriptors():
            taken = one.send(NOBODY, b"x")
            again = one.send(two.address, b"meanwhile")
        assert (taken, again) == (False, True)
        found: list[bytes] = []
        while len(found) < 2:
            two.wait(0.1)
            found += two.receive()
        assert found == [b"before", b"meanwhile"]
        assert not one.send(NOBODY, b"x")
        assert NOBODY in one._out


@pytest.mark.parametrize("keys", [None, Keys.generate()], ids=["open", "keyed"])
def test_nobody_can_listen_and_nothing_of_the_try_stays(keys: Keys | None) -> None:
    threads = threading.active_count()
    for _ in range(3):
        with without_descriptors(), pytest.raises(Refused) as refused:
            ZmqNetwork("127.0.0.1", 0, keys)
        assert "cannot listen on 127.0.0.1:0: Too many open files" in str(refused.value)
    assert threading.active_count() == threads
    ZmqNetwork("127.0.0.1", 0, keys).close()
