from typing import Any

import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T  # noqa: N812 - the name that TVM gives it

from vitq.compiler.deploy.static_plan import (
    ALIGNMENT,
    Block,
    legalize_layout,
    place,
    plan_memory,
    workspace_of,
)
from vitq.compiler.kernels.cpu.builder import alloc
from vitq.numerics.errors import VitqError


@st.composite
def blocks(draw: st.DrawFn) -> list[Block]:
    result = []
    for _ in range(draw(st.integers(0, 20))):
        first = draw(st.integers(0, 12))
        result.append(
            Block(ALIGNMENT * draw(st.integers(1, 50)), first, first + draw(st.integers(0, 6)))
        )
    return result


@given(blocks())
def test_blocks_that_live_together_do_not_overlap(given_blocks: list[Block]) -> None:
    size = place(given_blocks)
    for i, a in enumerate(given_blocks):
        assert a.offset % ALIGNMENT == 0 and a.offset + a.size <= size
        for b in given_blocks[i + 1 :]:
            apart = a.offset + a.size <= b.offset or b.offset + b.size <= a.offset
            assert apart or not a.meets(b)


def _module(body: Any) -> Any:
    builder = relax.BlockBuilder()
    pixels = relax.Var("pixels", relax.TensorType((1, 4, 4), "int8"))
    with builder.function("main", [pixels]):
        with builder.dataflow():
            out = builder.emit_output(body(builder, pixels))
        builder.emit_func_output(out)
    return legalize_layout(builder.finalize())


def test_a_reshape_is_another_name_for_the_same_bytes() -> None:
    def body(builder: Any, pixels: Any) -> Any:
        flat = builder.emit(relax.op.reshape(pixels, (16,)))
        swapped = builder.emit(relax.op.reshape(flat, (4, 4)))
        return builder.emit(relax.op.permute_dims(swapped, [1, 0]))

    plan = plan_memory(_module(body))
    assert len(plan.steps) == 1
    assert plan.input is not None and plan.outputs
    assert plan.steps[0].operands[0].block is plan.input.block
    assert plan.arena_bytes == plan.least_bytes == 2 * ALIGNMENT


def test_memory_is_used_again() -> None:
    def body(builder: Any, pixels: Any) -> Any:
        value = builder.emit(relax.op.reshape(pixels, (4, 4)))
        for _ in range(5):
            value = builder.emit(relax.op.permute_dims(value, [1, 0]))
        return value

    plan = plan_memory(_module(body))
    assert len(plan.steps) == 5
    assert plan.arena_bytes == 2 * ALIGNMENT


def test_equal_constants_are_stored_once() -> None:
    def body(builder: Any, pixels: Any) -> Any:
        table = relax.const([[[1, 2, 3, 4]]], "int8")
        same = relax.const([[[1, 2, 3, 4]]], "int8")
        joined = builder.emit(relax.op.concat([table, pixels], axis=1))
        return builder.emit(relax.op.concat([joined, same], axis=1))

    assert bytes(plan_memory(_module(body)).constants) == bytes([1, 2, 3, 4])


def test_the_workspace_is_all_that_a_kernel_allocates_beside_the_stack() -> None:
    with IRBuilder() as ir:
        with T.prim_func(s_tir=True):
            T.func_name("kernel")
            out = T.arg("out", T.Buffer((4,), "int32", layout=None))
            alloc((1023,), "int8")  # stays on the stack
            with T.serial(0, 4) as i:
                large, wide = alloc((1024,), "int8"), alloc((300,), "int64")
                T.buffer_store(large, tvm.tirx.const(0, "int8"), [i])
                T.buffer_store(wide, tvm.tirx.const(0, "int64"), [i])
                T.buffer_store(out, tvm.tirx.const(0, "int32"), [i])
    assert workspace_of(ir.get()) == 1024 + 2432


def test_what_cannot_be_planned_is_named() -> None:
    builder = relax.BlockBuilder()
    pixels = relax.Var("pixels", relax.TensorType((4,), "int8"))
    with builder.function("main", [pixels]):
        with builder.dataflow():
            call = relax.op.call_pure_packed("vitq.mystery", pixels, ty_args=pixels.ty)
            out = builder.emit_output(builder.emit(call))
        builder.emit_func_output(out)
    with pytest.raises(VitqError, match=r"no plan for vitq\.mystery"):
        plan_memory(builder.finalize())
