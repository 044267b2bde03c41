"""Serve a compiled model over HTTP; requests that come together are run as one batch.

    pip install fastapi uvicorn
    vitq compile artifacts/digits_vit/w8a8-repq --batch 8
    python examples/serve_http.py artifacts/digits_vit/w8a8-repq/cpu-b8
    curl --data-binary @picture.png http://127.0.0.1:8000/classify?top=3

One thread owns the library: it takes what is waiting, up to the library's batch, and runs it. Under
load batches are full without any delay being added; a single request waits for nobody.
"""

import asyncio
import io
import queue
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from PIL import Image

import vitq

LARGEST_BYTES = 20 * 2**20
LONGEST_QUEUE = 256


class Job(NamedTuple):
    """One picture that waits.

    Attributes:
        pixels: (C, H, W) uint8.
        answer: gets its logits (classes,).
        loop: of the request.
    """

    pixels: np.ndarray
    answer: "asyncio.Future[np.ndarray]"
    loop: asyncio.AbstractEventLoop


def work(library: vitq.Library, jobs: "queue.Queue[Job | None]") -> None:
    """Run batches until there is a None."""
    while (job := jobs.get()) is not None:
        batch = [job]
        while len(batch) < library.batch and not jobs.empty() and jobs.queue[0] is not None:
            batch.append(jobs.get())  # type: ignore[arg-type]  # this thread alone takes from it
        try:
            logits = library(np.stack([each.pixels for each in batch]))
            for each, row in zip(batch, logits, strict=True):
                each.loop.call_soon_threadsafe(settle, each.answer, row)
        except Exception as error:
            for each in batch:
                each.loop.call_soon_threadsafe(settle, each.answer, error)


def settle(answer: "asyncio.Future[np.ndarray]", result: "np.ndarray | Exception") -> None:
    """Give a request its answer, unless it went away meanwhile."""
    if answer.done():
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)


def make_app(library: vitq.Library) -> FastAPI:
    """Make the server around a library."""
    jobs: queue.Queue[Job | None] = queue.Queue(LONGEST_QUEUE)

    @asynccontextmanager
    async def running(_app: FastAPI) -> AsyncIterator[None]:
        thread = threading.Thread(target=work, args=(library, jobs))
        thread.start()
        yield
        jobs.put(None)
        thread.join()

    app = FastAPI(title="vitq", lifespan=running)

    @app.post("/classify")
    async def classify(request: Request, top: int = 5) -> dict[str, Any]:
        """Answer a picture (the body: JPEG, PNG, ...) with its best classes."""
        content = await request.body()
        if not 0 < len(content) <= LARGEST_BYTES:
            raise HTTPException(413, f"send a picture of 1 to {LARGEST_BYTES} bytes")
        loop = asyncio.get_running_loop()
        try:
            pixels = await loop.run_in_executor(None, prepare, library, content)
        except (vitq.VitqError, OSError, Image.DecompressionBombError) as error:
            raise HTTPException(415, f"no picture that can be read: {error}") from error
        answer: asyncio.Future[np.ndarray] = loop.create_future()
        try:
            jobs.put_nowait(Job(pixels, answer, loop))
        except queue.Full:
            raise HTTPException(503, "too many requests are waiting: try again") from None
        return {"classes": best(await answer, top)}

    @app.get("/health")
    def health() -> dict[str, Any]:
        """Say what is served."""
        return {"target": library.target, "batch": library.batch, "waiting": jobs.qsize()}

    return app


def prepare(library: vitq.Library, content: bytes) -> np.ndarray:
    """Decode, resize and crop one picture; returns (C, H, W) uint8."""
    pixels: np.ndarray = library.pixels(Image.open(io.BytesIO(content)))[0]
    return pixels


def best(logits: np.ndarray, top: int) -> list[dict[str, Any]]:
    """Return the best classes of (classes,) logits, with their softmax."""
    weights = np.exp(logits - logits.max())
    order = np.argsort(-logits, kind="stable")[: max(top, 1)]
    return [{"class": int(i), "probability": float(weights[i] / weights.sum())} for i in order]


if __name__ == "__main__":
    import uvicorn

    if len(sys.argv) != 2:
        sys.exit("usage: python serve_http.py FOLDER_OF_A_COMPILED_MODEL")
    uvicorn.run(make_app(vitq.load(sys.argv[1])), host="127.0.0.1", port=8000)
