"""Data sets of images, and changes to training images.

Read the files in this order:

    digits.py      scikit-learn's 8×8 digits, which need no download
    pairs.py       pairs of these digits: are they the same? A task that needs mixing
    augment.py     standardising, and changes by random numbers: flip, crop, shift, erase, mixup
    idx.py         IDX, the file format of MNIST
    mnist.py       MNIST and Fashion-MNIST
    folders.py     folders of JPEG and PNG files: ImageNet, Tiny-ImageNet
    cifar.py       CIFAR-10 and CIFAR-100
    policy.py      rotations, shears and the like, as in Spikformer's recipe for CIFAR
    pipeline.py    all changes to a batch of training images, in their order
"""
