"""Weighted boxes fusion: several answers to "where is it?" made one.

Source: Solovyev, Wang and Gabruseva, "Weighted boxes fusion", Image and Vision Computing 107, 2021, arXiv 1910.13302,
as the package ensemble-boxes 1.0.9 computes it with equal weights of the models and `conf_type="avg"`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compression.zooming.boxes import Finding, area, overlap


@dataclass
class _Cluster:
    """Findings that are taken for one thing, and the box that stands for them."""

    members: list[Finding]
    fused: Finding

    def add(self, finding: Finding) -> None:
        """Let a finding join: edges become the mean weighted by confidence, confidence the plain mean."""
        self.members.append(finding)
        total = sum(one.confidence for one in self.members)
        left, top, right, bottom = (
            sum(one.confidence * one.box[edge] for one in self.members) / total for edge in range(4)
        )
        self.fused = Finding((left, top, right, bottom), finding.label, total / len(self.members))


def fuse(rollouts: Sequence[Sequence[Finding]], threshold: float = 0.5) -> list[Finding]:
    """One finding for each thing that any of the rollouts saw, the most confident first.

    Findings are taken by falling confidence. Each joins the cluster of its label whose fused box it overlaps most, if
    that is strictly more than the threshold, and starts a cluster otherwise. In the end a confidence is multiplied by
    min(members, rollouts) / rollouts: where a model gives none and 1 is used, it is the share of rollouts that saw it.

    Equal confidences keep their order, first rollouts first; the package leaves that to its sort.

    Args:
        rollouts: What each attempt found, in any one system of coordinates: overlaps do not depend on it. Findings
            without area or confidence are passed over.
        threshold: Intersection over union in [0, 1).
    """
    found = [one for rollout in rollouts for one in rollout if area(one.box) > 0 and one.confidence > 0]
    clusters: list[_Cluster] = []
    for finding in sorted(found, key=lambda one: -one.confidence):
        best, most = None, threshold
        for cluster in clusters:
            if cluster.fused.label == finding.label and (shared := overlap(cluster.fused.box, finding.box)) > most:
                best, most = cluster, shared
        if best is None:
            clusters.append(_Cluster([finding], finding))
        else:
            best.add(finding)
    fused = [
        Finding(
            one.fused.box,
            one.fused.label,
            one.fused.confidence * min(len(one.members), len(rollouts)) / len(rollouts),
        )
        for one in clusters
    ]
    return sorted(fused, key=lambda one: -one.confidence)
