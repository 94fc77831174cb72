"""What stands under the maps: one column per pane, escaped, with every number and its unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from compression.backends.base import Seconds
from compression.compressor import StrategyInfo
from dashboard.facts import RunFacts, shown_layer
from dashboard.markup import EMPTY, LETTERS, count, flops, join, key, milliseconds, percent, size_of, verdict
from dashboard.messages import sentence

_NONE = Markup('<span class="none">none</span>')
_LOUD = ("reconstruction", "fallback", "out of domain", "out-of-domain", "untrained", "random weights")


@dataclass(frozen=True)
class PaneView:
    """One pane as the page shows it.

    Args:
        title: The strategy's name for people.
        strategy: Canonical text.
        state: waiting, running, done, refused, failed, cancelled or deleted.
        total: Visual tokens of the image, None where not known yet.
        asked: Budget in visual tokens that was asked for, None where the router chooses or not known yet.
        facts: The run's numbers once there is one.
        info: The strategy's declaration, None where this installation does not know it.
        reason, lowest: Why there is no run, and the smallest reachable budget.
    """

    title: str
    strategy: str
    state: str
    total: int | None = None
    asked: int | None = None
    facts: RunFacts | None = None
    info: StrategyInfo | None = None
    reason: str = ""
    lowest: int | None = None


@dataclass(frozen=True)
class _Reference:
    """The pane that keeps everything, against which savings are counted."""

    letter: str
    facts: RunFacts


def results(panes: Sequence[PaneView]) -> Markup:
    """The grid of results; rows align over the panes, so that reading across is the comparison."""
    layer = shown_layer([pane.facts for pane in panes if pane.facts])
    whole = [
        _Reference(LETTERS[position], pane.facts)
        for position, pane in enumerate(panes)
        if pane.facts is not None and pane.info is not None and pane.info.reduces == "nothing"
    ]
    columns = join(_column(position, pane, layer, next(iter(whole), None)) for position, pane in enumerate(panes))
    return Markup('<section aria-label="Results"><div class="plates km-results" data-n="{}">{}</div></section>').format(
        len(panes), columns
    )


def budget_words(pane: PaneView) -> str:
    """How many tokens a pane has, in words: "64 of 256 tokens"."""
    facts = pane.facts
    if facts is not None:
        if facts.outputs == facts.total and facts.realised == facts.total:
            return f"all {facts.total:,} tokens"
        return f"{count(round(facts.realised, 1))} of {facts.total:,} tokens"
    if pane.asked is not None and pane.total is not None:
        return f"{pane.asked:,} of {pane.total:,} asked"
    return pane.info.without_budget if pane.info is not None and pane.info.adaptive else ""


def _column(position: int, pane: PaneView, layer: int | None, reference: _Reference | None) -> Markup:
    facts = pane.facts
    head = Markup('<div class="cap">{}<b>{}</b><span class="n num">{}</span></div>').format(
        key(position), pane.title, budget_words(pane)
    )
    if facts is None:
        return Markup('<article class="res" data-state="{}">{}{}</article>').format(pane.state, head, _missing(pane))
    parts = [
        head,
        _fates(facts),
        _answer(facts),
        _probabilities(facts),
        _facts(facts, layer, None if reference is not None and reference.facts is facts else reference),
        _labels(facts, pane.info),
        _provenance(facts),
    ]
    return Markup('<article class="res" data-state="done">{}</article>').format(join(parts))


def _missing(pane: PaneView) -> Markup:
    """What stands where a result will be, or why there is none."""
    if pane.state in ("waiting", "running"):
        widths = ("100%", "45%", "80%", "64%")
        ghosts = join(Markup('<div class="ghost" style="width:{}"></div>').format(width) for width in widths)
        word = "Waiting for its turn" if pane.state == "waiting" else "Running"
        return Markup('<div class="pending"><span class="sr">{}</span>{}</div>').format(word, ghosts)
    where = "the reason stands in its place among the maps."
    words = {"refused": f"It was refused; {where}", "failed": f"It failed; {where}"}
    return Markup('<div class="why"><b>No result</b><p>{}</p><span class="mono">{}</span></div>').format(
        words.get(pane.state, pane.reason or "There is none."), pane.strategy
    )


def _fates(facts: RunFacts) -> Markup:
    """The bar in the map's three textures, and the counts in words."""
    parts = [
        (name, number) for name, number in (("k", facts.kept), ("m", facts.merged), ("d", facts.dropped)) if number
    ]
    bar = join(Markup('<i class="{}" style="flex:{}"></i>').format(name, number) for name, number in parts)
    words = f"{facts.kept:,} kept, {facts.merged:,} merged, {facts.dropped:,} dropped"
    return Markup(
        '<div class="fates"><div class="fbar" role="img" aria-label="{}">{}</div><div class="fwords">'
        "<span><b>{}</b> kept</span><span><b>{}</b> merged</span><span><b>{}</b> dropped</span></div></div>"
    ).format(words, bar, f"{facts.kept:,}", f"{facts.merged:,}", f"{facts.dropped:,}")


def _answer(facts: RunFacts) -> Markup:
    said = []
    if facts.is_correct is False and facts.expected:
        said.append(f"expected {facts.expected}")
    said.append(f"choice mass {percent(facts.choice_mass)}")
    return Markup('<div class="ans"><strong>{}</strong>{}</div><div class="sub num">{}</div>').format(
        facts.answer or "no answer", verdict(facts.is_correct), ", ".join(said)
    )


def _probabilities(facts: RunFacts) -> Markup:
    """One bar per choice; the answer in bold, the expected one with a tick and a word for readers who cannot see it."""
    rows = []
    for choice, probability in zip(facts.choices, facts.probabilities, strict=True):
        tick = Markup(
            '<span class="exp" title="expected answer"><span aria-hidden="true">✓</span><span class="sr">, '
            "expected</span></span>"
        )
        rows.append(
            Markup(
                '<span class="w{}">{}{}</span><span class="b"><i style="width:{}%"></i></span><span class="p">{}</span>'
            ).format(
                " top" if choice == facts.answer else "",
                choice,
                tick if facts.is_expected(choice) else EMPTY,
                f"{probability * 100:.2f}",
                percent(probability),
            )
        )
    return Markup('<div class="probs">{}</div>').format(join(rows))


def _row(name: str, value: Markup) -> Markup:
    return Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name, value)


def _facts(facts: RunFacts, layer: int | None, reference: _Reference | None) -> Markup:
    cost = facts.cost
    whole = reference.facts.cost if reference else None
    than = f" than {reference.letter}" if reference else ""
    small = Markup("{} <small>{}</small>")
    rows = [
        _row("Evidence", _evidence(facts)),
        _row("Attention", _attention(facts, layer)),
        _row("Router", _router(facts)),
        _row("Compress", _time(cost.compress)),
        _row("Prefill", _time(cost.prefill)),
        _row(
            "Decode",
            _NONE if cost.decode is None else small.format(f"{milliseconds(cost.decode.median)} ms", "per step"),
        ),
        _row(
            "Total",
            small.format(
                f"{milliseconds(cost.total_seconds)} ms",
                "with encoding" + saved(cost.total_seconds, whole.total_seconds if whole else None, than),
            ),
        ),
        _row(
            "FLOPs",
            small.format(
                flops(cost.prefill_flops),
                "estimated" + saved(cost.prefill_flops, whole.prefill_flops if whole else None),
            ),
        ),
        _row(
            "KV cache",
            small.format(
                size_of(cost.kv_cache_bytes),
                saved(cost.kv_cache_bytes, whole.kv_cache_bytes if whole else None).lstrip(", "),
            ),
        ),
        _row(
            "Peak memory",
            _NONE
            if cost.peak_memory_bytes is None
            else small.format(size_of(cost.peak_memory_bytes), _where(cost.device)),
        ),
    ]
    return Markup('<dl class="facts num">{}</dl>').format(join(rows))


def saved(value: float, whole: float | None, than: str = "") -> str:
    """How much less a value is than the whole, as the end of a phrase; "" where there is nothing to compare.

    >>> saved(20, 100, " than A"), saved(110, 100), saved(1, None)
    (', 80 % less than A', ', 10 % more', '')
    """
    if not whole:
        return ""
    share = round(100 * (1 - value / whole))
    return f", {abs(share)} % {'more' if share < 0 else 'less'}{than}"


def _where(device: str) -> str:
    return "of the process" if device == "cpu" else "on the device"


def _evidence(facts: RunFacts) -> Markup:
    if facts.evidence is None or facts.evidence_kept is None:
        return Markup('<span class="none">not known</span>')
    if facts.turns and facts.evidence_recall is not None:
        return Markup("{} shown at full resolution").format(percent(facts.evidence_recall, 0))
    text = f"{facts.evidence_kept:,} of {facts.evidence:,} {'patch' if facts.evidence == 1 else 'patches'} kept"
    text += " or merged" if facts.merged else ""
    return Markup("{}").format(text) if facts.evidence_kept == facts.evidence else Markup("<b>{}</b>").format(text)


def _attention(facts: RunFacts, layer: int | None) -> Markup:
    if layer is None or not facts.image_share:
        return Markup('<span class="none">not recorded</span>')
    return Markup("{} on the image <small>layer {}</small>").format(percent(facts.image_share[layer], 0), layer + 1)


def _router(facts: RunFacts) -> Markup:
    router, streams = facts.router, facts.streams
    if router is None:
        return _NONE
    words = {"rule": "by rule", "trained": "trained", "asked": "asked"}
    text = Markup("<span{}>λ {} <small>{}</small>, ρ {} <small>{}</small></span>").format(
        Markup(' title="{}"').format(router.reason) if router.reason else EMPTY,
        f"{router.lam:.2f}",
        words.get(router.source, router.source),
        f"{router.rho:.2f}",
        words.get(router.rho_source, router.rho_source),
    )
    if streams is None:
        return text
    split = f"{streams.semantic:,} semantic, {streams.geometric:,} geometric"
    both = Markup("<br><small>{}</small>").format(
        f"{streams.both:,} {'patch is' if streams.both == 1 else 'patches are'} in both"
    )
    return Markup(
        '{}<span class="split" role="img" aria-label="{}"><i class="s" style="flex:{}"></i><i class="g" '
        'style="flex:{}"></i></span>{}{}'
    ).format(text, split, streams.semantic, streams.geometric, split, both if streams.both else EMPTY)


def _time(seconds: Seconds | None) -> Markup:
    if seconds is None:
        return _NONE
    if seconds.repeats < 2:
        return Markup("{} ms").format(milliseconds(seconds.median))
    return Markup("{} ms <small>{} to {}</small>").format(
        *(milliseconds(value) for value in (seconds.median, seconds.low, seconds.high))
    )


def label_words(facts: RunFacts, info: StrategyInfo | None) -> list[str]:
    """The run's labels, and what follows from its declaration; each once."""
    words = list(facts.labels)
    if info is not None and info.reduces == "nothing":
        words.append("reference")
    elif info is not None and info.ignores_image:
        words.append("ignores the image")
    if any("router" in word for word in words):  # runs of earlier versions said it twice, or before it was known
        words = [word for word in words if word != "rule router"]
    return list(dict.fromkeys(words))


def _labels(facts: RunFacts, info: StrategyInfo | None) -> Markup:
    chips = join(
        Markup('<span class="label{}">{}</span>').format(
            "" if any(loud in word.lower() for loud in _LOUD) else " plain", word
        )
        for word in label_words(facts, info)
    )
    said = join(Markup('<p class="said">{}</p>').format(sentence(note)) for note in facts.notices)
    return Markup('<div class="labels">{}{}</div>').format(chips, said)


def _provenance(facts: RunFacts) -> Markup:
    return Markup(
        '<div class="prov"><span class="mono">{}</span><br>run <a href="/?run={}" class="mono">{}</a></div>'
    ).format(facts.strategy, facts.run, facts.run[:8])
