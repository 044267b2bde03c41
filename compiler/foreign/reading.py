"""Reads an ONNX file and checks that it is one; says what it is where it is something else."""

import re
from pathlib import Path
from typing import Any

from vitq.compiler.foreign.facts import OWN_DOMAINS, Facts, label, op_of
from vitq.compiler.foreign.refusal import Left, refusal
from vitq.numerics.errors import VitqError, reason

SUPPORTED_ONNX_OPS = frozenset(
    "Abs Add ArgMax Cast Clip Concat Constant ConstantOfShape Conv DequantizeLinear Div Elu Equal "
    "Erf Exp Expand Flatten Floor Gather Gelu Gemm Greater HardSigmoid HardSwish Identity "
    "LayerNormalization LeakyRelu MatMul Mish Mul Pad Pow QuantizeLinear ReduceMax ReduceMean "
    "ReduceSum Relu Reshape Shape Sigmoid Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub "
    "Tanh Transpose Unsqueeze Where".split()
)
NODE = re.compile(r"Bad node spec for node\. Name: (.*?) ?OpType: (\w+)")
UNKNOWN = (
    "build the model without them, or quantize it in PyTorch (vitq quantize), which takes more "
    "operators"
)
HEAD = 64
"""Bytes that tell formats apart."""
OTHERS = {
    b"PK\x03\x04": "a zip archive (a PyTorch checkpoint?): give it as --weights of vitq quantize",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: git lfs pull",
    b"<": "text (a web page?): download the file itself",
    b"{": "JSON: give the .onnx file",
    b"GGUF": "GGUF: export the PyTorch model to ONNX instead",
    b"\x7fELF": "a compiled library: give the .onnx file that it was made from",
    b"\x80": "a pickle: export the PyTorch model to ONNX instead",
}
"""How a file begins that is no ONNX -> what it is, and what to do."""


def read_onnx(path: Path) -> Any:
    """Read and check an ONNX file.

    Args:
        path: the file; large tensors may lie beside it.

    Returns:
        The ``onnx.ModelProto``, tensors included.

    Raises:
        VitqError: not ONNX, damaged, or with operators that no pass understands (all listed).
    """
    model = loaded(path)
    checked(model, path)
    facts = Facts(model)
    unknown = [Left(label(node), op_of(node)) for node in facts.nodes if not _is_known(node)]
    if unknown:
        raise refusal(path, "it uses operators that are not supported: ", unknown, facts, UNKNOWN)
    return model


def _is_known(node: Any) -> bool:
    return node.domain in OWN_DOMAINS and node.op_type in SUPPORTED_ONNX_OPS


def parsed(path: Path) -> Any:
    """Parse a file, without the tensors that lie beside it.

    Args:
        path: the file.

    Returns:
        The ``onnx.ModelProto``.

    Raises:
        VitqError: naming what the file is instead.
    """
    import onnx

    if path.is_dir():
        raise VitqError(f"{path} is a folder: give an .onnx file")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise VitqError(f"{path} cannot be read: {reason(error)}: check the path") from error
    except Exception as error:
        raise VitqError(f"{path} is not a readable ONNX file: {_instead(head, error)}") from error
    if not model.graph.node:
        raise VitqError(f"{path} is not a readable ONNX file: {_instead(head, None)}")
    return model


def loaded(path: Path) -> Any:
    """Parse a file, tensors that lie beside it included.

    Args:
        path: the file.

    Returns:
        The ``onnx.ModelProto``.

    Raises:
        VitqError: naming what the file is instead, or the missing tensors.
    """
    import onnx

    model = parsed(path)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise VitqError(
            f"{path}: tensors that lie outside of the file cannot be read: {reason(error)}: put "
            "the files that torch.onnx.export wrote beside it into the same folder"
        ) from error
    return model


def checked(model: Any, path: Path) -> None:
    """Check a model by ONNX's own rules.

    Args:
        model: the ``onnx.ModelProto``, tensors included.
        path: for messages.

    Raises:
        VitqError: naming the first bad node.
    """
    import onnx

    try:
        onnx.checker.check_model(model)
    except Exception as error:
        said = f"{reason(error)}{_context(str(error))}"
        raise VitqError(
            f"{path} is not a readable ONNX file: {said}: export or download it again"
        ) from error


def _context(text: str) -> str:
    """Return the node that onnx's checker names somewhere below."""
    found = NODE.search(text)
    return "" if found is None else f" (node {found[1] or 'without a name'}, {found[2]})"


def _instead(head: bytes, error: Exception | None) -> str:
    """Say what a file is that is no ONNX."""
    if not head:
        return "it is empty: export it again"
    for start, what in OTHERS.items():
        if head.startswith(start):
            return f"it is {what}"
    said = "it has no operators" if error is None else reason(error)
    return f"{said} (truncated?): export or download it again"
