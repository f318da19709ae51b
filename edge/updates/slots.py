"""The three slots, and what the loop and the update agent say to each other; each writes its own record alone.

    slots       by the agent: what is active, previous (warm) and staged, and how far the staged one may go
    kept        by the agent: the same, written first, for the day when both copies of `slots` are gone
    answer      by the loop's process: what runs, and whether it was put back
    bundles/ID  files of the bundles
    parts/HEX   files that are on their way

The loop reads `slots`, does what it says between two frames, and answers. It puts the previous bundle back by itself
when the active one fails, at once and without the agent; the agent then writes down what is.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from edge.errors import UpdateError
from edge.updates.disk import Disk
from edge.updates.record import Record
from roadfuse.v1.updates_pb2 import Stage

SLOTS: Final = "slots"
KEPT: Final = "kept"
ANSWER: Final = "answer"
BUNDLES: Final = "bundles"
PARTS: Final = "parts"
# Bundles that were refused here and are not taken again; the oldest are forgotten.
MOST_REFUSED: Final = 64
_MOST_WHY: Final = 300
_MOST_JSON: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Held:
    """A bundle on board.

    Attributes:
        bundle: its id; "" is the reference bundle that comes with roadfuse.
        counter: of the release that brought it; 0 for the one that came with the vehicle.
        rollout: that brought it; "" where none did.
    """

    bundle: str = ""
    counter: int = 0
    rollout: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A bundle that is not taken again.

    Attributes:
        may_come_back: a stop, or an operator, refused it, not its own failure.
    """

    bundle: str
    counter: int
    why: str
    may_come_back: bool = False

    @property
    def until(self) -> int:
        """Releases of the bundle with a counter up to this are refused; 0: all of them."""
        return self.counter if self.may_come_back else 0


@dataclass(frozen=True, slots=True)
class Slots:
    """What the agent wants and knows; written whole, durably.

    Attributes:
        epoch: counts every change; the loop's answer names the one that it follows.
        active: runs.
        previous: is kept open by the loop, to be put back within one frame; None where there is none.
        staged: is fetched, tried, shadowed or about to take over; None where no update is under way.
        stage: of `staged` up to ARMED, of `active` from PROBATION on.
        since_ns: UTC of the stage's begin by this vehicle's clock; metadata.
        why: of the last exit.
        refused: youngest last.
        highest_counter: that was ever accepted; nothing below it is.
        account: names the evidence, hexadecimal; another one begins anew.
        stop_number: of the director's last word; a broker's notice with a lower one is void.
        stopped: bundles that it names, and notices since: nobody may run or begin to run them.
        tries: how often this stage's work was begun: what never survives it is refused at last.
    """

    epoch: int = 0
    active: Held = field(default_factory=Held)
    previous: Held | None = None
    staged: Held | None = None
    stage: int = Stage.STAGE_IDLE
    since_ns: int = 0
    why: str = ""
    refused: tuple[Refusal, ...] = ()
    highest_counter: int = 0
    account: str = ""
    stop_number: int = 0
    stopped: tuple[str, ...] = ()
    tries: int = 0

    @property
    def account_bytes(self) -> bytes:
        """The account as evidence names it."""
        return bytes.fromhex(self.account)

    @property
    def refusal(self) -> Refusal | None:
        """That `why` speaks of; None where it speaks of none."""
        return self.refused[-1] if self.refused and self.stage == Stage.STAGE_REFUSED else None

    def refusing(self, refusal: Refusal) -> Slots:
        """With one more refused bundle."""
        others = tuple(one for one in self.refused if one.bundle != refusal.bundle)
        refusal = replace(refusal, why=refusal.why[:_MOST_WHY])
        return replace(self, refused=(*others, refusal)[-MOST_REFUSED:])

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @staticmethod
    def of(content: bytes) -> Slots:
        """From JSON.

        Raises:
            UpdateError: it is none of ours.
        """
        try:
            values = _object(content)
            return Slots(
                epoch=_count(values["epoch"]),
                active=_held(values["active"]),
                previous=None if values["previous"] is None else _held(values["previous"]),
                staged=None if values["staged"] is None else _held(values["staged"]),
                stage=_stage(values["stage"]),
                since_ns=_count(values["since_ns"]),
                why=str(values["why"]),
                refused=tuple(
                    Refusal(str(one["bundle"]), _count(one["counter"]), str(one["why"]), bool(one["may_come_back"]))
                    for one in values["refused"]
                ),
                highest_counter=_count(values["highest_counter"]),
                account=bytes.fromhex(values["account"]).hex(),
                stop_number=_count(values.get("stop_number", 0)),
                stopped=tuple(map(str, values.get("stopped", ()))),
                tries=_count(values.get("tries", 0)),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UpdateError(f"slots: expected what the agent wrote, got {str(error)[:100]}") from None


@dataclass(frozen=True, slots=True)
class PutBack:
    """The loop put the previous bundle back.

    Attributes:
        bundle: that failed.
        why: how.
        frame: index of the first decision of the other one.
    """

    bundle: str
    why: str
    frame: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What the loop does; written whole, durably where `running` or `put_back` changed, else a few times a minute.

    Attributes:
        epoch: of the slots that it follows.
        running: bundle id; "" is the reference bundle.
        shadow: bundle id that decides in the shadow; None where none does.
        at_ns: UTC by this vehicle's clock; metadata.
        put_back: since the epoch began; None where nothing was.
        trouble: why what the slots say can't be done, such as a bundle that does not load; "" where it is done.
        starts: how often a process began to load the active bundle in this epoch without living for its probation.
        evidence: serialised roadfuse.v1.Evidence, hexadecimal, one for each bundle and role.
    """

    epoch: int = 0
    running: str = ""
    shadow: str | None = None
    at_ns: int = 0
    put_back: PutBack | None = None
    trouble: str = ""
    starts: int = 0
    evidence: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @staticmethod
    def of(content: bytes) -> Answer:
        """From JSON.

        Raises:
            UpdateError: it is none of ours.
        """
        try:
            values = _object(content)
            back = values["put_back"]
            return Answer(
                epoch=_count(values["epoch"]),
                running=str(values["running"]),
                shadow=None if values["shadow"] is None else str(values["shadow"]),
                at_ns=_count(values["at_ns"]),
                put_back=None
                if back is None
                else PutBack(str(back["bundle"]), str(back["why"]), _count(back["frame"])),
                trouble=str(values["trouble"]),
                starts=_count(values["starts"]),
                evidence=tuple(bytes.fromhex(one).hex() for one in values["evidence"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UpdateError(f"answer: expected what the loop wrote, got {str(error)[:100]}") from None


def slots_record(disk: Disk) -> Record:
    """Where the agent keeps the slots."""
    return Record(disk, SLOTS)


def kept_record(disk: Disk) -> Record:
    """Where the agent keeps them once more."""
    return Record(disk, KEPT)


def read_slots(disk: Disk) -> Slots | None:
    """The slots; from where they are kept once more if they are lost, or an older copy alone can be read; None where
    there are none to be read.

    Raises:
        OSError: the disk can't be read, neither here nor there.
    """
    found: list[Slots] = []
    failure: OSError | None = None
    for record in (slots_record(disk), kept_record(disk)):
        try:
            content = record.read()
            if content is not None:
                found.append(Slots.of(content))
        except UpdateError:
            continue
        except OSError as error:
            failure = error
        if found and not record.unread:
            break
    if failure is not None and not found:
        raise failure
    return max(found, key=lambda slots: slots.epoch, default=None)


def read_answer(disk: Disk) -> Answer | None:
    """What the loop last said; None where there is nothing to be read.

    Raises:
        OSError: the disk can't be read.
    """
    try:
        content = answer_record(disk).read()
        return None if content is None else Answer.of(content)
    except UpdateError:
        return None


def answer_record(disk: Disk) -> Record:
    """Where the loop's process answers."""
    return Record(disk, ANSWER)


def running(slots: Slots, answer: Answer | None) -> str:
    """Id of the bundle that runs: by the loop's word where it follows these slots, else what should run."""
    return answer.running if answer is not None and answer.epoch == slots.epoch else slots.active.bundle


def stage_name(stage: int) -> str:
    """A roadfuse.v1.Stage in a word, such as self_tested."""
    return Stage.Name(stage).removeprefix("STAGE_").lower()


def folder_of(bundle: str) -> str:
    """Of a bundle's files, as the disk names it."""
    return f"{BUNDLES}/{bundle}"


def _object(content: bytes) -> dict[str, Any]:
    if len(content) > _MOST_JSON:
        raise ValueError(f"expected at most {_MOST_JSON} bytes, got {len(content)}")
    values = json.loads(content)
    if not isinstance(values, dict):
        raise TypeError(f"expected an object, got {type(values).__name__}")
    return values


def _held(value: Any) -> Held:
    return Held(str(value["bundle"]), _count(value["counter"]), str(value["rollout"]))


def _stage(value: Any) -> int:
    Stage.Name(value)  # raises where there is none
    return int(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"expected a whole number of at least 0, got {str(value)[:40]}")
    return value
