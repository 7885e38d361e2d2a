"""Event arrays made of columns: each value is what was given, or refused by the name of its field."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_utils.events import frames, simulator
from data_utils.events.frames import EVENT, events_to_frames, make_events

from .test_frames import SIZE, some_events


@given(st.lists(st.tuples(*[st.integers(0, 65535)] * 2, st.integers(-(2**63), 2**63 - 1), st.booleans())))
def test_every_value_that_fits_comes_back(rows):
    x, y, t, p = ([row[i] for row in rows] for i in range(4))
    events = make_events(x, y, np.array(t, "i8"), p)
    assert events.dtype == EVENT and events.tolist() == rows


@given(st.integers(-(2**40), 2**40) | st.floats(), st.sampled_from("xy"))
def test_a_coordinate_is_itself_or_refused(value, name):
    columns = {"x": [0], "y": [0], "t": [0], "p": [0]} | {name: [value]}
    if 0 <= value <= 65535 and value == int(value):
        assert make_events(**columns)[name][0] == value
    else:
        with pytest.raises(
            ValueError, match=rf"^{name}\[0\] is .*; it must be a whole number from 0 to 65535"
        ):
            make_events(**columns)


@pytest.mark.parametrize(
    "p, brighter",
    [
        ([0, 1, 1], [False, True, True]),
        ([-1, 1, 1], [False, True, True]),
        ([-1, -1, -1], [False] * 3),
        ([0, 0, 0], [False] * 3),
        ([1, 1, 1], [True] * 3),
        ([False, True, False], [False, True, False]),
        ([-1.0, 1.0, 1.0], [False, True, True]),
    ],
)
def test_polarities_have_three_spellings(p, brighter):
    assert make_events([0] * 3, [0] * 3, [0] * 3, p)["p"].tolist() == brighter


@pytest.mark.parametrize(
    "p", [[0, 1, 2], [0, -1, 1], [0, 1, np.nan], [0, 0.5, 1], [1, 255, 0], ["1", "0", "1"]]
)
def test_other_polarities_are_refused(p):
    with pytest.raises(ValueError, match=r"^p"):
        make_events([0] * 3, [0] * 3, [0] * 3, p)


def test_float_times_are_rounded_to_the_nearest_microsecond():
    def times(t, unit):
        return make_events([0] * len(t), [0] * len(t), t, [0] * len(t), unit)["t"].tolist()

    assert times([0.123456, 1e-6, -0.5], "s") == [123456, 1, -500_000]  # 0.123456 · 10⁶ = 123455.99999999999
    assert times([1.0006, 0.0004], "ms") == [1001, 0]
    assert times([7.0, 7.6], "us") == [7, 8]
    assert times(np.array([0.3], "f4"), "s") == [300_000]
    assert times([7, 8], None) == times([7, 8], "us") == [7, 8]
    for t, unit, told in (
        ([0.5], None, "t holds floats, so say their unit"),
        ([5], "s", "t holds integers, which are µs; unit='s' is for times that are floats"),
        ([0.5], "ns", "unit must be 's', 'ms' or 'us', got 'ns'"),
        ([1e13], "s", r"t\[0\] is 10000000000000.0; it must be a time below 2⁶³ µs"),
        ([1e308], "s", r"t\[0\] is 1e\+308"),
        ([np.nan], "ms", r"t\[0\] is nan"),
        (np.array([2**63], "u8"), None, r"t\[0\] is 9223372036854775808"),
        ([True], None, r"t is bool \[1\]; it must be numbers \[n\]"),
    ):
        with pytest.raises(ValueError, match=told):
            times(t, unit)


def test_columns_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"the same length, got \{'x': 2, 'y': 1, 't': 1, 'p': 1\}"):
        make_events([1, 2], [1], [1], [1])
    with pytest.raises(ValueError, match=r"y is int64 \[1, 1\]; it must be numbers \[n\]"):
        make_events([1], np.array([[1]], "i8"), [1], [1])
    with pytest.raises(ValueError, match=r"x is int64 \[\]"):
        make_events(np.array(1, "i8"), [1], [1], [1])  # one value is not repeated for all events
    with pytest.raises(ValueError, match="x is object"):
        make_events([None], [1], [1], [1])


def test_counting_uses_the_platform_s_index_type(rng, monkeypatch):
    """A platform of 32 bits, as far as it can be had here: its index type, and np.bincount's refusal."""
    events = some_events(300, rng)
    expected = [events_to_frames(events, 4, split_by, SIZE) for split_by in ("number", "time")]
    kept = simulator.obey_refractory(events, 100, SIZE)
    count = np.bincount

    def narrow(x, minlength=0):
        if not np.can_cast(x.dtype, np.int32):
            raise TypeError(f"Cannot cast array data from {x.dtype} to int32 according to the rule 'safe'")
        return count(x, minlength=minlength)

    monkeypatch.setattr(np, "intp", np.int32)
    monkeypatch.setattr(np, "bincount", narrow)
    for split_by, right in zip(("number", "time"), expected, strict=True):
        assert np.array_equal(frames.events_to_frames(events, 4, split_by, SIZE), right)
    assert np.array_equal(simulator.obey_refractory(events, 100, SIZE), kept) and 0 < len(kept) < 300
    with pytest.raises(TypeError, match="according to the rule 'safe'"):
        np.bincount(np.zeros(3, "i8"))  # negative control
