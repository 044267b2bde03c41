"""Scenes of handwritten digits: an embedded task with masks and boxes, no download.

    models.scenes.data     the pictures, class per pixel, boxes

The models trained on them are `models.scenes_swin` (segments) and `models.scenes_yolos` (detects).
"""

IMAGE_SIZE = 64
MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)
BACKGROUND = 0
CLASS_NAMES = ("background", *map(str, range(10)))
"""Of a mask's classes: digit d is class d + 1."""
IGNORE = 255
"""In a mask: rims of strokes, which are neither digit nor background."""
