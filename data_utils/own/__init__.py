"""One's own data of three kinds, each with one description that a run keeps.

Read the files in this order:

    description.py   what all kinds have in common: classes, samples with checksums, the split
    pictures.py      a folder of pictures, one folder per class
    arrays.py        an .npz file with images x and labels y
    recordings.py    a folder of event recordings, one folder per class
    kinds.py         which kind a path holds
"""
