"""Recordings of event cameras, the frames that a network gets from them, and a simulated camera.

Read the files in this order:

    frames.py        events as one array, and frames that count events
    aedat.py         AEDAT, the file format of recordings
    recordings.py    a recording in any known format: AEDAT, N-MNIST's files, NumPy files
    simulator.py     a simulated event camera: from an image to events
    dvs.py           CIFAR10-DVS and DVS128 Gesture: from folders of recordings to frames
    fashion_dvs.py   Fashion-DVS: Fashion-MNIST recorded by the simulated camera
    folders.py       folders of your own recordings: from files of any known format to frames
    augment.py       changes to training frames by random numbers
    sets.py          any of these sets by its name, as batches to train and to test on
"""
