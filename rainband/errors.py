"""The tree of errors. Each docstring says who raises it and what to do about it.

Every error carries one clear line (`str(error)`) and, where there is one, the fix on its own (`error.fix`),
a stable machine-readable `code` and the exit code the command line ends with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SLIP = 0.7  # how alike two names are at least, as difflib counts it
SLIP_SHORT = 0.6  # one wrong letter of three


class RainbandError(Exception):
    """Root of everything rainband raises on purpose."""

    code = "error"
    exit_code = 1

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}. {self.fix}" if self.fix else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.message, self.fix))


class UsageError(RainbandError):
    """What was typed or passed cannot mean anything: correct the call."""

    code = "usage"
    exit_code = 2


class InvalidTopology(UsageError, ValueError):
    """`create_topology()`, `submit` and Nimbus: the topology cannot run. `problems` holds every reason."""

    code = "invalid_topology"

    def __init__(self, problems: Sequence[str] | str, fix: str = "") -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("; ".join(self.problems), fix)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.problems, self.fix))


class InvalidConfig(UsageError, ValueError):
    """A config key is unknown or its value has the wrong type or range: the message names key, value and range."""

    code = "invalid_config"


class UserCodeFailed(RainbandError):
    """Loading a topology: the user's own function raised. The message names file, line and error."""

    code = "user_code"


class EmitRefused(RainbandError, ValueError):
    """`emit`: wrong values, stream, moment or thread. Raised in the user's own call; nothing was sent."""

    code = "emit_refused"


class ValueRefused(EmitRefused, TypeError):
    """`emit` or the codec: a value of a type that does not travel. Convert it, or opt in to pickle for its type.

    The codec knows the `field` by its index, and says the `reason` alone beside the whole message.
    """

    code = "value_refused"

    def __init__(self, message: str, fix: str = "", field: int | None = None) -> None:
        super().__init__(message if field is None else f"field {field}: {message}", fix)
        self.reason = message
        self.field = field


class ArgumentForgotten(EmitRefused, TypeError):
    """`emit` without the `message_id` of a spout or the `anchors` of a ManualBolt: say None or () to mean none."""


class UnknownField(RainbandError, KeyError):
    """`tup["field"]`: the stream has no such field. The message lists the fields it has."""

    code = "unknown_field"

    def __str__(self) -> str:
        return RainbandError.__str__(self)


class FailTuple(RainbandError):
    """Raised by user code inside `execute` to fail the current tuple without recording an error."""

    code = "fail_tuple"

    def __init__(self, message: str = "failed by the bolt", fix: str = "") -> None:
        super().__init__(message, fix)


class Refused(RainbandError):
    """The cluster understood and said no; its state is as it was."""

    code = "refused"
    exit_code = 3


class TopologyExists(Refused):
    """`submit`: the name is in use. Kill the running topology or choose another name."""

    code = "topology_exists"


class TopologyNotFound(Refused):
    """Any command that names a topology: none of that name is known."""

    code = "topology_not_found"


class TopologyUnreadable(Refused):
    """Any command that names a topology whose stored rows are damaged. Mend them, or kill it."""

    code = "topology_unreadable"


class NotEnoughSlots(Refused):
    """Fewer free slots than the topology asks for; it stays WAITING until there are enough."""

    code = "not_enough_slots"


class VersionMismatch(Refused):
    """Interpreter or package versions differ between the two sides; the message names both."""

    code = "version_mismatch"


class NotLeader(Refused):
    """A Nimbus that does not lead was asked to change something; `leader` is the address to ask, or ''."""

    code = "not_leader"

    def __init__(self, message: str, fix: str = "", leader: str = "") -> None:
        super().__init__(message, fix)
        self.leader = leader


class SupervisorReplaced(Refused):
    """Nimbus, to a supervisor: another one has its name. Give each a state directory and an id of its own."""

    code = "supervisor_replaced"


class StateLocked(Refused):
    """Another Nimbus holds the state directory; the message names its pid and host."""

    code = "state_locked"


class ClusterUnavailable(RainbandError):
    """Nimbus, a supervisor or the state store does not answer: check the address, or start it."""

    code = "unavailable"
    exit_code = 4


class NotCopied(ClusterUnavailable):
    """A topology's code is on one Nimbus only although others are there; surely nothing was done: submit it again."""

    code = "not_copied"


class NotAllowed(RainbandError):
    """The keys or the token do not give the right that was needed."""

    code = "not_allowed"
    exit_code = 5


class NotReached(RainbandError):
    """The request was accepted, but what was waited for did not happen in time."""

    code = "not_reached"
    exit_code = 6


class WireError(RainbandError):
    """A peer sent bytes that break the protocol. The peer's fault: the frame is dropped and counted."""

    code = "wire"


class StoreError(RainbandError):
    """The state store refused or failed a write (disk full, stale epoch, unreadable file); nothing was changed."""

    code = "store"


class NotUploaded(StoreError, Refused):
    """A topology's code, or what went before a piece of it, is not at the Nimbus that leads now: upload it anew."""

    code = "not_uploaded"


def unwritable(directory: object, error: OSError) -> Refused:
    """The refusal of a state directory, the same of every daemon."""
    reason = (error.strerror or str(error)).lower()
    fix = "It must be a directory of yours, mode 0700; choose another with --state DIRECTORY"
    return Refused(f"cannot write to the state directory {directory}: {reason}", fix)


def described(error: BaseException) -> str:
    """Type and text of an error of user code, as it can travel: 'ValueError: no number'. Never raises."""
    try:
        text = sendable(str(error))
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def sendable(text: str) -> str:
    """The text with '?' for what is no Unicode (lone surrogates)."""
    return text.encode("utf-8", "replace").decode()


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """'Did you mean 'x'?' for the known name closest to `name`, '' when none is close."""
    close = closest(name, list(known)) if isinstance(name, str) else ""
    return f"Did you mean '{close}'?" if close else ""


def closest(name: str, known: Sequence[str]) -> str:
    """The known name that `name` may be a slip of; '' when none is close.

    What dotted names share up to the first dot says nothing: topology.foo is not close to topology.name.
    """
    from difflib import get_close_matches

    head, dot, tail = name.partition(".")
    family = {other.removeprefix(head + dot): other for other in known if dot and other.startswith(head + dot)}
    if not family:
        family, tail = {other: other for other in known}, name
    close = get_close_matches(tail, family, 1, SLIP_SHORT if len(tail) <= 3 else SLIP)
    lacking = [other for other in known if other.endswith("." + name)]
    return family[close[0]] if close else lacking[0] if lacking else ""
