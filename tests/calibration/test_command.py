"""`roadfuse calibrate`: what it dispatches to, and what it says when it can't."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from calibration import command
from calibration.rig import command as rig_command
from edge.errors import ConfigError


@pytest.mark.parametrize("main", [command.main, rig_command.main])
def test_without_words_the_usage_goes_to_stderr(main: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2  # type: ignore[operator]
    assert "usage: roadfuse calibrate" in capsys.readouterr().err
    assert main(["--help"]) == 0  # type: ignore[operator]
    assert "usage: roadfuse calibrate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("main", "known"), [(command.main, "ranges, confidence, rig"), (rig_command.main, "camera, lidar, clocks")]
)
def test_an_unknown_calibration_is_refused_with_those_there_are(main: object, known: str) -> None:
    with pytest.raises(ConfigError, match=f"expected one of {known}, got 'wheels'"):
        main(["wheels"])  # type: ignore[operator]


def test_words_reach_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("calibration.ranges_command")
    module.main = lambda argv: len(argv)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "calibration.ranges_command", module)
    assert command.main(["ranges", "a", "b", "c"]) == 3


def test_a_command_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(command.COMMANDS, "ranges", ("calibration.no_such_command", ""))
    with pytest.raises(ConfigError, match=r"this installation has no calibration\.no_such_command"):
        command.main(["ranges"])


def test_a_missing_package_is_not_taken_for_a_missing_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "calibration.rig.camera", raising=False)
    with pytest.raises(ModuleNotFoundError, match="cv2"):
        command.main(["rig", "camera"])
