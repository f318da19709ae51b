"""Settings under which nothing is hard but what a campaign looks for."""

from __future__ import annotations

from dataclasses import fields

from edge.judge import JudgeWeights
from edge.loop import LoopConfig

_OTHERS = [field.name for field in fields(JudgeWeights) if field.name != "campaign"]
CALM = LoopConfig(weights=JudgeWeights(**dict.fromkeys(_OTHERS, 0.0)))
CALM_FILE = "\n".join(["[weights]", *[f"{name} = 0.0" for name in _OTHERS]])
