"""Who signs what in the two repositories, with how many keys, and for how long."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Final, NamedTuple

from cloud.errors import ReleaseError
from cloud.releases.keys import DIRECTOR, IMAGE

ROOT: Final = "root"
TARGETS: Final = "targets"
SNAPSHOT: Final = "snapshot"
TIMESTAMP: Final = "timestamp"
# The hash bins share one key; "bins" names it, bin-0 .. bin-f are their files.
BINS: Final = "bins"
BIN_PREFIX: Final = "bin"
BIN_BITS: Final = 4


@dataclass(frozen=True, slots=True)
class Rule:
    """A role of a repository.

    Attributes:
        keys: how many there are.
        threshold: how many of them must sign.
        is_online: the cloud itself holds the keys.
        days: for which a signature counts. A vehicle measures them by the director's word of the time.
        warn_days: before the end, from which on somebody must be told.
    """

    repository: str
    role: str
    keys: int
    threshold: int
    is_online: bool
    days: int
    warn_days: int

    @property
    def name(self) -> str:
        """As people say it."""
        return f"{self.repository} {self.role}"

    def expires(self, now: datetime.datetime) -> datetime.datetime:
        """Of what is signed now; TUF counts whole seconds."""
        return (now + datetime.timedelta(days=self.days)).replace(microsecond=0)


# Two of three root keys: one may be lost, and one may be stolen. Two of two for bins: nobody releases alone; and for
# targets, which say whose keys the bins' are.
# The director's three online roles are signed anew for each vehicle and call.
_RULES: Final = (
    Rule(IMAGE, ROOT, 3, 2, False, 730, 60),
    Rule(IMAGE, TARGETS, 2, 2, False, 365, 30),
    Rule(IMAGE, BINS, 2, 2, False, 365, 30),
    Rule(IMAGE, SNAPSHOT, 1, 1, False, 180, 30),
    Rule(IMAGE, TIMESTAMP, 1, 1, True, 14, 3),
    Rule(DIRECTOR, ROOT, 3, 2, False, 730, 60),
    Rule(DIRECTOR, TARGETS, 1, 1, True, 1, 0),
    Rule(DIRECTOR, SNAPSHOT, 1, 1, True, 1, 0),
    Rule(DIRECTOR, TIMESTAMP, 1, 1, True, 1, 0),
)
RULES: Final = {(rule.repository, rule.role): rule for rule in _RULES}


def rule_of(repository: str, role: str) -> Rule:
    """The rule of a role.

    Raises:
        ReleaseError: there is no such role.
    """
    rule = RULES.get((repository, role))
    if rule is None:
        known = ", ".join(one.name for one in _RULES)
        raise ReleaseError(f"expected one of {known}, got {repository} {role}")
    return rule


class Name(NamedTuple):
    """What a file of metadata is called."""

    repository: str
    role: str

    def __str__(self) -> str:
        return f"{self.repository} {self.role}"

    @property
    def rule(self) -> Rule:
        """The rule that it is signed by; one for all bins.

        Raises:
            ReleaseError: there is no such role.
        """
        is_bin = self.repository == IMAGE and self.role.startswith(f"{BIN_PREFIX}-")
        return rule_of(self.repository, BINS if is_bin else self.role)
