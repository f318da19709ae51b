"""A vehicle's scenes in a stretch of time, in a few lines: how many, what of, and the hardest ones."""

from __future__ import annotations

import datetime
from collections import Counter
from typing import Any, Final

from sqlalchemy import Connection, select

from cloud.analyst import store
from cloud.tables import SCENES

HARDEST: Final = 5
MOST_SCENES: Final = 10_000
# A label's part in a scene from which the scene counts as one of it.
LIKELY: Final = 0.5
_TOLD: Final = 4  # kinds of events that the sentence names
_WORDS: Final = {
    "en": ("{scenes} hard scenes, {seconds:.0f} s in all, {analysed} of them analysed", "; most often: ",
           "; no events"),
    "de": ("{scenes} schwere Szenen, zusammen {seconds:.0f} s, davon {analysed} untersucht", "; am häufigsten: ",
           "; keine Ereignisse"),
    "es": ("{scenes} escenas difíciles, {seconds:.0f} s en total, {analysed} analizadas", "; lo más frecuente: ",
           "; sin sucesos"),
    "fr": ("{scenes} scènes difficiles, {seconds:.0f} s au total, dont {analysed} analysées", "; le plus souvent : ",
           "; aucun événement"),
}  # fmt: skip
_EVENTS: Final = {
    "sound:siren": ("siren", "Sirene", "sirena", "sirène"),
    "sound:horn": ("horn", "Hupe", "claxon", "klaxon"),
    "sound:footsteps": ("footsteps", "Schritte", "pasos", "pas"),
    "sound:speech": ("voices", "Stimmen", "voces", "voix"),
    "sound:rain": ("rain", "Regen", "lluvia", "pluie"),
    "intent:crosses": ("pedestrian crosses", "Fußgänger überquert", "peatón cruza", "piéton traverse"),
    "intent:will_cross": ("pedestrian about to cross", "Fußgänger will überqueren", "peatón a punto de cruzar",
                          "piéton sur le point de traverser"),
    "intent:waits": ("pedestrian waits", "Fußgänger wartet", "peatón espera", "piéton attend"),
    "action:brake": ("braking", "Bremsen", "frenado", "freinage"),
    "action:stop": ("standing still", "Stehen", "parado", "à l'arrêt"),
    "emergency:yes": ("emergency vehicle", "Einsatzfahrzeug", "vehículo de emergencia", "véhicule de secours"),
}  # fmt: skip


def drive_summary(
    connection: Connection, vehicle: str, since: datetime.datetime | None = None,
    until: datetime.datetime | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What a vehicle met.

    Args:
        since, until: when scenes were recorded; None: any time.

    Returns:
        JSON: scenes, analysed, seconds, labels (scenes by label), events (count by label), errors (labels that the
        vehicle got wrong, by label), hardest (id, hardness, recorded_at, summary), sentence (by language).
    """
    columns = SCENES.c
    query = select(columns.id, columns.first_ns, columns.last_ns, columns.hardness, columns.recorded_at)
    query = query.where(columns.vehicle == vehicle)
    if since is not None:
        query = query.where(columns.recorded_at >= since)
    if until is not None:
        query = query.where(columns.recorded_at < until)
    rows = connection.execute(query.order_by(columns.hardness.desc(), columns.id).limit(MOST_SCENES)).all()
    reports = store.reports(connection, [row.id for row in rows])
    labels: Counter[str] = Counter()
    happened: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for report in reports.values():
        labels.update(name for name, probability in report["labels"].items() if probability >= LIKELY)
        happened.update(event["label"] for event in report["events"])
        agreement = report["agreement"] or {"differences": []}
        errors.update({difference["label"] for difference in agreement["differences"]})
    seconds = sum(row.last_ns - row.first_ns for row in rows) / 1e9
    return {
        "vehicle": vehicle,
        "scenes": len(rows),
        "analysed": len(reports),
        "seconds": seconds,
        "labels": dict(labels.most_common()),
        "events": dict(happened.most_common()),
        "errors": dict(errors.most_common()),
        "hardest": [
            {
                "id": row.id,
                "hardness": row.hardness,
                "recorded_at": row.recorded_at.isoformat() if row.recorded_at else None,
                "summary": reports[row.id]["summary"] if row.id in reports else {},
            }
            for row in rows[:HARDEST]
        ],
        "sentence": _sentence(len(rows), len(reports), seconds, happened),
    }


def _sentence(scenes: int, analysed: int, seconds: float, happened: Counter[str]) -> dict[str, str]:
    often = [(label, count) for label, count in happened.most_common() if label in _EVENTS][:_TOLD]
    found = {}
    for i, (language, (head, most, nothing)) in enumerate(_WORDS.items()):
        told = ", ".join(f"{_EVENTS[label][i]} ({count})" for label, count in often)
        found[language] = head.format(scenes=scenes, seconds=seconds, analysed=analysed) + (
            f"{most}{told}." if told else f"{nothing}."
        )
    return found
