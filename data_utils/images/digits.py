"""scikit-learn's handwritten digits: 1,797 real images of 8×8 pixels, which come with that package."""

from __future__ import annotations


def load_digits(test_fraction: float = 0.2, seed: int = 0):
    """Return (training images, labels), (test images, labels): 1,437 and 360 samples by default.

    images: float32 [n, 8, 8, 1], standardised by the mean and standard deviation of the training images.
    labels: int64 [n], 0–9.
    The split is scikit-learn's train_test_split, stratified by class, with random_state = seed. So it is the
    same every time.
    Raises ImportError if scikit-learn is missing.
    """
    try:
        from sklearn import datasets
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn: pip install 'minispike[lessons]'") from error
    bunch = datasets.load_digits()
    train, test, train_labels, test_labels = train_test_split(
        bunch.images[..., None].astype("float32"),  # [n, 8, 8, 1]
        bunch.target.astype("int64"),
        test_size=test_fraction,
        stratify=bunch.target,
        random_state=seed,
    )
    mean, deviation = train.mean(), train.std()
    return ((train - mean) / deviation, train_labels), ((test - mean) / deviation, test_labels)
