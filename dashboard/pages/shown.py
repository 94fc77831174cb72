"""A stored comparison as the pieces of the page: no model is asked, so any link opens tomorrow as it did today."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import urlencode

from markupsafe import Markup

from compression.compressor import Budget
from compression.errors import StrategyError
from compression.strategies import CATALOGUE
from dashboard.context import Context
from dashboard.facts import RunFacts, facts_of
from dashboard.ground import image_words
from dashboard.markup import EMPTY, button, join
from dashboard.messages import sentence
from dashboard.panes import title_of
from dashboard.results import PaneView, results
from dashboard.tables import Numbered, numbers_table, turns_tables
from dashboard.visitors import read_id
from storage import Comparison, ComparisonNotFound, JobRow, NotFound, Store

MAP_STATE = ("layer", "depth", "view", "token")


@dataclass(frozen=True)
class Shown:
    """One comparison, ready to be printed.

    Args:
        comparison: The stored comparison.
        panes: One view per pane.
        rows: The numbers of the panes that have a run.
    """

    comparison: Comparison
    panes: tuple[PaneView, ...]
    rows: tuple[Numbered, ...]

    @property
    def is_over(self) -> bool:
        """Whether no pane waits or runs."""
        return all(pane.state not in ("waiting", "running") for pane in self.panes)

    @property
    def signature(self) -> str:
        """Changes when a pane changes, and only then."""
        return self.comparison.id + "".join(pane.state[:2] for pane in self.panes)


def load(context: Context, comparison_id: str) -> Shown:
    """A stored comparison with the numbers of its runs. Whoever knows the id may see it: that is what a link shares.

    Raises:
        ComparisonNotFound: there is none.
    """
    comparison = context.store.comparison(read_id(comparison_id, ComparisonNotFound))
    facts = {pane.run: _facts(context.store, pane.run) for pane in comparison.panes if pane.run is not None}
    total = next((found.total for found in facts.values() if found is not None), None)
    panes = []
    for pane in comparison.panes:
        found = facts.get(pane.run) if pane.run is not None else None
        info = CATALOGUE.info_of(pane.strategy)
        state = pane.state if found is not None or pane.state != "done" else "deleted"
        reason = pane.reason if state != "deleted" else "This run was deleted."
        panes.append(
            PaneView(
                title_of(pane.strategy),
                pane.strategy,
                state,
                total,
                _asked(pane.strategy, total),
                found,
                info,
                reason,
                pane.lowest,
            )
        )
    rows = tuple(
        Numbered(position, pane.title, pane.facts) for position, pane in enumerate(panes) if pane.facts is not None
    )
    return Shown(comparison, tuple(panes), rows)


def _facts(store: Store, run_id: str) -> RunFacts | None:
    """A run never changes, so its numbers are read once; a deleted one has none."""
    try:
        store.summary(run_id)
    except NotFound:
        return None
    return _read_facts(store, run_id)


@lru_cache(maxsize=512)
def _read_facts(store: Store, run_id: str) -> RunFacts:
    return facts_of(store.get(run_id))


def _asked(strategy: str, total: int | None) -> int | None:
    text = CATALOGUE.split(strategy)[-1].partition("@")[2]
    if not text or total is None:
        return None
    try:
        return Budget.parse(text).tokens(total)
    except StrategyError:
        return None


# ---------------------------------------------------------------------- pieces
def title(shown: Shown) -> Markup:
    """The question, the image's facts, the expected answer, and the link."""
    comparison = shown.comparison
    words = image_words(comparison.image)
    if comparison.expected:
        words.append(f"expected: {comparison.expected}")
    facts = join(Markup("<span>{}</span>").format(word) for word in words)
    link = Markup(
        '<button type="button" class="secondary" data-km="copy" data-comparison="{}">Copy link</button>'
    ).format(comparison.id)
    sample = Markup('<span class="label plain">sample</span>') if comparison.is_sample else EMPTY
    return Markup('<div class="title"><div><h1>{}</h1><p>{}</p></div><div class="acts">{}{}</div></div>{}').format(
        comparison.question, facts, sample, link, notices(shown)
    )


def common_notices(shown: Shown) -> tuple[str, ...]:
    """Sentences that hold for every pane, each once."""
    own = [set(row.facts.notices) for row in shown.rows]
    in_all = [note for note in (shown.rows[0].facts.notices if shown.rows else ()) if all(note in said for said in own)]
    return tuple(dict.fromkeys((*shown.comparison.notices, *in_all)))


def notices(shown: Shown) -> Markup:
    """What holds for all panes, above the maps."""
    said = common_notices(shown)
    if not said:
        return EMPTY
    return Markup('<ul class="said-of-all">{}</ul>').format(
        join(Markup("<li>{}</li>").format(sentence(note)) for note in said)
    )


def maps(shown: Shown, state: Mapping[str, str] | None = None) -> Markup:
    """The frame that holds all panes; its address changes only with the comparison, so that the view is kept."""
    asked = {name: value for name, value in (state or {}).items() if name in MAP_STATE and value}
    query = f"?{urlencode(asked)}" if asked else ""
    letters = ", ".join(pane.title for pane in shown.panes)
    return Markup(
        '<section id="the-maps" aria-label="Maps, synchronised" tabindex="-1"><iframe id="maps-frame" title="Maps of '
        '{}" src="/maps/{}{}" '
        'loading="eager"></iframe></section>'
    ).format(letters, shown.comparison.id, query)


def result_grid(shown: Shown) -> Markup:
    """The results under the maps; what was said above for all panes is not said again."""
    said = set(common_notices(shown))
    return results([_without(pane, said) for pane in shown.panes])


def _without(pane: PaneView, said: set[str]) -> PaneView:
    if pane.facts is None or not said:
        return pane
    return replace(
        pane, facts=replace(pane.facts, notices=tuple(note for note in pane.facts.notices if note not in said))
    )


def numbers_head(shown: Shown) -> Markup:
    """The heading of charts and table, with the download."""
    return Markup(
        '<header class="numbers-head"><h2>Numbers</h2><div class="right"><a class="secondary" download '
        'href="/comparisons/{}/numbers.csv">'
        "Download CSV</a></div></header>"
    ).format(shown.comparison.id)


def chart_head(heading: str, text: str) -> Markup:
    """The heading over one chart."""
    return Markup('<div class="chart-head"><h3>{}</h3><p>{}</p></div>').format(heading, text)


def ringed(shown: Shown) -> str:
    """What the ring in the probability chart means."""
    expected = shown.comparison.expected
    ring = f"Ringed: the expected answer, {expected}." if expected else "The expected answer is not known."
    return f"{ring} Marks that would cover each other stand side by side."


def numbers(shown: Shown) -> Markup:
    """The table, and what each zoom did turn by turn."""
    return numbers_table(shown.rows) + turns_tables(shown.rows)


def foot(context: Context, shown: Shown) -> Markup:
    """Where the numbers are kept and what they came from."""
    first = shown.rows[0].facts
    runs = "1 run" if len(shown.rows) == 1 else f"{len(shown.rows)} runs"
    seeds = sorted({row.facts.seed for row in shown.rows})
    words = [
        f"Stored in {context.settings.store_name}, {runs}",
        f"Model {first.model}",
        f"Weights sha256 {first.revision[:4]}…{first.revision[-4:]}"
        if len(first.revision) > 12
        else f"Weights {first.revision}",
        f"Seed {', '.join(map(str, seeds))}",
        shown.comparison.created_utc.replace("T", " ").replace("Z", " UTC"),
    ]
    return Markup('<footer class="foot num">{}</footer>').format(
        join(Markup("<span>{}</span>").format(word) for word in words)
    )


def job_line(shown: Shown | None, job: JobRow, elapsed: float | None, before: int) -> Markup:
    """What the work is doing, how far it is, and the button that stops it."""
    if job.state == "queued":
        first = "Waiting"
        rest = f"{before} before this one" if before else "next in the queue"
    else:
        done = sum(pane.state not in ("waiting", "running") for pane in shown.panes) if shown else 0
        number = len(shown.panes) if shown else 0
        first = f"{min(done + 1, number)} of {number} strategies" if number else "Running"
        rest = job.message
    share = round(100 * job.progress)
    return Markup(
        '<div class="job" role="status"><span class="t"><b>{}</b>, {}</span><div class="bar" role="progressbar" '
        'aria-valuenow="{}" '
        'aria-valuemin="0" aria-valuemax="100" aria-label="Comparison"><i style="width:{}%"></i></div><span class="t '
        'num" aria-hidden="true">{}</span>{}</div>'
    ).format(first, rest, share, share, f"{elapsed:.1f} s" if elapsed is not None else "", button("Cancel", "cancel"))


def empty(context: Context, sample: int, ready: Sequence[str]) -> Markup:
    """What stands before anything is asked: the three things to do, and the chosen scene."""
    chosen = context.samples[sample]
    side = chosen.scene.size
    across = side * chosen.scene.metres_per_pixel
    return _empty(
        chosen.name, f"/samples/{sample}.png", f"{chosen.name}, {side} × {side} px, {across:.0f} m across", ready
    )


def empty_own(name: str, digest: str, ready: Sequence[str]) -> Markup:
    """The same with an own image."""
    return _empty(name, f"/uploads/{digest}.png", name, ready)


def _empty(name: str, source: str, caption: str, ready: Sequence[str]) -> Markup:
    steps = (
        ("Image", name, ""),
        ("Question", "chosen" if "question" in ready else "", "choose one for this image, or write your own"),
        ("Strategies", "chosen" if "strategies" in ready else "", "2 to 4, each with a budget"),
    )
    items = join(
        Markup('<li class="{}"><span>{}</span>{}<small>{}</small></li>').format(
            "done" if done else "", position, step, f"✓ {done}" if done else todo
        )
        for position, (step, done, todo) in enumerate(steps, 1)
    )
    return Markup(
        '<div class="empty"><div><h1>Compare what each strategy keeps</h1><p>Choose an image, ask a question about '
        "it, and pick two to four "
        "strategies. The maps appear here, side by side, with the answer each strategy leads to.</p><ol>{}</ol></div>"
        '<figure><img alt="{}, the chosen image" src="{}" width="256" height="256"><figcaption>{}</figcaption>'
        "</figure></div>"
    ).format(items, name, source, caption)
