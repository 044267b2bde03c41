"""A model's kernels alone, where their target is: here, in NumPy, or thread by thread."""

from collections.abc import Callable

import numpy as np
import tvm

from tests.compiler.kernels.util import compile_function
from vitq.compiler.codegen.contract import Operator, operators_of
from vitq.compiler.codegen.importing import ImportedModel
from vitq.compiler.gpu_kit.drawing import CASES
from vitq.compiler.kernels.building import build_kernel
from vitq.compiler.kernels.cuda.emulator.emulator import run_kernel
from vitq.compiler.target.choice import get_target
from vitq.compiler.target.features import Features, GpuFeatures
from vitq.numerics.arrays import IntArray


def inputs_of(operator: Operator, drawn: list[IntArray]) -> list[IntArray]:
    """The kernel's inputs: what was drawn, and its constants."""
    rest = iter(drawn)
    return [next(rest) if value is None else value for value in operator.constants]


def runner(operator: Operator, features: Features) -> Callable[[list[IntArray]], IntArray]:
    """The operator's kernel, built once."""
    func, out = build_kernel(operator.kernel, {}), operator.kernel.out
    if isinstance(features, GpuFeatures):
        known = [i for i, value in enumerate(operator.constants) if value is not None]
        return lambda inputs: run_kernel(func, inputs, np.zeros(out.shape, out.dtype), known)
    function = compile_function(func, features)

    def run(inputs: list[IntArray]) -> IntArray:
        result = tvm.runtime.tensor(np.full(out.shape, 77, out.dtype))
        function(*(tvm.runtime.tensor(np.ascontiguousarray(a)) for a in inputs), result)
        return result.numpy()

    return run


def assert_kernels_exact(imported: ImportedModel, target: str, least: int) -> None:
    """Run each kernel of a model on random and extreme codes; there are more than `least`."""
    features = get_target(target).features
    kernels = {op.kernel: op for op in operators_of(imported.integer.mod, features)}
    assert len(kernels) > least
    for operator in kernels.values():
        run = runner(operator, features)
        for case in CASES:
            drawn = operator.draw(case)
            found = run(inputs_of(operator, drawn))
            told = f"{operator.kernel.name}, {case}"
            np.testing.assert_array_equal(found, operator.evaluate(drawn), err_msg=told)
