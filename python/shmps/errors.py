"""Every error of the bus. `code`, `name` and the text are those of libshmps (shmps/error.h)."""

from __future__ import annotations


class Error(Exception):
    """A call failed; nothing was done. str() tells what was tried, what stood in the way, and what
    to do.

    code    its number: enum shmps_error or enum shmps_outcome
    name    "SHMPS_E_NO_SPACE"
    remedy  what to do about errors of this kind
    """

    code = 0
    name = "SHMPS_OK"
    remedy = ""


class Timeout(Error, TimeoutError):
    """The time is over, and what was waited for has not come."""

    code = 4
    name = "SHMPS_TIMEOUT"
    remedy = "wait longer, or look with `shmps info TOPIC` whether anybody publishes"


class Full(Timeout):
    """A reliable subscriber has made no room for another message within the time."""

    code = 2
    name = "SHMPS_FULL"
    remedy = "wait longer, or look with `shmps info TOPIC` who lags"


class InvalidError(Error, ValueError):
    code = -1
    name = "SHMPS_E_INVALID"
    remedy = "correct the argument"


class TopicError(Error, ValueError):
    code = -2
    name = "SHMPS_E_TOPIC"
    remedy = "levels between '/' may not be empty; '+' and '#' are for filters, as whole levels"


class SizeError(Error, ValueError):
    code = -3
    name = "SHMPS_E_SIZE"
    remedy = "open the publisher with a larger message_bytes, or with none, so that it may grow"


class NoMemoryError(Error, MemoryError):
    code = -4
    name = "SHMPS_E_NO_MEMORY"
    remedy = "let go of messages that are held, or raise the limits of the process"


class NoSpaceError(Error, OSError):
    code = -5
    name = "SHMPS_E_NO_SPACE"
    remedy = "`shmps top` tells what fills /dev/shm; `shmps gc` removes what nobody uses"


class NoDescriptorsError(Error, OSError):
    code = -6
    name = "SHMPS_E_NO_DESCRIPTORS"
    remedy = "raise the limit of open files (ulimit -n), or close subscribers"


class LimitError(Error, RuntimeError):
    code = -7
    name = "SHMPS_E_LIMIT"
    remedy = "raise the limit in pubsubd.conf, or close what is not needed"


class NoDaemonError(Error, ConnectionError):
    code = -8
    name = "SHMPS_E_NO_DAEMON"
    remedy = "start pubsubd; `shmps doctor` tells why none runs"


class NoTopicError(Error, LookupError):
    code = -9
    name = "SHMPS_E_NO_TOPIC"
    remedy = "`shmps ls` lists the topics that there are"


class NotPermittedError(Error, PermissionError):
    code = -10
    name = "SHMPS_E_PERMISSION"
    remedy = "run as the user whose bus it is, or start one of your own"


class VersionError(Error, RuntimeError):
    code = -11
    name = "SHMPS_E_VERSION"
    remedy = "use the library and the pubsubd of one release; `shmps stop` ends the other one"


class ProtocolError(Error, ConnectionError):
    code = -12
    name = "SHMPS_E_PROTOCOL"
    remedy = "what answers at the socket is no pubsubd of ours: choose another instance"


class ForkedError(Error, RuntimeError):
    code = -13
    name = "SHMPS_E_FORKED"
    remedy = "connect and open anew in the child"


class BusyError(Error, RuntimeError):
    code = -14
    name = "SHMPS_E_BUSY"
    remedy = "end the one that runs, or choose another name"


class CorruptError(Error, RuntimeError):
    code = -15
    name = "SHMPS_E_CORRUPT"
    remedy = "end the process that has damaged it: `shmps info TOPIC` tells which publishes"


class StateError(Error, RuntimeError):
    code = -16
    name = "SHMPS_E_STATE"
    remedy = "end first what is under way"


class UnsupportedError(Error, NotImplementedError):
    code = -17
    name = "SHMPS_E_UNSUPPORTED"
    remedy = "use a newer kernel, or another build"


class ClosedError(Error, ConnectionError):
    """This object is closed, or the bus was made anew while it was open."""

    code = -18
    name = "SHMPS_E_CLOSED"
    remedy = "open a new one"


class SystemCallError(Error, OSError):
    code = -19
    name = "SHMPS_E_SYSTEM"
    remedy = "`shmps doctor` looks for what is wrong with this machine"


BY_CODE: dict[int, type[Error]] = {
    kind.code: kind
    for kind in (
        Timeout,
        Full,
        InvalidError,
        TopicError,
        SizeError,
        NoMemoryError,
        NoSpaceError,
        NoDescriptorsError,
        LimitError,
        NoDaemonError,
        NoTopicError,
        NotPermittedError,
        VersionError,
        ProtocolError,
        ForkedError,
        BusyError,
        CorruptError,
        StateError,
        UnsupportedError,
        ClosedError,
        SystemCallError,
    )
}
