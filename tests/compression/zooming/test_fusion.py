from __future__ import annotations

import numpy as np
import pytest

from compression.zooming.boxes import Finding
from compression.zooming.fusion import fuse


def iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (both - width * height)


def slow_fusion(rollouts, threshold):
    """The rules of ensemble-boxes 1.0.9 in the order of its description, with rows (label, confidence, box)."""
    rows = []
    for rollout in rollouts:
        for one in rollout:
            rows.append((one.label, one.confidence, one.box))
    rows.sort(key=lambda row: row[1], reverse=True)  # Python's sort is stable in reverse as well
    clusters, fused = [], []
    for row in rows:
        best, best_iou = -1, threshold
        for place, other in enumerate(fused):
            if other[0] != row[0]:
                continue
            value = iou(other[2], row[2])
            if value > best_iou:
                best, best_iou = place, value
        if best == -1:
            clusters.append([row])
            fused.append(row)
            continue
        clusters[best].append(row)
        weight = sum(member[1] for member in clusters[best])
        box = []
        for edge in range(4):
            box.append(sum(member[1] * member[2][edge] for member in clusters[best]) / weight)
        fused[best] = (row[0], weight / len(clusters[best]), tuple(box))
    rescaled = []
    for members, (label, confidence, box) in zip(clusters, fused, strict=True):
        rescaled.append((label, confidence * min(len(rollouts), len(members)) / len(rollouts), box))
    rescaled.sort(key=lambda row: row[1], reverse=True)
    return rescaled


def drawn(seed, rollouts=8, each=6):
    """Boxes that scatter around three places, as those of a model that is asked again and again."""
    draw = np.random.default_rng(seed)
    places = np.array([[100, 100], [130, 110], [300, 200]])
    made = []
    for _ in range(rollouts):
        rollout = []
        for _ in range(each):
            x, y = places[draw.integers(3)] + draw.normal(0, 8, 2)
            width, height = draw.uniform(30, 60, 2)
            label = ("car", "ship")[draw.integers(2)]
            rollout.append(Finding((x, y, x + width, y + height), label, float(draw.choice([0.25, 0.5, 1.0]))))
        made.append(rollout)
    return made


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8])
def test_fusion_agrees_with_the_slow_reference(seed, threshold):
    rollouts = drawn(seed)
    found = fuse(rollouts, threshold)
    expected = slow_fusion(rollouts, threshold)
    assert [one.label for one in found] == [row[0] for row in expected]
    np.testing.assert_allclose([one.confidence for one in found], [row[1] for row in expected])
    np.testing.assert_allclose([one.box for one in found], [row[2] for row in expected])


def test_a_case_by_hand():
    # IoU of the first two is 80 / 120 = 2/3 > 1/2: one cluster, edges weighted 3 : 1.
    first = [Finding((0, 0, 10, 10), "", 0.75)]
    second = [Finding((2, 0, 12, 10), "", 0.25), Finding((50, 50, 60, 60), "", 0.5)]
    found = fuse([first, second], 0.5)
    assert found == [
        Finding((0.5, 0, 10.5, 10), "", 0.5),  # mean of 0.75 and 0.25, seen by two of two
        Finding((50, 50, 60, 60), "", 0.25),  # 0.5, seen by one of two
    ]


def test_without_confidences_the_result_is_the_share_of_rollouts_that_saw_it():
    box = Finding((0, 0, 10, 10))
    assert [one.confidence for one in fuse([[box], [box], [], [box]])] == [0.75]


def test_a_rollout_that_repeats_itself_does_not_count_beyond_all_of_them():
    box = Finding((0, 0, 10, 10))
    assert [one.confidence for one in fuse([[box] * 5, []])] == [1.0]


def test_an_overlap_of_exactly_the_threshold_does_not_join():
    # Sharing 10 of 20 + 10 - 10 square pixels is one half.
    wide, half = Finding((0, 0, 20, 1)), Finding((0, 0, 10, 1))
    assert len(fuse([[wide], [half]], 0.5)) == 2
    assert len(fuse([[wide], [half]], 0.49)) == 1


def test_labels_keep_boxes_apart():
    assert len(fuse([[Finding((0, 0, 9, 9), "car")], [Finding((0, 0, 9, 9), "ship")]])) == 2


def test_overlaps_do_not_depend_on_the_unit():
    rollouts = drawn(7)
    scaled = [
        [Finding((one.box[0] / 400, one.box[1] / 250, one.box[2] / 400, one.box[3] / 250), one.label, one.confidence)
         for one in rollout]
        for rollout in rollouts
    ]  # fmt: skip
    pixels = np.array([one.box for one in fuse(rollouts)])
    np.testing.assert_allclose(pixels / [400, 250, 400, 250], [one.box for one in fuse(scaled)])


@pytest.mark.parametrize(
    "rollouts",
    [[], [[]], [[], []], [[Finding((5, 5, 5, 9))]], [[Finding((0, 0, 9, 9), "", 0.0)]]],
    ids=["no rollouts", "nothing found", "nothing found twice", "no area", "no confidence"],
)
def test_nothing_to_fuse_gives_nothing(rollouts):
    assert fuse(rollouts) == []


def test_equal_confidences_keep_the_order_of_the_rollouts():
    boxes = [Finding((20.0 * at, 0, 20.0 * at + 9, 9)) for at in range(5)]
    assert [one.box for one in fuse([[boxes[3], boxes[1]], [boxes[4]], [boxes[0], boxes[2]]])] == [
        boxes[at].box for at in (3, 1, 4, 0, 2)
    ]
