"""Data sets as plain NumPy arrays: readers, augmentation and batches. Nothing here imports minispike.

Read the files in this order:

    errors.py      the one error by which a reader refuses a file, and what the file is instead
    download.py    files that are downloaded into the cache and checked, or found in a folder
    listing.py     the files and folders of a data set, without those that systems leave behind
    loader.py      batches of samples, made one at a time, or ahead of need in a thread
    images/        data sets of images, and changes to training images
    events/        recordings of event cameras, their frames, and a simulated camera
    npz.py         NumPy files, read safely
    own/           one's own data: pictures, arrays, recordings
    datasets.py    any data set by its name, as batches to train and to test on

Letters in shapes: n samples, B samples in a batch, T time steps, H rows, W columns, C channels.

    (images, labels), (test_images, test_labels) = load_digits()
    batches = Loader(images, labels, 32)
    for x, y in batches(epoch):    x [B, H, W, C], y [B]
"""

from .errors import DataFileError
from .images.cifar import load_cifar10, load_cifar100
from .images.digits import load_digits
from .images.folders import load_image_folders
from .images.mnist import load_fashion_mnist, load_mnist
from .loader import Loader

__all__ = [
    "DataFileError",
    "Loader",
    "load_cifar10",
    "load_cifar100",
    "load_digits",
    "load_fashion_mnist",
    "load_image_folders",
    "load_mnist",
]
