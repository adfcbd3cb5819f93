"""What can go wrong with a lab, by who can fix it: the host's owner, or whoever reads what a lab's process said."""

from __future__ import annotations


class HostCannot(Exception):
    """This host does not let a lab be built: `reason` says why, `fix` what its owner can do about it."""

    def __init__(self, reason: str, fix: str) -> None:
        self.reason = reason
        self.fix = fix
        super().__init__(f"{reason}. Fix: {fix}")


class LabFailed(Exception):
    """Something inside a lab ended in an error; `trace` is its traceback, where there is one."""

    def __init__(self, message: str, trace: str = "") -> None:
        self.trace = trace
        super().__init__(message)


class LabBuildError(LabFailed):
    """The kernel refused a part of the plan."""


class NoSuchLab(Exception):
    """No running lab, or no node of it, has the name that was asked for."""
