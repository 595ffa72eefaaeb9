"""What is said when an address cannot be listened on."""

from __future__ import annotations

import errno
import socket

import pytest

from rainband.errors import Refused
from rainband.messaging.sockets import cannot_listen, libzmq


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EADDRINUSE, "port 80 on 127.0.0.1 is in use. Stop the process"),
        (errno.EACCES, "no permission to listen on port 80 of 127.0.0.1. Choose a port of 1024 or more"),
        (errno.EADDRNOTAVAIL, "cannot listen on 127.0.0.1:80: Cannot assign requested address. Choose another"),
        (socket.EAI_NONAME, "'127.0.0.1' is not an address of this machine. Use 127.0.0.1"),
    ],
)
def test_a_port_that_cannot_be_had_comes_with_the_reason(number: int, said: str) -> None:
    error = cannot_listen("127.0.0.1", 80, number)
    assert str(error).startswith(said)
    assert error.exit_code == 3


def test_a_libzmq_with_known_holes_is_refused() -> None:
    assert libzmq((4, 3, 5)) == "4.3.5"
    assert libzmq((4, 10, 0)) == "4.10.0"
    with pytest.raises(Refused, match=r"libzmq 4\.3\.4 is too old, 4\.3\.5 is needed\. Run: pip install"):
        libzmq((4, 3, 4))
