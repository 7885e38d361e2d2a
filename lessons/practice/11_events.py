"""Tasks for lesson 11: how many events, an address in 16 bits, frames by time, frames that know when."""

import tempfile
from pathlib import Path

import numpy as np

from data_utils.events.aedat import HEADER2, RECORD2, read_aedat2, write_aedat2
from data_utils.events.frames import events_to_frames, make_events
from data_utils.events.simulator import crossings, simulate
from lessons.common import wake
from minispike import create_model, no_grad
from minispike.autograd import Function

from .checks import Wrong, finite_differences, same, task

IMPORTS = """
import numpy as np
"""

# ---------------------------------------------------------------- predict


def wrong_count(value):
    if not isinstance(value, int | np.integer):
        return f"a number of events is a whole number, not {value!r}"
    black_to_white = np.log([0.1, 1.1]).reshape(2, 1, 1)
    events = crossings(black_to_white, np.array([0, 1000]), 0.2)
    if len(events) != value:
        last = events["t"][min(value, len(events)) - 1] if value > 0 else 0
        return f"the pixel does not send {value} events" + (
            f": by then only {last} µs of 1,000 are over" if 0 < value < len(events) else ""
        )
    return ""


@task(
    "★",
    hints=[
        "How far does L move? ln a − ln b = ln(a/b).",
        "ln 11 = 2.398. How often does θ fit into it?",
    ],
    answer=wrong_count,
)
def how_many():
    """Return how many events a pixel sends that goes from black to white, with θ = 0.2.

    L = log(0.1 + brightness), and brightness goes from 0 to 1.
    """
    return 11


# ---------------------------------------------------------------- an address in 16 bits


def address_cases(rng):
    for n in (3, 1, 40):
        x, y = rng.integers(0, 128, (2, n))
        yield {"x": x, "y": y, "p": rng.random(n) < 0.5}
    yield {"x": np.array([127, 0, 127]), "y": np.array([0, 127, 127]), "p": np.array([True, False, True])}


def stored(x, y, p):
    """Return the addresses that the library writes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.aedat"
        write_aedat2(file, make_events(x, y, np.arange(len(x)), p))
        return np.frombuffer(file.read_bytes()[len(HEADER2) :], RECORD2)["address"].astype("i8")


def file_of(address):
    """Let the library's reader read a file that holds its addresses."""
    events = simulate(np.random.default_rng(0).random((20, 30)), np.random.default_rng(1))
    records = np.empty(len(events), RECORD2)
    records["address"] = address(events["x"].astype(int), events["y"].astype(int), events["p"])
    records["t"] = events["t"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.aedat"
        file.write_bytes(HEADER2 + records.tobytes())
        found = read_aedat2(file, (34, 34))
    for name in "xytp":
        same(f"{name} as the library reads it back", found[name], events[name])


@task(
    "★★",
    hints=[
        "Each part is a small number; a shift to the left by n bits puts it n bits higher.",
        "(127 - x) << 8 is x's part. Parts that share no bit can be joined by |.",
        "Bit 0 is 1 - p, and p is bool: p.astype(int) makes it a number.",
    ],
    cases=address_cases,
    expected=stored,
    place=file_of,
)
def address(x, y, p):
    """Return the addresses of events as AEDAT 2.0 keeps them: whole numbers of 16 bits, [n].

    x, y: whole numbers from 0 to 127, [n].    p: bool, True is brighter, [n].
    Bit 0 (worth 1) is 1 for darker; bits 1–7 hold 127 − y; bits 8–14 hold 127 − x; bit 15 is 0.
    """
    return (127 - x) << 8 | (127 - y) << 1 | (1 - p.astype(int))


# ---------------------------------------------------------------- frames by time


def frame_cases(rng):
    for n, T, H, W in ((6, 3, 2, 4), (50, 4, 3, 1), (200, 7, 2, 3), (5, 8, 1, 6), (90, 1, 4, 2)):
        x, y, t = rng.integers(0, W, n), rng.integers(0, H, n), 1000 + rng.integers(0, 997, n)
        yield {"x": x, "y": y, "t": t, "p": rng.random(n) < 0.5, "T": T, "H": H, "W": W}


def library_frames(x, y, t, p, T, H, W):
    """What the library does; the frame of each event from a sensor with a pixel for each."""
    n = len(x)
    own = events_to_frames(make_events(np.arange(n), 0 * y, t, p), T, "time", (1, n))
    frames = events_to_frames(make_events(x, y, t, p), T, "time", (H, W))
    return {"frame": own.sum((1, 3)).argmax(0), "frames": frames}


def model_of(by_time):
    """Put its frames in the place of the library's as the input of a model."""
    small = dict(depth=1, embed_dim=16, num_heads=4, img_size=16, pools=(True, True, False, False))
    model = create_model("spikformer_2_256_cifar10dvs", **small, rng=0)
    events = [simulate(np.random.default_rng(i).random((9, 7)), np.random.default_rng(i)) for i in range(3)]
    events = [each[(each["x"] < 16) & (each["y"] < 16)] for each in events]
    theirs = np.stack([events_to_frames(each, 5, "time", (16, 16)) for each in events], 1)
    columns = [[each[name].astype(int) for name in "xyt"] + [each["p"]] for each in events]
    ours = np.stack([by_time(*each, 5, 16, 16)["frames"] for each in columns], 1)
    wake(model, theirs)
    with no_grad():
        want, got = model.eval()(theirs).data, model(ours).data
    if want.std() < 0.01:
        raise Wrong("this model is silent")
    same("the logits of a model", got, want)


@task(
    "★★",
    hints=[
        "elapsed = t − t.min(); dt = elapsed.max() // T; frame = elapsed // dt, and at most T − 1.",
        "frames[frame, y, x, p] += 1 counts each cell once only, however many events fall into it.",
        "np.add.at(frames, (frame, y, x, p.astype(int)), 1) counts them all.",
    ],
    cases=frame_cases,
    expected=library_frames,
    place=model_of,
)
def by_time(x, y, t, p, T, H, W):
    """Count events in T frames of equal duration.

    x, y, t: whole numbers, [n]; t is in µs and in no order.    p: bool, [n], True is brighter.
    Let first and last be the smallest and the largest t. A frame lasts dt = (last − first) // T >= 1 µs.
    Frame i takes the events from first + i·dt on and before first + (i + 1)·dt; the last frame also takes
    all that is later.
    Return a dict: "frame" [n], the frame of each event, and "frames" [T, H, W, 2], float32: channel 0 counts
    darker events, channel 1 brighter ones.
    """
    elapsed = t - t.min()
    frame = np.minimum(elapsed // (elapsed.max() // T), T - 1)
    frames = np.zeros((T, H, W, 2), "float32")
    np.add.at(frames, (frame, y, x, p.astype(int)), 1)
    return {"frame": frame, "frames": frames}


# ---------------------------------------------------------------- frames that know when


def soft_cases(rng):
    for n, T, H, W in ((5, 3, 2, 4), (1, 2, 1, 3), (60, 5, 3, 1), (90, 2, 2, 3), (300, 7, 4, 2)):
        x, y, p = rng.integers(0, W, n), rng.integers(0, H, n), rng.random(n) < 0.5
        gF = rng.standard_normal((T, H, W, 2))
        yield {"x": x, "y": y, "u": rng.uniform(0, T - 1, n), "p": p, "gF": gF}


def shares(x, y, u, p, gF):
    """The same as one product: [T, n] shares of each frame times [n, cells] the cell of each event."""
    T, H, W, _ = gF.shape
    distance = u - np.arange(T)[:, None]  # [T, n]
    cells = np.zeros((len(x), H, W, 2))
    cells[np.arange(len(x)), y, x, p.astype(int)] = 1
    weight, slope = np.maximum(1 - abs(distance), 0), -np.sign(distance) * (abs(distance) < 1)
    frames = np.tensordot(weight, cells, 1)
    return {"frames": frames, "gu": np.einsum("tn,tyxc,nyxc->n", slope, gF, cells)}


def timed_of(soft_frames):
    """Let finite differences move the times of events in front of a smooth model."""

    class Frames(Function):
        def forward(self, u, *, x, y, p):
            self.events = x, y, u, p
            return soft_frames(x, y, u, p, np.zeros((4, 16, 16, 2)))["frames"][:, None]  # [T, 1, H, W, 2]

        def backward(self, gy):
            return (soft_frames(*self.events, gy[:, 0])["gu"],)

    small = dict(depth=1, embed_dim=16, num_heads=2, img_size=16, pools=(True, True, False, False))
    smooth = dict(smooth=True, detach_reset=False, dtype="float64")
    model = create_model("spikformer_2_256_cifar10dvs", **small, **smooth, rng=0)
    rng = np.random.default_rng(6)
    (x, y), p, u = rng.integers(2, 14, (2, 90)), rng.random(90) < 0.5, rng.uniform(0.1, 2.9, 90)
    near = abs(u - u.round()) < 0.01  # at a whole number the slope jumps
    finite_differences(lambda u: model(Frames.apply(u, x=x, y=y, p=p)), np.where(near, u + 0.02, u))


@task(
    "★★★",
    hints=[
        "r = u − ⌊u⌋. The earlier frame, ⌊u⌋, gets 1 − r, the later one gets r. Several events may meet in a "
        "cell.",
        "Moving u by a little takes as much from the earlier frame as it gives to the later one.",
        "∂L/∂u = ∂L/∂F at the later frame's cell − ∂L/∂F at the earlier frame's cell.",
    ],
    cases=soft_cases,
    expected=shares,
    place=timed_of,
)
def soft_frames(x, y, u, p, gF):
    """Share each event between two frames by its time, and send ∂L/∂F back to the times.

    x, y: whole numbers, [n].    p: bool, [n].    gF: ∂L/∂F, [T, H, W, 2].
    u: times counted in frames, [n], from 0 to T − 1, none a whole number: an event with u = 2.25 counts 0.75
    in frame 2 and 0.25 in frame 3, in its cell (y, x, p); channel 1 is for brighter.
    Return a dict: "frames" = F [T, H, W, 2], of float64, and "gu" = ∂L/∂u [n].
    """
    frames, early, channel = np.zeros(gF.shape), np.floor(u).astype(int), p.astype(int)
    r = u - early
    np.add.at(frames, (early, y, x, channel), 1 - r)
    np.add.at(frames, (early + 1, y, x, channel), r)
    return {"frames": frames, "gu": gF[early + 1, y, x, channel] - gF[early, y, x, channel]}
