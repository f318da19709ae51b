"""Filters in a typed text, each of a form of its own: fields, labels, places and times.

vehicle:car-1,car-2   media:here   sound:siren   light:night>=0.8   hardness>0.7   duration_s<=10   near:48.1,11.5,500
last 24 h   since 2026-11-01   before 2026-11-02T12:00   today   yesterday      and in German, Spanish and French
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeAlias

from cloud.errors import QueryError
from cloud.labels import LABELS
from cloud.search.predicate import NUMBERS, SURE, TEXTS, Between, Has, Near, Predicate, among
from cloud.search.words import plain

Read: TypeAlias = Callable[[list[str], float], Predicate]
_KINDS: Final = "|".join(sorted({label.partition(":")[0] for label in LABELS} | {"tag"}))
_NUMBER: Final = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_DATE: Final = r"(\d{4}-\d{2}-\d{2}(?:[t ]\d{2}:\d{2}(?::\d{2})?z?)?)"
_UNITS: Final = {
    "s": 1, "sec": 1, "second": 1, "sekunde": 1, "segundo": 1, "seconde": 1,
    "min": 60, "minute": 60, "minuto": 60,
    "h": 3600, "hour": 3600, "stunde": 3600, "hora": 3600, "heure": 3600,
    "d": 86400, "day": 86400, "tag": 86400, "dia": 86400, "jour": 86400,
    "w": 604800, "week": 604800, "woche": 604800, "semana": 604800, "semaine": 604800,
}  # fmt: skip
_UNIT: Final = (
    r"(s|sec|seconds?|sekunden?|segundos?|secondes?|min|minutes?|minuten?|minutos?|h|hours?|stunden?|horas?|heures?|"
    r"d|days?|tagen?|tage|dias?|jours?|w|weeks?|wochen?|semanas?|semaines?)"
)
_LAST: Final = r"(?:(?:in |within |en |dans |pendant )?(?:the |los |las |les |den |der |die )?" \
    r"(?:last|past|letzten?|letzte[rn]?|ultim[oa]s?|dernier(?:e|es|s)?))"  # fmt: skip


def taken(text: str, now_s: float) -> tuple[tuple[Predicate, ...], str, str]:
    """The filters of a text, and what is left: as plain words, with a waiting time as one of them, and as it was typed.

    Raises:
        QueryError: a filter is of the right form and can't be.
    """
    if not _MAYBE.search(text.casefold()):
        return (), plain(text), " ".join(text.split()).strip(" ,;")
    signs = [(sign, at) for at, typed in enumerate(text) for sign in _plain_sign(typed)]
    rest = "".join(sign for sign, _ in signs)
    origin = [at for _, at in signs]
    found: list[Predicate] = []
    gone: set[int] = set()

    def take(read: Read) -> Callable[[re.Match[str]], str]:
        def replaced(match: re.Match[str]) -> str:
            typed = [
                text[origin[start] : origin[end - 1] + 1] if end > start else ""
                for start, end in map(match.span, range(1, match.re.groups + 1))
            ]
            found.append(read(typed if read is _texts else [group or "" for group in match.groups()], now_s))
            gone.update(origin[match.start() : match.end()])
            return ",".ljust(len(match[0]))

        return replaced

    for pattern, read in _FORMS:
        rest = pattern.sub(take(read), rest)
    rest = _WITHIN.sub(lambda match: f" within:{_seconds(match[1], match[2]):f} ", rest)
    typed = "".join(sign for at, sign in enumerate(text) if at not in gone)
    return tuple(found), rest, " ".join(typed.split()).strip(" ,;")


@lru_cache(maxsize=1_024)
def _plain_sign(sign: str) -> str:
    return plain(sign)


def _texts(parts: list[str], _: float) -> Predicate:
    return among(parts[0].casefold(), tuple(value for value in parts[1].split(",") if value))


def _numbers(parts: list[str], _: float) -> Predicate:
    field, sign, number = parts[0], parts[1], _finite(parts[2])
    if sign.startswith(">"):
        return Between(field, low=number if "=" in sign else math.nextafter(number, math.inf))
    if sign.startswith("<"):
        return Between(field, high=number if "=" in sign else math.nextafter(number, -math.inf))
    return Between(field, number, number)


def _label(parts: list[str], _: float) -> Predicate:
    least = _finite(parts[2]) if parts[2] else SURE
    if not 0.0 <= least <= 1.0:
        raise QueryError(f"expected a probability from 0 to 1 for {parts[0]}:{parts[1]}, got {parts[2]}")
    return Has(f"{parts[0]}:{parts[1]}", least)


def _place(parts: list[str], _: float) -> Predicate:
    latitude, longitude, radius_m = map(_finite, parts)
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180 and 0 <= radius_m <= 2.1e7):
        raise QueryError(f"expected near:LATITUDE,LONGITUDE,METRES, got {parts[-1].strip()!r}")
    return Near(latitude, longitude, radius_m)


def _last(parts: list[str], now_s: float) -> Predicate:
    return Between("recorded_s", low=now_s - _seconds(parts[0] or "1", parts[1]))


def _since(parts: list[str], _: float) -> Predicate:
    return Between("recorded_s", low=_instant(parts[0])[0])


def _before(parts: list[str], _: float) -> Predicate:
    return Between("recorded_s", high=math.nextafter(_instant(parts[0])[0], -math.inf))


def _until(parts: list[str], _: float) -> Predicate:
    return Between("recorded_s", high=_instant(parts[0])[1])


def _on(parts: list[str], _: float) -> Predicate:
    return Between("recorded_s", *_instant(parts[0]))


def _today(parts: list[str], now_s: float) -> Predicate:
    midnight = now_s - now_s % 86400
    return Between("recorded_s", midnight, math.nextafter(midnight + 86400, 0.0))


def _yesterday(parts: list[str], now_s: float) -> Predicate:
    midnight = now_s - now_s % 86400
    return Between("recorded_s", midnight - 86400, math.nextafter(midnight, 0.0))


def _instant(text: str) -> tuple[float, float]:
    """First and last second that a date or time (UTC) means."""
    try:
        at = datetime.datetime.fromisoformat(text.strip().replace(" ", "T").upper().removesuffix("Z"))
    except ValueError:
        raise QueryError(f"expected a date such as 2026-11-01 or 2026-11-01T12:00, got {text!r}") from None
    first = at.replace(tzinfo=datetime.timezone.utc).timestamp()
    return first, first + (86400.0 if len(text.strip()) == 10 else 60.0 if text.count(":") == 1 else 1.0) - 1e-6


def _seconds(number: str, unit: str) -> float:
    for length in (0, 1, 2):
        stem = unit[: len(unit) - length]
        if stem in _UNITS:
            return _finite(number) * _UNITS[stem]
    raise QueryError(f"expected a unit of time, got {unit!r}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or abs(number) > 1e15:
        raise QueryError(f"expected a number, got {text[:40]!r}")
    return number


# Without one of these there is no filter.
_MAYBE: Final = re.compile(
    r"[\d:<>=]|last|past|letzt|[uú]ltim|derni|today|heute|hoy|aujourd|yesterday|gestern|ayer|hier"
)


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?:(?<=\s)|(?<=,)|^){pattern}(?=$|[\s,;.!?])")


_WITHIN: Final = _form(
    rf"(?:within|innerhalb von|innerhalb|binnen|en menos de|dentro de|en moins de|dans les|en) ({_NUMBER}) ?{_UNIT}"
)
_FORMS: Final = (
    (_form(rf"({'|'.join(TEXTS)}):([^\s,;]+(?:,[^\s,;:<>]+(?=[\s,;]|$))*)"), _texts),
    (_form(rf"near:({_NUMBER}),({_NUMBER}),({_NUMBER})m?"), _place),
    (_form(rf"({'|'.join(NUMBERS)}) ?(>=|<=|>|<|=) ?({_NUMBER})"), _numbers),
    (_form(rf"({_KINDS}):([a-z0-9_]+)(?:>=?({_NUMBER}))?"), _label),
    (_form(rf"{_LAST} ({_NUMBER})? ?{_UNIT}"), _last),
    (_form(rf"(?:since|from|after|seit|ab|desde|depuis) (?:dem |le |el )?{_DATE}"), _since),
    (_form(rf"(?:before|vor|antes de|avant)(?: dem| le| el| du)? {_DATE}"), _before),
    (_form(rf"(?:until|till|to|bis|hasta|jusqu'?au?|jusqu a)(?: zum| el| le)? {_DATE}"), _until),
    (_form(rf"(?:on|am|el|le) {_DATE}"), _on),
    (_form(r"(?:today|heute|hoy|aujourd'hui)"), _today),
    (_form(r"(?:yesterday|gestern|ayer|hier)"), _yesterday),
)
