"""The figures as one page that opens anywhere: no script, no font, no picture from elsewhere; plots are SVG inside."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from export.evaluation.twins import shares

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2128;background:#fff;max-width:1240px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.7rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin-top:2.4rem;border-bottom:1px solid #d0d7de}
p{max-width:760px}table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.6rem 0}
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #eaeef2}th{font-weight:600;color:#57606a}
td:first-child,th:first-child{text-align:left}.plots{display:flex;flex-wrap:wrap;gap:1.4rem}
.scroll{overflow-x:auto}.key{display:flex;flex-wrap:wrap;gap:1.2rem;margin:1rem 0}
.key div{border:1px solid #d0d7de;border-radius:8px;padding:.5rem .9rem}.key b{display:block;font-size:1.35rem}
"""
SIDE = 220  # px of a plot


def page(figures: Mapping[str, Any]) -> str:
    """The whole page."""
    bundle = figures.get("bundle", {"name": "bundle", "version": "", "id": ""})
    title = f"{bundle['name']} {bundle['version']}"
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(title)}</title><style>{STYLE}</style>",
        f"<h1>{_text(title)}</h1><p>Bundle {_text(bundle['id'][:16])}, on {figures['frames']} frames of "
        f"{figures['worlds']} drives that it never saw. {_text(figures['machine'])}.</p>",
        _key(figures),
        _section("Heads", _heads(figures)),
        _section("By domain", _domains(figures["domains"])),
        _section("Missing modalities", _missing(figures)),
        _section("Retrieval", _retrieval(figures["retrieval"])),
        _section("Calibration", _calibration(figures["calibration"])),
    ]
    if "int8_minus_fp32" in figures:
        parts.append(_section("int8 beside float", _parity(figures)))
    if "twin" in figures:
        parts.append(_section(f"{figures['twin']['lowering']} beside what runs here", _twin(figures["twin"])))
    if "strategies" in figures:
        parts.append(_section("Fusion strategies", _strategies(figures["strategies"])))
    if "real" in figures:
        parts.append(_section("Real recordings", _real(figures["real"])))
    parts.append(_section("Size and speed", _speed(figures)))
    return "\n".join(parts) + "\n"


def _key(figures: Mapping[str, Any]) -> str:
    """The few numbers that a reader wants first."""
    total = sum(row["shipped"] for row in figures["latency_ms"].values())
    chosen = {
        "text to scene, R@1": figures["retrieval"]["pairs"].get("text to scene", {}).get("r1"),
        "objects, mean AP50": figures["int8"]["summary"]["objects mean AP50"],
        "lanes, mean IoU": figures["int8"]["summary"]["lanes mean IoU"],
        "scene tags, mean AP": figures["int8"]["summary"]["scene_tags mean AP"],
        "sound events, mean AP": figures["int8"]["summary"]["sound_events mean AP"],
        "all engines, ms": total,
    }
    return f"<div class=key>{''.join(f'<div>{_text(k)}<b>{_number(v)}</b></div>' for k, v in chosen.items())}</div>"


def _heads(figures: Mapping[str, Any]) -> str:
    whole = figures["int8"]
    alone = figures.get("strategies", {}).get("alone", {})
    summary = [[name, value, *(row.get(name) for row in alone.values())] for name, value in whole["summary"].items()]
    parts = [_table(["head", "fused", *(f"{name} alone" for name in alone)], summary)]
    if alone:
        parts.append("<p>The columns on the right are networks that were trained with that modality and no other.</p>")
    for head in ("scene_tags", "sound_events"):
        rows = [[name, r["base_rate"], r["auroc"], r["ap"], r["f1"]] for name, r in whole[head].items()]
        parts.append(_table([head, "base rate (chance AP)", "AUROC", "AP", "F1"], rows))
    rows = [[n, r["objects"], r["ap50"], r["precision"], r["recall"], r.get("chance_ap50")]
            for n, r in whole["objects"].items()]  # fmt: skip
    parts.append(_table(["objects", "count", "AP50", "precision", "recall", "AP50 of another frame's boxes"], rows))
    rows = [[n, whole[n]["accuracy"], whole[n]["macro_f1"], whole[n]["chance_accuracy"]]
            for n in ("signs", "pedestrian_intents", "vehicle_kinds", "ego_action", "intent")]  # fmt: skip
    parts.append(_table(["one of several", "accuracy", "macro F1", "accuracy of the commonest"], rows))
    parts.append(_table(["lanes", "IoU"], [[name, value] for name, value in whole["lanes"].items()]))
    onset = whole["sound_onsets"]
    parts.append(
        f"<p>Onsets of {onset['events']} events that began within the last second: mean error "
        f"{_number(onset['mean_error_s'])} s ({_number(onset['chance_error_s'])} s for always saying their mean).</p>"
    )
    return "".join(parts)


def _domains(domains: Mapping[str, Mapping[str, Any]]) -> str:
    names = list(next(iter(domains.values()))) if domains else []
    return _table(["domain", *names], [[domain, *row.values()] for domain, row in domains.items()])


def _missing(figures: Mapping[str, Any]) -> str:
    rows = figures["missing"]
    names = list(rows["all"])
    note = "<p>The heads of the fusion, the same network with only these modalities present. Objects, signs and lanes "
    note += "come from the camera's encoder: they are as above with it and absent without it.</p>"
    return note + _table(["present", *names], [[name, *row.values()] for name, row in rows.items()])


def _retrieval(found: Mapping[str, Any]) -> str:
    note = (
        f"<p>Which of {found['among']} held-out moments is meant; no two of them have the same facts, so equal "
        f"captions are taken out ({found['distinct_facts']} different ones among {found['moments']} moments). Chance: "
        f"{_number(found['chance'])}. A scene is a moment with its past; a clip two seconds of camera alone.</p>"
    )
    rows = [[name, row["r1"], row["r5"], row["r10"]] for name, row in found["pairs"].items()]
    return note + _table(["query to answer", "R@1", "R@5", "R@10"], rows)


def _calibration(found: Mapping[str, Any]) -> str:
    plots = "".join(
        f"<figure>{_reliability(row['bins'])}<figcaption>{_text(name)}, ECE {_number(row['ece'])}</figcaption></figure>"
        for name, row in found.items()
    )
    note = "<p>How often it was so (up) when the network said it with this probability (right).</p>"
    return f"{note}<div class=plots>{plots}</div>"


def _reliability(bins: Sequence[Mapping[str, float]]) -> str:
    def at(said: float, was: float) -> str:
        return f"{20 + (SIDE - 30) * said:.1f},{SIDE - 20 - (SIDE - 30) * was:.1f}"

    points = " ".join(at(row["said"], row["was"]) for row in bins)
    dots = "".join(
        f'<circle cx="{at(r["said"], r["was"]).split(",")[0]}" cy="{at(r["said"], r["was"]).split(",")[1]}" r="3.5"/>'
        for r in bins
    )
    return (
        f'<svg width="{SIDE}" height="{SIDE}" viewBox="0 0 {SIDE} {SIDE}"><polyline points="{at(0, 0)} {at(1, 1)}" '
        f'stroke="#afb8c1" stroke-dasharray="4 4"/><polyline points="{at(0, 1)} {at(0, 0)} {at(1, 0)}" fill="none" '
        f'stroke="#57606a"/><polyline points="{points}" fill="none" stroke="#1f6feb" stroke-width="2"/>'
        f'<g fill="#1f6feb">{dots}</g></svg>'
    )


def _parity(figures: Mapping[str, Any]) -> str:
    difference = figures["int8_minus_fp32"]
    shipped, whole = figures["int8"]["summary"], figures["fp32"]["summary"]
    rows = [[name, shipped[name], whole[name], value] for name, value in difference["summary"].items()]
    classes = sorted(difference["classes"].items(), key=lambda item: (item[1] is None, item[1]))
    note = "<p>Differences in points, hundredths of the figure. By class, the worst first.</p>"
    return note + _table(["head", "shipped", "float", "points"], rows) + _table(["class", "points"], map(list, classes))


def _twin(found: Mapping[str, Any]) -> str:
    ways = [found[way] for way in ("as_written", "by_kernels")]
    note = (
        f"<p>Both lowerings on {ways[0]['frames']} frames: share of equal answers, and of embedding values at most one "
    )
    note += "quantum (the largest magnitude over 127) apart; operator by operator, and by this machine's kernels.</p>"
    told = [shares(way) for way in ways]
    rows = [[name, *(f"{100 * way[name]:.3f} %" for way in told)] for name in told[0]]
    return note + _table(["", "as written", "by kernels"], rows)


def _strategies(found: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            r["all"]["mean"],
            r["worst_fall_percent"],
            r["camera_only_fall_percent"],
            r["latency_ms"],
            r["parameters"],
        ]
        for name, r in found["strategies"].items()
    ]
    head = [
        "strategy",
        "mean over heads",
        "worst fall without one, %",
        "fall with camera only, %",
        "ms a step",
        "weights",
    ]
    return f"<p>Each trained for {found['steps']} steps on the same embeddings.</p>" + _table(head, rows)


def _real(found: Mapping[str, Any]) -> str:
    rows: list[list[Any]] = []
    for name, row in found.items():
        for key, value in row.items():
            if isinstance(value, Mapping):
                rows += [[f"{name}, {key}: {inner}", figure] for inner, figure in value.items()]
            else:
                rows.append([f"{name}: {key}", value])
    note = "<p>Recordings from the road and from the world at large; the bundle was trained on rendered worlds.</p>"
    return note + _table(["figure", "value"], rows)


def _speed(figures: Mapping[str, Any]) -> str:
    sizes = figures.get("size", {})
    rows = [
        [name, sizes[name] / 1e6 if name in sizes else None, row["shipped"], row.get("fp32"),
         row["fp32"] / row["shipped"] if "fp32" in row else None]
        for name, row in figures["latency_ms"].items()
    ]  # fmt: skip
    return _table(["engine", "MB", "ms shipped", "ms float", "speed-up"], rows) + "<p>Median call, one thread.</p>"


def _section(title: str, body: str) -> str:
    return f"<h2>{_text(title)}</h2><div class=scroll>{body}</div>"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    titles = "".join(f"<th>{_text(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{_number(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else _text(str(value))


def _text(text: str) -> str:
    return html.escape(text)
