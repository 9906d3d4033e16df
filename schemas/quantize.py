"""Fixed-point values: float deltas become int32 steps of 2**-fraction_bits, once, at the publisher."""

import numpy as np
import numpy.typing as npt

from ekko.schemas.errors import BadInput, OutOfRange

Int32s = npt.NDArray[np.int32]

_INT32 = np.iinfo(np.int32)
WIDTHS: dict[int, type[np.signedinteger]] = {1: np.int8, 2: np.int16, 4: np.int32}


def stochastic_round(values: npt.NDArray[np.floating], fraction_bits: int, *, seed: int, sequence: int) -> Int32s:
    """Quantise with unbiased rounding: floor(value * 2**fraction_bits + u), u uniform in [0, 1).

    A change below half a step survives in expectation. Stateless: u comes from the counter-based generator Philox
    (Salmon et al., SC '11), keyed by `seed` and the caller's `sequence`, so the same call gives the same bits.

    Args:
        values: float32 or float64 [N, dim].
        fraction_bits: 0 to 30.
        seed: the publisher's seed.
        sequence: a number the caller never uses twice with one seed.

    Raises:
        OutOfRange: a value is NaN, infinite or beyond the range of int32 steps.
    """
    scaled = np.multiply(values, float(1 << fraction_bits), dtype=np.float64)
    generator = np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), sequence & (2**64 - 1)]))
    scaled += generator.random(scaled.shape, dtype=np.float32)
    return _to_int32(np.floor(scaled, out=scaled), fraction_bits)


def round_to_nearest(values: npt.NDArray[np.floating], fraction_bits: int) -> Int32s:
    """Quantise to the nearest step (imports: the second round trip equals the first); raises as `stochastic_round`."""
    scaled = np.multiply(values, float(1 << fraction_bits), dtype=np.float64)
    return _to_int32(np.rint(scaled, out=scaled), fraction_bits)


def _to_int32(scaled: npt.NDArray[np.float64], fraction_bits: int) -> Int32s:
    # NaN fails both comparisons, so one test finds NaN, infinity and overflow.
    fits = (scaled >= _INT32.min) & (scaled <= _INT32.max)
    if not fits.all():
        row, column = np.argwhere(~fits)[0] if scaled.ndim == 2 else (0, int(np.flatnonzero(~fits)[0]))
        bound = 2.0 ** (31 - fraction_bits)
        value = scaled[~fits][0] / (1 << fraction_bits)
        raise OutOfRange(
            f"{np.count_nonzero(~fits)} value(s) are not finite or beyond ±{bound:g} "
            f"(first: row {row}, column {column}, value {value:g})",
            hint="clip gradients or skip the step; a wider range needs a table with fewer fraction_bits",
        )
    return scaled.astype(np.int32)


def to_float(rows: Int32s, fraction_bits: int) -> npt.NDArray[np.float32]:
    """Parameter values of int32 rows [N, dim]: `row * 2**-fraction_bits`, float32 of the same shape."""
    return np.multiply(rows, np.float32(2.0**-fraction_bits), dtype=np.float32)


def pack(rows: Int32s) -> tuple[int, bytes]:
    """Narrowest lossless encoding of int32[N, dim]: (bytes a value: 1, 2 or 4; little-endian bytes, row-major)."""
    low, high = (int(rows.min()), int(rows.max())) if rows.size else (0, 0)
    for width, dtype in WIDTHS.items():
        info = np.iinfo(dtype)
        if info.min <= low and high <= info.max:
            return width, rows.astype(np.dtype(dtype).newbyteorder("<"), copy=False).tobytes()
    raise AssertionError("int32 always fits four bytes")


def unpack(width: int, data: bytes, dim: int) -> Int32s:
    """Rows of `pack`: int32[N, dim] (a read-only view of `data` when width is 4).

    Raises:
        BadInput: `width` is not 1, 2 or 4, or the length is no multiple of a row.
    """
    if width not in WIDTHS or dim < 1 or len(data) % (width * dim):
        raise BadInput(f"{len(data)} bytes are no whole rows of dim {dim} at {width} byte(s) a value")
    values = np.frombuffer(data, dtype=np.dtype(WIDTHS[width]).newbyteorder("<"))
    return values.astype(np.int32, copy=False).reshape(-1, dim)
