"""Batches: complete and reproducible, made one at a time, by two Loaders in turn, or ahead of need."""

import threading
import tracemalloc

import numpy as np
import pytest

from data_utils.loader import Loader, Prefetch, Until, hold_out

# ---------------------------------------------------------------- a batch at a time


def noise(images, labels, rng):
    return images + rng.standard_normal(images.shape), labels


def loader(n=10, size=4, seed=0, **options):
    return Loader(np.arange(n) * 1.0, np.arange(n), size, seed, **options)


def together(batches):
    return tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))


def test_a_loaders_epoch_is_every_sample_once_in_an_order_of_its_own():
    assert [len(y) for _, y in loader()(0)] == [4, 4, 2] and len(loader()) == len(loader()(0)) == 3
    assert loader().n_samples == 10
    for epoch in (0, 1):
        images, labels = together(loader()(epoch))
        assert np.array_equal(images, labels) and sorted(labels) == list(range(10))
    assert not np.array_equal(together(loader()(0))[1], together(loader()(1))[1])
    assert not np.array_equal(together(loader()(0))[1], together(loader(seed=1)(0))[1])
    assert together(loader())[1].tolist() == list(range(10))
    with pytest.raises(ValueError, match="3 images, 2 labels"):
        Loader(np.ones(3), np.ones(2), 1)
    with pytest.raises(ValueError, match="batches of 0"):
        loader(size=0)


def test_a_batch_larger_than_the_data_holds_all_samples():
    large = loader(n=3, size=100)
    assert large.size == 3 and len(large) == len(large(0)) == 1
    (images, labels), *others = large(0)
    assert sorted(labels) == [0, 1, 2] and not others
    assert [labels.tolist() for _, labels in large] == [[0, 1, 2]]
    assert np.array_equal(labels, loader(n=3, size=3)(0)[0][1])  # the same order


def test_a_batch_depends_on_seed_epoch_and_step_alone():
    batches = loader(augment=noise)
    whole = list(batches(5))
    for step in (2, 0, 1):  # out of turn, on their own
        x, y = loader(augment=noise)(5)[step]
        assert np.array_equal(x, whole[step][0]) and np.array_equal(y, whole[step][1])
    added = [
        together(each(epoch))
        for each, epoch in ((batches, 5), (batches, 6), (loader(seed=1, augment=noise), 5))
    ]
    added = [tuple(np.sort(x - y)) for x, y in added]
    assert len(set(added)) == 3
    for step in (-1, 3):
        with pytest.raises(IndexError, match=f"step {step} of an epoch of 3"):
            batches(5)[step]


def test_no_step_repeats_the_shuffles_random_numbers_nor_another_steps():
    draws = [rng_of.random() for rng_of in (np.random.default_rng((3, 5)), np.random.default_rng((3, 5, 0)))]
    assert draws[0] == draws[1]  # the trap: NumPy takes both seeds for the same

    def draw(images, labels, rng):
        draws.append(rng.random())
        return images, labels

    list(loader(seed=3, augment=draw)(5))
    assert len(draws) == 5 and len(set(draws)) == 4


def test_an_epoch_augments_and_plain_iteration_prepares():
    both = loader(prepare=lambda x: -x, augment=lambda x, y, rng: (x, y + 0.5))
    images, targets = together(both(0))
    assert np.array_equal(images + 0.5, targets)
    images, labels = together(both)
    assert np.array_equal(-images, labels)
    images, labels = together(loader(prepare=lambda x: -x)(0))  # without augment an epoch prepares too
    assert np.array_equal(-images, labels) and labels[0] != 0


class Recorder:
    """A source that notes which samples were asked for."""

    def __init__(self, n):
        self.n, self.asked = n, []

    def __len__(self):
        return self.n

    def __getitem__(self, indices):
        self.asked.append(indices.tolist())
        return indices


def test_a_source_is_asked_for_a_batch_at_a_time():
    source = Recorder(10)
    batches = iter(Loader(source, np.arange(10), 4)(0))
    assert source.asked == []
    x, y = next(batches)
    assert source.asked == [x.tolist()] and np.array_equal(x, y)
    next(batches)
    assert len(source.asked) == 2


def test_an_epoch_takes_the_memory_of_a_batch():
    images, labels = np.zeros((64, 100, 100, 1), "float32"), np.arange(64)  # 2.56 MB
    tracemalloc.start()
    for x, _ in Loader(images, labels, 2)(0):
        assert x.shape == (2, 100, 100, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400_000


def test_a_spread_is_taken_evenly_over_the_whole_set():
    assert loader().spread(3)[1].tolist() == [0, 4, 9] and loader().spread(1)[1].tolist() == [0]
    assert loader().spread(99)[1].tolist() == list(range(10))
    assert (loader(prepare=lambda x: -x).spread(3)[0] == [0, -4, -9]).all()


# ---------------------------------------------------------------- samples held out


def classes_of_different_sizes(seed=0, **options):
    """12 samples of class 0, 5 of class 1 and 2 of class 2, in mixed order; an image is its number."""
    labels = np.array([0] * 12 + [1] * 5 + [2] * 2)[np.random.default_rng(1).permutation(19)]
    return Loader(np.arange(19.0), labels, 4, seed, **options)


def test_a_share_of_each_class_is_held_out():
    whole = classes_of_different_sizes(prepare=lambda x: 10 * x, augment=noise)
    train, test = hold_out(whole, 0.25)
    held, labels = together(test)
    assert [int((labels == c).sum()) for c in range(3)] == [3, 1, 1]  # at least one of each
    assert test.prepare is whole.prepare and np.array_equal(labels, whole.labels[(held / 10).astype(int)])
    kept, kept_labels = together(train)
    assert sorted([*kept, *held]) == [10.0 * i for i in range(19)] and train.n_samples == 14
    assert np.array_equal(kept_labels, whole.labels[(kept / 10).astype(int)])
    noisy, _ = together(train(3))
    assert not set(noisy) & {i * 1.0 for i in range(19)}  # training samples are augmented as before
    assert np.array_equal(noisy, together(hold_out(whole, 0.25)[0](3))[0])


def test_what_is_held_out_does_not_depend_on_the_seed_and_lies_apart():
    first, other = (together(hold_out(classes_of_different_sizes(seed), 0.25)[1])[0] for seed in (0, 7))
    assert np.array_equal(first, other)
    _, test = hold_out(Loader(np.arange(100.0), np.zeros(100, int), 10), 0.1)
    assert np.array_equal(together(test)[0], np.arange(0.0, 100, 10))


def test_two_loaders_in_turn_hold_out_the_same_samples():
    both = [classes_of_different_sizes(augment=each) for each in (noise, None)]
    train, test = hold_out(Until(2, *both), 0.25)
    assert isinstance(train, Until) and train.n_samples == 14 and len(train) == 4
    assert np.array_equal(together(test)[0], together(hold_out(both[1], 0.25)[1])[0])
    assert sorted(together(train(2))[0]) == sorted(together(train.then)[0])


def test_what_cannot_be_held_out():
    for share in (0, 1, -0.1):
        with pytest.raises(ValueError, match=f"between 0 and 1, got {share}"):
            hold_out(loader(), share)
    with pytest.raises(ValueError, match="class 0 has one sample"):
        hold_out(loader(), 0.5)
    train, test = hold_out(Loader(np.arange(2.0), np.zeros(2, int), 1), 0.99)
    assert train.n_samples == test.n_samples == 1  # one is kept to train on


# ---------------------------------------------------------------- two Loaders in turn


def test_a_switch_of_loaders_is_at_its_epoch():
    first, then = (Loader(np.full(5, value), np.arange(5), 2, prepare=lambda x: x) for value in (1, 2))
    until = Until(3, first, then)
    assert [until(epoch)[0][0][0] for epoch in (0, 2, 3, 9)] == [1, 1, 2, 2] and len(until) == 3
    assert until.n_samples == 5
    assert [labels.tolist() for _, labels in until] == [[0, 1], [2, 3], [4]]
    with pytest.raises(ValueError, match="epoch 0 and loaders of 3 and 3 batches"):
        Until(0, first, then)
    with pytest.raises(ValueError, match="loaders of 3 and 2 batches"):
        Until(1, first, Loader(np.ones(5), np.arange(5), 3))


def test_a_switch_of_loaders_is_tested_by_the_first():
    first, then = (Loader(np.full(5, value), np.arange(5), 2) for value in (1, 2))
    assert [images[0] for images, _ in Until(3, first, then)] == [1, 1, 1]


# ---------------------------------------------------------------- ahead of need


def makers():
    """The threads that are making batches."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("depth", [1, 3, 50])
def test_prefetching_changes_nothing(depth):
    plain = loader(size=3)
    ahead = Prefetch(plain, depth)
    assert len(ahead) == len(ahead(0)) == 4
    for one, two in ((plain, ahead), (plain(2), ahead(2))):
        for _ in range(2):  # again from the beginning
            assert all(np.array_equal(a, b) for a, b in zip(together(one), together(two), strict=True))
    assert not makers()


def test_prefetching_makes_depth_batches_ahead_and_no_more():
    more = threading.Semaphore(0)

    class Counted(Recorder):
        def __getitem__(self, indices):
            result = super().__getitem__(indices)
            more.release()
            return result

    source = Counted(100)
    batches = iter(Prefetch(Loader(source, np.arange(100), 1), 3))
    assert source.asked == []  # nothing runs before it is asked for
    next(batches)
    assert all(more.acquire(timeout=10) for _ in range(4))  # the one that is out, and three more
    assert not more.acquire(timeout=0.1) and len(source.asked) == 4 and len(makers()) == 1
    next(batches)
    assert more.acquire(timeout=10) and not more.acquire(timeout=0.1)
    batches.close()
    assert len(source.asked) == 5 and not makers()
    with pytest.raises(ValueError, match="at least one batch ahead, got 0"):
        Prefetch(source, 0)


def test_the_thread_ends_when_the_consumer_stops_early():
    ahead = Prefetch(loader(n=1000, size=1), 2)
    for _, labels in ahead:
        assert len(makers()) == 1
        if labels[0] == 5:
            break
    assert not makers()
    with pytest.raises(KeyError):
        for _ in ahead:
            raise KeyError("the consumer's own")
    assert not makers()


@pytest.mark.parametrize("error", [ValueError("a bad file"), MemoryError(), KeyboardInterrupt()], ids=repr)
def test_an_error_in_the_making_comes_out_in_its_place(error):
    def augment(images, labels, rng):
        if 3 in labels:
            raise error
        return images, labels

    steps = loader(n=8, size=1, augment=augment)(0)
    place = steps.order.tolist().index(3)
    seen = []
    with pytest.raises(type(error)) as caught:
        for _, labels in Prefetch(steps, 2):
            seen.append(labels)
    assert caught.value is error and len(seen) == place > 0 and not makers()
    assert "augment" in [entry.name for entry in caught.traceback]  # where it happened stays visible


def test_without_threads_each_batch_is_made_when_it_is_asked_for(monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    def failing():
        yield 1
        raise OSError("the disk is gone")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert list(Prefetch([1, 2, 3])) == [1, 2, 3]
    with pytest.raises(OSError, match="the disk is gone"):
        list(Prefetch(failing()))


def test_a_loader_starts_at_any_step_and_makes_nothing_before(rng):
    asked = []

    class Source(list):
        def __getitem__(self, indices):
            asked.extend(indices)
            return np.asarray(indices)

    loader = Loader(Source(range(10)), np.arange(10), 3)
    rest = loader(5, 2)
    assert len(rest) == 4 and len(list(rest)) == 2 and asked == rest.order[6:].tolist()
