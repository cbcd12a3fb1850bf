"""Blocks of :data:`LANES` floats inside numba kernels: vector loads, multiply-adds and stores, and the truncated Gaussian.

numba cannot tell LLVM that two arrays do not overlap, so a loop that reads one and writes another stays scalar; these operations load
whole blocks first. Index arguments must leave room for a full block in every array.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.base import BaseContext
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numpy.polynomial import Chebyshev, Polynomial

from MedGSLib.raster.interface import TRUNCATION

LANES = 16

FAST_MATH = {"contract", "reassoc", "nsz", "arcp"}
"""Float rewrites that the kernels allow; infinities and NaNs keep their meaning."""

_logger = logging.getLogger(__name__)
_config: Any = numba.config
_BLOCK = ir.VectorType(ir.FloatType(), LANES)
_FUSED = ("contract",)
_FLOAT_BYTES = 4
_operation: Callable[[Callable], Callable[..., None]] = intrinsic

_Q = np.float32(TRUNCATION)
_ROOT_SCALE = np.float32(-1.0 / 16.0)
_ROOT = Chebyshev.interpolate(np.exp, 5, domain=[-TRUNCATION / 16.0, 0.0]).convert(kind=Polynomial).coef
_C0, _C1, _C2, _C3, _C4, _C5 = (np.float32(value) for value in _ROOT)


def _cache_folder() -> Path:
    """Folder of the machine code of exactly these sources: numba alone would not notice a change in a module that a kernel imports."""
    here = Path(__file__).parent
    sources = b"".join((here / name).read_bytes() for name in ("interface.py", "lanes.py", "kernels.py", "kernels_alpha.py", "cut_cpu.py"))
    root = Path(_config.CACHE_DIR) if _config.CACHE_DIR else Path("~/.cache/medgs/numba").expanduser()
    return root / hashlib.sha256(sources).hexdigest()[:16]


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """``numba.njit`` that keeps its machine code on disk where a folder for it can be written, and compiles anew where none can."""

    def decorate(function: Callable) -> Callable:
        chosen = _config.CACHE_DIR
        try:
            _config.CACHE_DIR = str(_cache_folder())
            return njit(cache=True, fastmath=FAST_MATH, **options)(function)
        except RuntimeError as error:
            _logger.debug("The compiled %s is not kept on disk: %s", function.__name__, error)
            return njit(fastmath=FAST_MATH, **options)(function)
        finally:
            _config.CACHE_DIR = chosen

    return decorate


def _load(context: BaseContext, builder: ir.IRBuilder, kind: types.Array, array: ir.Value, index: ir.Value) -> tuple[ir.Value, ir.Value]:
    start = builder.gep(make_array(kind)(context, builder, array).data, [index])
    pointer = builder.bitcast(start, _BLOCK.as_pointer())
    return pointer, builder.load(pointer, align=_FLOAT_BYTES)


def _broadcast(builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    lane = ir.IntType(32)
    first = builder.insert_element(ir.Constant(_BLOCK, ir.Undefined), scalar, lane(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(lane, LANES), [0] * LANES))


def _store_sum(builder: ir.IRBuilder, pointer: ir.Value, block: ir.Value, left: ir.Value, right: ir.Value) -> None:
    product = builder.fmul(left, right, flags=_FUSED)
    builder.store(builder.fadd(block, product, flags=_FUSED), pointer, align=_FLOAT_BYTES)


@_operation
def add_scaled(_typing, target, _at, source, _source_at, _scale):
    """``target[at + l] += scale * source[source_at + l]`` for every lane l; flat float32 arrays."""

    def generate(context, builder, signature, arguments):
        pointer, block = _load(context, builder, signature.args[0], arguments[0], arguments[1])
        _, other = _load(context, builder, signature.args[2], arguments[2], arguments[3])
        _store_sum(builder, pointer, block, other, _broadcast(builder, arguments[4]))
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, types.float32), generate


@_operation
def add_product(_typing, target, _at, left, _left_at, right, _right_at):
    """``target[at + l] += left[left_at + l] * right[right_at + l]`` for every lane l; flat float32 arrays."""

    def generate(context, builder, signature, arguments):
        pointer, block = _load(context, builder, signature.args[0], arguments[0], arguments[1])
        _, first = _load(context, builder, signature.args[2], arguments[2], arguments[3])
        _, second = _load(context, builder, signature.args[4], arguments[4], arguments[5])
        _store_sum(builder, pointer, block, first, second)
        return context.get_dummy_value()

    return types.void(target, types.intp, left, types.intp, right, types.intp), generate


@_operation
def copy_block(_typing, target, _at, source, _source_at):
    """``target[at + l] = source[source_at + l]`` for every lane l; flat float32 arrays."""

    def generate(context, builder, signature, arguments):
        pointer, _ = _load(context, builder, signature.args[0], arguments[0], arguments[1])
        _, block = _load(context, builder, signature.args[2], arguments[2], arguments[3])
        builder.store(block, pointer, align=_FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), generate


@njit(inline="always", fastmath=FAST_MATH)
def truncated_gaussian(q):
    """``exp(-q / 2)`` below the truncation and 0 above, to 1e-6: its eighth root as a polynomial in q / 16, squared three times."""
    u = q * _ROOT_SCALE
    eighth_root = _C0 + u * (_C1 + u * (_C2 + u * (_C3 + u * (_C4 + u * _C5))))
    square = eighth_root * eighth_root
    fourth = square * square
    return fourth * fourth if q < _Q else np.float32(0)
