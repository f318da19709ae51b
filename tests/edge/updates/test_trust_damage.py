"""Whatever becomes of a byte, or of what a thief signs, an answer is refused in one line or says the same."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.errors import UpdateError

from .attack import Case

EXAMPLES = 5_000 if os.environ.get("ROADFUSE_LONG") else 250
FIELDS = (
    "director_roots",
    "director_timestamp",
    "director_snapshot",
    "director_targets",
    "image_roots",
    "image_timestamp",
)
IMAGE = ("image snapshot", "image targets", "image bin")
calm = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.just("ab" * 32)
    | st.just("2026-01-01T00:00:00Z"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def case() -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        yield Case.at(Path(folder))


def _damaged(raw: bytes, at: float, by: int) -> bytes:
    position = int(at * len(raw))
    return raw[:position] + bytes([raw[position] ^ by]) + raw[position + 1 :]


@calm
@given(what=st.sampled_from([*FIELDS, *IMAGE]), at=st.floats(0, 1, exclude_max=True), by=st.integers(1, 255))
def test_damage_to_any_byte_is_refused_or_harmless(case: Case, what: str, at: float, by: int) -> None:
    cloud, vehicle = case.cloud, case.vehicle
    cloud.behave()
    for repository in (cloud.director, cloud.image):
        if len(repository.roots) == vehicle.trust.root_versions[repository is cloud.image]:
            repository.next_root()
    honest = vehicle.request()
    expected = vehicle.believe(cloud.check_in(honest), honest.nonce)
    for repository in (cloud.director, cloud.image):
        repository.next_root()
    if what in IMAGE:
        names = [f"image {name}" for name, _ in cloud.image_files if f"image {name}".startswith(what)]
        cloud.damages |= {name: lambda raw: _damaged(raw, at, by) for name in names}
        cloud.publish()
    request = vehicle.request()
    response = cloud.check_in(request)
    if what in FIELDS:
        field = getattr(response, what)
        if isinstance(field, bytes):
            setattr(response, what, _damaged(field, at, by))
        else:
            field[0] = _damaged(field[0], at, by)
    before = vehicle.floor
    try:
        assignment = vehicle.believe(response, request.nonce)
    except UpdateError as error:
        assert "\n" not in str(error)
        assert vehicle.floor == before
    else:
        assert assignment == expected


WORD = ("vehicle", "nonce", "now", "mode", "rollout", "stop_number", "stopped", "next_contact_s")
CUSTOM = ("bundle", "counter", "hardware", "files")


@calm
@given(key=st.sampled_from([*WORD, *CUSTOM]), value=json_values)
def test_whatever_the_true_keys_sign_is_taken_as_it_should_be_or_refused(case: Case, key: str, value: Any) -> None:
    def changed(targets: Any) -> None:
        if key in WORD and "roadfuse" in targets.unrecognized_fields:
            targets.unrecognized_fields["roadfuse"][key] = value
        for target in targets.targets.values():
            if key in CUSTOM:
                target.unrecognized_fields["custom"] = {**target.custom, key: value}

    case.cloud.behave()
    case.cloud.edits |= {"director targets": changed, "image bins": changed}
    case.vehicle.start()
    try:
        case.cloud.publish()
        assignment = case.vehicle.check_in()
    except UpdateError as error:
        assert "\n" not in str(error)
    else:
        assert assignment.release is not None and assignment.release.counter == 2
        assert 0 <= assignment.next_contact_s <= 86_400
