"""What a processor does in one instruction and Numba has no name for; only compiled functions may call these.

Ref: LLVM Language Reference, llvm.cttz, llvm.ctpop and llvm.prefetch.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

_BYTE = ir.IntType(8).as_pointer()
_INT = ir.IntType(32)


def _lowest_bit(_: Any, __: Any) -> Any:
    """word -> the place of the lowest bit that is set, from 0; of 0 anything."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), code


def _set_bits(_: Any, __: Any) -> Any:
    """word -> how many of its bits are set."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), code


def _prefetch(_: Any, array: Any, __: Any) -> Any:
    """array, place -> have that element's cache line fetched; elements lie together, and any place may be named."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        elements = context.make_array(signature.args[0])(context, builder, args[0]).data
        line = builder.bitcast(builder.gep(elements, [args[1]]), _BYTE)
        kind = ir.FunctionType(ir.VoidType(), [_BYTE, _INT, _INT, _INT])
        to_read, keep, of_data = (ir.Constant(_INT, value) for value in (0, 3, 1))
        call = builder.module.declare_intrinsic("llvm.prefetch", [_BYTE], kind)
        builder.call(call, [line, to_read, keep, of_data])
        return context.get_dummy_value()

    return types.void(array, types.int64), code


lowest_bit: Any = intrinsic(_lowest_bit)
set_bits: Any = intrinsic(_set_bits)
prefetch: Any = intrinsic(_prefetch)
