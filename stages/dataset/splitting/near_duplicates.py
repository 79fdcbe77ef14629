"""Finds near duplicates, which are pictures that show the same. A perceptual hash proposes pairs; the correlation of
their thumbnails decides.

The hash is the DCT hash (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", 3.2.1), 64
bits, of the thumbnail. The hash alone cannot tell one solar cell from the next, so it only proposes pairs.

The table shows results with `max_distance` 0.001. For each data set, 250 pictures were copied nine times each, scaled
by 0.5 to 0.9 and 1.3 and saved as JPEG of quality 50 to 90. In addition all pairs of the data set were searched, and
every pair found was checked by eye:

                      pictures  copies found   pairs found   of them false
    pets3                600    2,250 of 2,250      5              0
    catsdogs           2,302    2,246 of 2,250      2              0
    elpv               2,624    2,240 of 2,250      0              0

The hash alone proposes 6, 2 and 909 pairs. Half of the copies have a distance below 0.0001, and 99 % a distance below
0.0006. The smallest distance of two different solar cells is 0.0014; among the photographs, only duplicates have a
distance below 0.05. Copies that are darker, grey or stretched to another aspect ratio are found too. Mirrored, rotated
and cropped copies are not found, nor copies with a watermark (distance 0.017), nor half of the copies that are so
bright that highlights are clipped.
"""

import numpy as np
import numpy.typing as npt

SIDE = 16  # side of a thumbnail in pixels: stages/vision/files/thumbnail.py
# The hashes of a proposed pair differ in at most this many bits. Those of the copies differ in 0 to 4 bits.
MAX_DIFFERING_BITS = 6
BANDS = MAX_DIFFERING_BITS + 1  # so many that two such hashes are equal in at least one band
# Hashes with the same bits in a band are sorted, and each is compared with fewer than this many that follow it.
MAX_OFFSETS = 5_000
MAX_NEIGHBOURS = 8  # the search for a picture in a band stops after this many duplicates
CHUNK_SIZE = 8192  # this many thumbnails are converted to wider numbers at a time
FREQUENCIES = np.arange(1, 9)
COSINES = np.round(4096 * np.cos(np.pi * np.outer(FREQUENCIES, 2 * np.arange(SIDE) + 1) / (2 * SIDE))).astype(np.int64)

Ints = npt.NDArray[np.int64]


def perceptual_hashes(thumbnails: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    """Returns the hashes, bool (n, 64): which of the 64 coefficients of the frequencies 1 to 8, horizontally and
    vertically, are above their median. Frequency 0 is left out."""
    bits = [np.empty((0, 64), np.bool_)]
    for start in range(0, len(thumbnails), CHUNK_SIZE):
        chunk = thumbnails[start : start + CHUNK_SIZE].reshape(-1, SIDE, SIDE).astype(np.int64)
        coefficients = (COSINES @ chunk @ COSINES.T).reshape(len(chunk), 64)
        bits.append(coefficients > np.sort(coefficients, axis=1)[:, [31]])
    return np.concatenate(bits)


def distances(thumbnails: npt.NDArray[np.int8], left: Ints, right: Ints) -> npt.NDArray[np.float64]:
    """Returns 1 - correlation of the thumbnails `left` and `right`: 0 if they are equal, 1 if they are uncorrelated.

    The mean of each thumbnail is 0 already. The sums are exact in float32.
    """
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
    """Returns the near-duplicate pairs as an (m, 2) array of positions, lower position first, rows sorted, and their
    distances. `thumbnails` is (n, 256); none may be constant.

    The search compares only hashes that are equal in one of 7 bands of bits, because two hashes that differ in at most
    6 bits are equal in at least one band (pigeonhole principle). If more than MAX_OFFSETS hashes have the same value in
    a band, each is compared only with the next ones in sorted order. If a picture has more than MAX_NEIGHBOURS
    duplicates in a band, the other duplicates are linked to it through their neighbours.
    """
    chunks: list[tuple[Ints, Ints, npt.NDArray[np.float64]]] = []
    bits = perceptual_hashes(thumbnails)
    hashes = np.packbits(bits, axis=1).view(np.uint64).ravel()
    for band in range(BANDS):
        band_values = bits[:, band::BANDS] @ (1 << np.arange(len(range(band, 64, BANDS))))
        order = np.lexsort((hashes, band_values))
        ends = np.searchsorted(band_values[order], band_values[order], side="right")
        left, n_found = np.arange(len(order)), np.zeros(len(order), np.int64)
        for offset in range(1, MAX_OFFSETS):
            left = left[(left + offset < ends[left]) & (n_found[left] < MAX_NEIGHBOURS)]
            if not len(left):
                break
            n_differing_bits = np.bitwise_count(hashes[order[left]] ^ hashes[order[left + offset]])
            candidates = left[n_differing_bits <= MAX_DIFFERING_BITS]
            if len(candidates):
                candidate_distances = distances(thumbnails, order[candidates], order[candidates + offset])
                is_close = candidate_distances <= max_distance
                duplicates = candidates[is_close]
                n_found[duplicates] += 1
                chunks.append((order[duplicates], order[duplicates + offset], candidate_distances[is_close]))
    if not chunks:
        return np.empty((0, 2), np.int64), np.empty(0)
    left, right, pair_distances = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    pairs, positions = np.unique(np.sort(np.stack([left, right], axis=1), axis=1), axis=0, return_index=True)
    return pairs, pair_distances[positions]
