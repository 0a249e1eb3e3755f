"""What an operator is told when a verb does not do it: one line, the mend, and a fixed exit code.

OperatorError
├── FaultFound       1   a check found a fault
├── Misused          2   an argument or a setting is wrong, or the prompt was refused
│   └── Misconfigured
├── GateFailed      10   a gate says no; nothing changed
├── Held            11   evidence, approval or bake is still missing; nothing changed
├── EndedByRollback 12   the run went back by itself
├── Conflict        13   somebody else changed the rollout meanwhile; nothing changed
├── NotConverged    14   a live instance does not follow
├── Stopped         15   paused, frozen or rolled back: a human must resume
├── Unreachable     16   the database did not answer; nothing was written
└── Unknown         17   a write was sent and no answer came
"""

from typing import ClassVar


class OperatorError(Exception):
    """Root of the errors that end a verb. `hint` says what to do next; empty if nothing helps."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class FaultFound(OperatorError):
    """A check found a fault."""

    code = "fault_found"
    exit_code = 1


class Misused(OperatorError):
    """An argument is wrong, or a prompt was refused."""

    code = "usage"
    exit_code = 2


class Misconfigured(Misused):
    """Settings, schema or plan file are wrong."""

    code = "configuration"


class GateFailed(OperatorError):
    """A gate says no."""

    code = "gate_failed"
    exit_code = 10


class Held(OperatorError):
    """Evidence, approval or bake time is still missing."""

    code = "held"
    exit_code = 11


class EndedByRollback(OperatorError):
    """The run ended by going back."""

    code = "rolled_back"
    exit_code = 12


class Conflict(OperatorError):
    """The rollout document moved on meanwhile."""

    code = "revision_conflict"
    exit_code = 13


class NotConverged(OperatorError):
    """A live instance did not ack in time, or too few are alive."""

    code = "not_converged"
    exit_code = 14


class Stopped(OperatorError):
    """Nothing may advance now."""

    code = "stopped"
    exit_code = 15


class Unreachable(OperatorError):
    """The database did not answer; nothing was written."""

    code = "store_unreachable"
    exit_code = 16


class Unknown(OperatorError):
    """A write was sent and its answer never came."""

    code = "outcome_unknown"
    exit_code = 17
