"""Classify a camera or a video, frame by frame.

    pip install opencv-python-headless
    python examples/camera.py FOLDER_OF_A_COMPILED_MODEL 0            the first camera
    python examples/camera.py FOLDER_OF_A_COMPILED_MODEL walk.mp4 --every 5

Reading and classifying overlap: one thread decodes the next frame while the library works.
"""

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from PIL import Image

import vitq


def frames(source: str, every: int) -> Iterator[Image.Image]:
    """Decode every n-th frame of a file, an address, or a camera's number."""
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not capture.isOpened():
        raise SystemExit(f"camera.py: {source} cannot be opened as a camera or a video")
    try:
        number = 0
        while capture.grab():
            if number % every == 0:
                found, frame = capture.retrieve()
                if not found:
                    return
                yield Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            number += 1
    finally:
        capture.release()


def classify(library: vitq.Library, source: str, every: int) -> Iterator[tuple[int, float]]:
    """Yield each frame's class and its probability."""
    pictures = (library.pixels(frame) for frame in frames(source, every))
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(next, pictures, None)
        while (pixels := waiting.result()) is not None:
            waiting = reader.submit(next, pictures, None)
            (logits,) = library(pixels)
            weights = np.exp(logits - logits.max())
            best = int(logits.argmax())
            yield best, float(weights[best] / weights.sum())


def main() -> None:
    """Print a line for each frame, and the rate at the end."""
    parser = argparse.ArgumentParser(description="Classify a camera or a video.")
    parser.add_argument("folder", help="of a model that was compiled with a batch of 1")
    parser.add_argument("source", help="number of a camera, a video file, or a stream's address")
    parser.add_argument("--every", type=int, default=1, help="take every n-th frame")
    options = parser.parse_args()
    library, count, started = vitq.load(options.folder), 0, time.perf_counter()
    for best, probability in classify(library, options.source, max(options.every, 1)):
        print(f"frame {count * max(options.every, 1)}: class {best}, {100 * probability:.1f} %")
        count += 1
    print(f"{count} frames, {count / (time.perf_counter() - started):.1f} for each second")


if __name__ == "__main__":
    main()
