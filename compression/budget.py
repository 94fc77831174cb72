"""Budgets as counts, shared out over views; and the layers before which a cut can be made."""

from __future__ import annotations

from collections.abc import Sequence

from compression.errors import InvalidBudget, InvalidParameter


def split_evenly(budget: int, sizes: Sequence[int]) -> list[int]:
    """Share a budget out over views, the same for each as far as their sizes allow.

    What does not divide goes to evenly spaced views, the first included, so that a budget below the number of views
    still reaches all parts of the image.

    >>> split_evenly(9, [4, 4, 4, 4])
    [3, 2, 2, 2]
    >>> split_evenly(9, [1, 4, 4])
    [1, 4, 4]

    Args:
        budget: Tokens to share out, at most the sum of the sizes.
        sizes: Tokens of each view.

    Raises:
        InvalidBudget: there are fewer tokens than the budget.
    """
    _check_room(budget, sizes)
    counts = [0] * len(sizes)
    while left := budget - sum(counts):
        room = [view for view, size in enumerate(sizes) if counts[view] < size]
        each, rest = divmod(left, len(room))
        spaced = {position * len(room) // rest for position in range(rest)}
        for position, view in enumerate(room):
            counts[view] = min(sizes[view], counts[view] + each + (position in spaced))
    return counts


def split_proportionally(budget: int, sizes: Sequence[int]) -> list[int]:
    """Share a budget out over views by their sizes; what is left goes to the largest remainders, first views first.

    >>> split_proportionally(6, [24, 12])
    [4, 2]

    Raises:
        InvalidBudget: there are fewer tokens than the budget.
    """
    _check_room(budget, sizes)
    total = sum(sizes)
    counts = [budget * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda view: -(budget * sizes[view] % total))
    for view in by_remainder[: budget - sum(counts)]:
        counts[view] += 1
    return counts


def split_over(budget: int, parts: Sequence[slice]) -> list[tuple[slice, int]]:
    """The parts that get a share of the budget, each with its share; see `split_evenly`.

    >>> split_over(2, [slice(0, 4), slice(4, 8), slice(8, 12)])
    [(slice(0, 4, None), 1), (slice(4, 8, None), 1)]

    Raises:
        InvalidBudget: there are fewer tokens than the budget.
    """
    shares = split_evenly(budget, [part.stop - part.start for part in parts])
    return [(part, share) for part, share in zip(parts, shares, strict=True) if share]


def split_by_resolution(budget: int, sizes: Sequence[int]) -> list[int]:
    """Share a budget out over views so that all are read at one resolution: by their sizes.

    A budget below the number of views goes to evenly spaced ones instead, which its remainders would not reach.

    >>> split_by_resolution(6, [24, 12]), split_by_resolution(2, [4, 4, 4, 4])
    ([4, 2], [1, 0, 1, 0])

    Raises:
        InvalidBudget: there are fewer tokens than the budget.
    """
    return split_proportionally(budget, sizes) if budget >= len(sizes) else split_evenly(budget, sizes)


def _check_room(budget: int, sizes: Sequence[int]) -> None:
    if not 0 <= budget <= sum(sizes):
        raise InvalidBudget(f"a budget to share out lies in 0..{sum(sizes)} visual tokens, got {budget}; lower it")


def checked_layer(layer: int, layers: int) -> int:
    """The layer itself when a cut can be made before it: 1..layers-1.

    Raises:
        InvalidParameter: it cannot.
    """
    if not 1 <= layer <= layers - 1:
        raise InvalidParameter(
            f"a cut is made before a layer in 1..{layers - 1} of a language model with {layers} layers, "
            f"got layer {layer}; leave the layer out to have it chosen"
        )
    return layer
