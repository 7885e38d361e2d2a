"""scikit-learn's handwritten digits: 1,797 real 8×8 images that come with the package, no download."""

from __future__ import annotations


def load_digits(test_fraction: float = 0.2, seed: int = 0):
    """Return (train_images, train_labels), (test_images, test_labels): by default 1,437 and 360 samples.

    The split is scikit-learn's stratified train_test_split with random_state = seed, the same every time.
    images: float32 [n, 8, 8, 1], standardised with the training images' mean and std; labels: int64 [n].
    """
    try:
        from sklearn import datasets
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn: pip install 'minispike[lessons]'") from error
    bunch = datasets.load_digits()
    train, test, train_labels, test_labels = train_test_split(
        bunch.images[..., None].astype("float32"),
        bunch.target.astype("int64"),
        test_size=test_fraction,
        stratify=bunch.target,
        random_state=seed,
    )
    mean, deviation = train.mean(), train.std()
    return ((train - mean) / deviation, train_labels), ((test - mean) / deviation, test_labels)
