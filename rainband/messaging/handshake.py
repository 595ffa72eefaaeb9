"""Why a Nimbus that listens does not let us in: looked into only after connecting has failed.

ZeroMQ tries for ever and says nothing. But each side greets with the name of its mechanism, in the clear, and whoever
shows another key than the one that is wanted is dropped before the handshake is over.
"""

from __future__ import annotations

import socket as posix

import zmq
from zmq.utils.monitor import recv_monitor_message

from rainband.errors import NotAllowed
from rainband.messaging.keys import Keys
from rainband.messaging.sockets import Context, endpoint, make, poll_ms, split_address

LOOK_S = 0.5
GREETING = b"\xff" + bytes(8) + b"\x7f\x03"  # signature and major version of ZMTP 3: the other side then names the rest
MECHANISM = slice(12, 32)
FAILED = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH


def refusal(context: Context, address: str, keys: Keys | None) -> NotAllowed | None:
    """What is wrong with `keys` towards whoever listens at `address`; None when it is not the keys."""
    mechanism = mechanism_at(address)
    if mechanism == "CURVE" and keys is None:
        fix = "Let keys.dir name the directory of the cluster's key: RAINBAND_KEYS_DIR, or -c keys.dir=DIRECTORY"
        return NotAllowed(f"the Nimbus at {address} wants a key, and there is none", fix)
    if mechanism == "NULL" and keys is not None:
        fix = "Leave keys.dir out, or start Nimbus with it"
        return NotAllowed(f"the Nimbus at {address} has no key, and here is one", fix)
    if mechanism == "CURVE" and keys is not None and breaks_off(context, address, keys):
        return NotAllowed(f"the Nimbus at {address} has another key", "Let keys.dir name the directory of its key")
    return None


def mechanism_at(address: str) -> str:
    """"NULL", "CURVE" ... of the ZeroMQ socket that listens there, '' when there is none."""
    greeting = b""
    try:
        with posix.create_connection(split_address(address), timeout=LOOK_S) as connection:
            connection.settimeout(LOOK_S)
            connection.sendall(GREETING)
            while len(greeting) < MECHANISM.stop and (more := connection.recv(64)):
                greeting += more
    except OSError:
        return ""
    if greeting[:1] != GREETING[:1] or greeting[9:11] != GREETING[9:11]:
        return ""
    return greeting[MECHANISM].rstrip(b"\0").decode("ascii", "replace")


def breaks_off(context: Context, address: str, keys: Keys) -> bool:
    """Whether the other side ends the handshake."""
    socket = make(context, zmq.DEALER, keys, server=False, high_water=1, bytes_max=1)
    with socket, socket.get_monitor_socket(FAILED | zmq.EVENT_HANDSHAKE_SUCCEEDED) as monitor:
        socket.connect(endpoint(*split_address(address)))
        failed = bool(monitor.poll(poll_ms(LOOK_S)) and recv_monitor_message(monitor)["event"] & FAILED)
        socket.disable_monitor()
    return failed
