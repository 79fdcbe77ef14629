"""Near duplicates: pictures that show the same. A perceptual hash proposes pairs, their thumbnails decide.

The hash is the DCT hash (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", 3.2.1), 64
bits, of the thumbnail. Alone it cannot tell one solar cell from the next, so it only proposes pairs.

Measured with `max_distance` 0.001: on copies of 250 pictures a set, scaled by 0.5 to 0.9 and 1.3 and saved as JPEG of
quality 50 to 90; and over all pairs of a set, each found pair checked by eye:

                      pictures  copies found   pairs found   of them false
    pets3                600    2,250 of 2,250      5              0
    catsdogs           2,302    2,246 of 2,250      2              0
    elpv               2,624    2,240 of 2,250      0              0

Hash alone: 6, 2 and 909 pairs. Distances of copies: half below 0.0001, 99 % below 0.0006. Two different solar cells
come as near as 0.0014; of the photographs only duplicates are below 0.05. Also found: copies that are darker, grey,
or stretched to another aspect ratio. Not found: mirrored, rotated and cropped copies, copies with a watermark (0.017),
and half of the copies so bright that highlights are clipped.
"""

import numpy as np
import numpy.typing as npt

SIDE = 16  # side of a thumbnail in pixels: stages/vision/files/thumbnail.py
MAX_BITS = 6  # in which the hashes of a proposed pair may differ; copies: 0 to 4
BANDS = MAX_BITS + 1  # so that two such hashes agree in at least one band
MAX_OFFSETS, MAX_NEIGHBOURS = 5_000, 8
CHUNK_SIZE = 8192  # thumbnails that are converted to wider numbers at a time
FREQUENCIES = np.arange(1, 9)
COSINES = np.round(4096 * np.cos(np.pi * np.outer(FREQUENCIES, 2 * np.arange(SIDE) + 1) / (2 * SIDE))).astype(np.int64)

Ints = npt.NDArray[np.int64]


def perceptual_hashes(thumbnails: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    """(n, 64) bits: which of the 8 x 8 lowest frequencies (without the constant one) are above their median."""
    bits = [np.empty((0, 64), np.bool_)]
    for start in range(0, len(thumbnails), CHUNK_SIZE):
        chunk = thumbnails[start : start + CHUNK_SIZE].reshape(-1, SIDE, SIDE).astype(np.int64)
        waves = (COSINES @ chunk @ COSINES.T).reshape(len(chunk), 64)
        bits.append(waves > np.sort(waves, axis=1)[:, [31]])
    return np.concatenate(bits)


def distances(thumbnails: npt.NDArray[np.int8], left: Ints, right: Ints) -> npt.NDArray[np.float64]:
    """1 - correlation of the thumbnails: 0 the same, 1 nothing in common. float32 holds these sums exactly."""
    result = np.empty(len(left))
    for start in range(0, len(left), CHUNK_SIZE):
        chunk = slice(start, start + CHUNK_SIZE)
        a, b = thumbnails[left[chunk]].astype(np.float32), thumbnails[right[chunk]].astype(np.float32)
        products, left_squares, right_squares = (
            np.einsum("ij,ij->i", x, y).astype(np.float64) for x, y in ((a, b), (a, a), (b, b))
        )
        result[chunk] = 1 - products / np.sqrt(left_squares * right_squares)
    return result


def near_duplicates(thumbnails: npt.NDArray[np.int8], max_distance: float) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Pairs of positions ((m, 2), lower first, sorted) of thumbnails ((n, 256), none constant), and their distances.

    Not quadratic: by the pigeonhole principle two hashes that differ in 6 bits agree in one of 7 bands. If thousands
    share a band's value, each hash is compared with the next 5,000 in order. The search for a picture stops in a band
    after 8 duplicates: further ones are linked through their neighbours.
    """
    found: list[tuple[Ints, Ints, npt.NDArray[np.float64]]] = []
    bits = perceptual_hashes(thumbnails)
    hashes = np.packbits(bits, axis=1).view(np.uint64).ravel()
    for band in range(BANDS):
        keys = bits[:, band::BANDS] @ (1 << np.arange(len(range(band, 64, BANDS))))
        order = np.lexsort((hashes, keys))
        ends = np.searchsorted(keys[order], keys[order], side="right")
        left, n_found = np.arange(len(order)), np.zeros(len(order), np.int64)
        for offset in range(1, MAX_OFFSETS):
            left = left[(left + offset < ends[left]) & (n_found[left] < MAX_NEIGHBOURS)]
            if not len(left):
                break
            hits = left[np.bitwise_count(hashes[order[left]] ^ hashes[order[left + offset]]) <= MAX_BITS]
            if len(hits):
                apart = distances(thumbnails, order[hits], order[hits + offset])
                close = hits[apart <= max_distance]
                n_found[close] += 1
                found.append((order[close], order[close + offset], apart[apart <= max_distance]))
    if not found:
        return np.empty((0, 2), np.int64), np.empty(0)
    left, right, pair_distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    pairs, positions = np.unique(np.sort(np.stack([left, right], axis=1), axis=1), axis=0, return_index=True)
    return pairs, pair_distances[positions]
