"""The published BATCH estimator, as its authors released it, to compare with; the only file here that needs torch.

Its defects are kept and shown, not repaired: see `BatchEstimate`. For a number to rely on, use `pid.clouds`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from pid.errors import InvalidPosteriors, InvalidSetting
from pid.joint import Array
from pid.posteriors import Posteriors

HIDDEN, EMBEDDING, LAYERS = 32, 10, 3
"""Width, size of a label's vector, and hidden layers after the first."""
LEARNING_RATE = 1e-3
SINKHORN_TOLERANCE, SINKHORN_SWEEPS = 0.01, 500


@dataclass(frozen=True)
class BatchEstimate:
    """What the BATCH estimator reports, with what it leaves out; bits."""

    raw: tuple[float, float, float, float]
    """Redundancy, unique_1, unique_2, synergy before clipping: these sum to `total`."""
    clipped: tuple[float, float, float, float]
    """Atoms as published, negative ones set to 0: these need not sum to anything."""
    information_1: float
    """Average of KL(p(y|x1) ‖ p(y)) with p(y) of the full pass: it contains `spurious_1`."""
    information_2: float
    total: float
    spurious_1: float
    """KL(average p(y|x1) ‖ p(y)): what `information_1` shows although x1 may tell nothing (the unimodal trap)."""
    spurious_2: float
    converged: float
    """Share of the label matrices whose Sinkhorn scaling came within its tolerance. Where the averages of the passes
    differ no matrix has both marginals, and scaling stops at its last sweep."""
    sweeps: float
    """Mean number of sweeps, of at most 500."""
    n: int
    """Samples evaluated: a last batch that is not full is dropped."""
    batch_size: int
    epochs: int
    seed: int
    estimator: str = "batch"

    @property
    def clipping_loss(self) -> float:
        """Bits that clipping adds to the sum of the atoms."""
        return sum(self.clipped) - sum(self.raw)


class Alignment(nn.Module):
    """Two perceptrons that give each sample of a source one vector per label; a label's score is their product."""

    def __init__(self, sizes: tuple[int, int], labels: int) -> None:
        super().__init__()
        self.labels = labels
        self.first, self.second = (self._perceptron(size, labels) for size in sizes)

    @staticmethod
    def _perceptron(size: int, labels: int) -> nn.Sequential:
        layers: list[nn.Module] = [nn.Linear(size, HIDDEN), nn.ReLU()]
        for _ in range(LAYERS):
            layers += [nn.Linear(HIDDEN, HIDDEN), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(HIDDEN, EMBEDDING * labels))

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Scores exp(⟨e1_ay, e2_by⟩/√10) [labels, first, second] with vectors of mean 0 and variance 1."""
        vectors = []
        for network, x in ((self.first, x1), (self.second, x2)):
            raw = network(x).reshape(len(x), self.labels, EMBEDDING)
            spread = raw.std(2, keepdim=True, unbiased=False)
            vectors.append((raw - raw.mean(2, keepdim=True)) / (spread + 1e-8))
        return torch.exp(torch.einsum("aye,bye->yab", *vectors) / EMBEDDING**0.5)


def batch(
    features_1: ArrayLike,
    features_2: ArrayLike,
    p1: ArrayLike,
    p2: ArrayLike,
    p12: ArrayLike,
    *,
    epochs: int = 8,
    batch_size: int = 256,
    seed: int = 0,
) -> BatchEstimate:
    """The BATCH estimator on samples, trained and evaluated on the same ones unless the caller splits them.

    p(y) is the average of p12. An alignment network scores each pair (a, b) of a batch for each label; Sinkhorn sweeps
    scale a label's matrix to columns p(y|x2_b) and rows p(y|x1_a), until the columns are within 0.01 or for 500 sweeps,
    and gradients flow through them. With Q(b|a,y) its normalised rows, the loss is the mean over a of
    Σ_b Σ_y p(y|x1_a) Q(b|a,y) [ln Q(b|a,y) − ln Σ_y' Q(b|a,y') p(y'|x1_a)] = I_Q(Y;X2|X1), and Adam lowers it.
    Then I_Q = loss + I1, redundancy = I1 + I2 − I_Q, unique_1 = I_Q − I2, unique_2 = I_Q − I1, synergy = I12 − I_Q.

    As published: anchored on the first source, dependent on how samples fall into batches, without error bars.
    Source: Liang et al., Quantifying & modeling multimodal interactions, NeurIPS 2023, arXiv:2302.12247, algorithm 1;
    settings of Xiu, Luo, Nakayama, ICLR 2026, arXiv:2603.29676.

    Args:
        features_1: [samples, dim] of the first source, such as the mean over image tokens.
        features_2: [samples, dim] of the second.
        p1: p(y|x1) [samples, labels], all of the same labels.
        p2: p(y|x2).
        p12: p(y|x1,x2).
        epochs: passes of training.
        batch_size: samples of a batch; lowered to the number of samples if there are fewer.
        seed: of weights and batches.

    Raises:
        InvalidPosteriors: arrays that contradict each other, or rows that are no distributions.
        InvalidSetting: fewer than 1 epoch or 2 samples in a batch.
    """
    said = Posteriors.read(p1, p2, p12)
    if not said.offered.all():
        raise InvalidPosteriors(
            "the estimator knows one number of options only; pass the samples of one number at a time"
        )
    if epochs < 1 or batch_size < 2 or len(said) < 2:
        raise InvalidSetting(
            f"{epochs} epochs with batches of {batch_size} of {len(said)} samples are too few; at least 1 epoch and 2 "
            "samples in a batch are needed: 8 and 256 are usual"
        )
    features = [_features(one, len(said)) for one in (features_1, features_2)]
    size = min(batch_size, len(said))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the layers draw their weights from the global generator, which is put back after
        network = Alignment((features[0].shape[1], features[1].shape[1]), said.rows.shape[2])
    rows = torch.from_numpy(said.rows.astype(np.float32))
    draw = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    for _ in range(epochs):
        for chosen in _batches(len(said), size, draw):
            loss, _, _ = _loss(network, features, rows, chosen)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        chosen_all = _batches(len(said), size, draw)
        parts = [_loss(network, features, rows, chosen) for chosen in chosen_all]
    evaluated = said.rows[:, torch.cat(chosen_all).numpy()].reshape(3, -1, said.rows.shape[2])
    labels = said.rows[2].mean(0)
    first, second, both = (_divergence(rows, labels).mean() for rows in evaluated)
    union = float(np.mean([float(loss) for loss, _, _ in parts])) / np.log(2) + first
    raw = (first + second - union, union - second, union - first, both - union)
    one, two = (_divergence(rows.mean(0, keepdims=True), labels)[0] for rows in said.rows[:2])

    def clip(atom: float) -> float:
        return max(0.0, float(atom))

    return BatchEstimate(
        raw=(float(raw[0]), float(raw[1]), float(raw[2]), float(raw[3])),
        clipped=(clip(raw[0]), clip(raw[1]), clip(raw[2]), clip(raw[3])),
        information_1=float(first),
        information_2=float(second),
        total=float(both),
        spurious_1=float(one),
        spurious_2=float(two),
        converged=float(np.mean([share for _, share, _ in parts])),
        sweeps=float(np.mean([sweeps for _, _, sweeps in parts])),
        n=evaluated.shape[1],
        batch_size=size,
        epochs=epochs,
        seed=seed,
    )


def _features(values: ArrayLike, count: int) -> Tensor:
    array = np.array(values, dtype=np.float32)
    if array.ndim != 2 or len(array) != count or not np.isfinite(array).all():
        raise InvalidPosteriors(
            f"features have the shape {array.shape}; they must be finite, [{count}, dim], one row for each sample"
        )
    return torch.from_numpy(array)


def _batches(count: int, size: int, draw: torch.Generator) -> list[Tensor]:
    """Places of the samples of each batch, shuffled; a last one that is not full is dropped, as published."""
    order = torch.randperm(count, generator=draw)
    return [order[start : start + size] for start in range(0, count - size + 1, size)]


def _loss(network: nn.Module, features: list[Tensor], rows: Tensor, chosen: Tensor) -> tuple[Tensor, float, float]:
    """I_Q(Y;X2|X1) in nats of one batch, the share of label matrices that converged, and the sweeps."""
    p1, p2 = rows[0][chosen], rows[1][chosen]
    scores = network(features[0][chosen], features[1][chosen])
    scaled, converged, sweeps = sinkhorn(scores, p1.T, p2.T)
    given = scaled / scaled.sum(2, keepdim=True).clamp_min(1e-30)
    mixture = torch.einsum("yab,ay->ab", given, p1)
    terms = given * (torch.log(given.clamp_min(1e-30)) - torch.log(mixture.clamp_min(1e-30)))
    return torch.einsum("yab,ay->", terms, p1) / len(chosen), converged, sweeps


def sinkhorn(matrices: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, float, float]:
    """Matrices [labels, first, second] scaled in turn to the columns and to the rows, each [labels, samples].

    Returns them with the share of labels whose columns end within 0.01 of what they should be, and the sweeps done.
    """
    sweeps, off = 0, torch.full((len(matrices),), float("inf"))
    while sweeps < SINKHORN_SWEEPS and bool((off > SINKHORN_TOLERANCE).any()):
        matrices = matrices * (columns / matrices.sum(1).clamp_min(1e-30))[:, None, :]
        matrices = matrices * (rows / matrices.sum(2).clamp_min(1e-30))[:, :, None]
        off = (matrices.detach().sum(1) - columns).abs().amax(1)
        sweeps += 1
    return matrices, float((off <= SINKHORN_TOLERANCE).double().mean()), float(sweeps)


def _divergence(rows: Array, labels: Array) -> Array:
    """KL(row ‖ labels) in bits of rows [samples, labels]; infinite where a row has what the labels have not."""
    with np.errstate(divide="ignore"):
        ratio = np.where(rows > 0, rows, 1.0) / np.where((rows > 0), labels, 1.0)
    return np.asarray((rows * np.log2(ratio)).sum(1))
