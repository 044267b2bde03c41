"""Other people's QDQ files in onnxruntime."""

from pathlib import Path

import onnxruntime


def session_of(path: str | Path) -> onnxruntime.InferenceSession:
    """Runs a file as it is written, float operators between quantizers.

    onnxruntime's own integer products would be those of the file only on some processors (see
    `export.parity.EXACT_PRODUCTS`, which not all files survive).
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
