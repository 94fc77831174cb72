"""The list of stored runs as a real table: a row per run, its actions as buttons, its link a link."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from dashboard.markup import EMPTY, answer_of, button, join, percent, task_words, verdict
from dashboard.pages.stored import PAGE, Filters, Listed
from dashboard.panes import title_of
from storage import RunSummary

_HEADS = (
    ("", "pick"),
    ("Question and image", "l"),
    ("Strategy", "l"),
    ("Answer", "l"),
    ("Tokens", ""),
    ("Total, ms", ""),
    ("Made", "l"),
    ("", "l acts"),
)


def run_table(listed: Listed, *, local: bool) -> Markup:
    """The page of the list, with what is selected at its foot."""
    if not listed.runs:
        return _nothing(listed.filters)
    heads = join(
        Markup('<th scope="col" class="{}">{}</th>').format(
            kind, name or Markup('<span class="sr">{}</span>').format("Select" if kind == "pick" else "Actions")
        )
        for name, kind in _HEADS
    )
    rows = join(_row(run, local=local) for run in listed.runs)
    return Markup(
        '<div class="tablewrap" tabindex="0" role="region" aria-label="Stored runs"><table class="km-table runs">'
        '<caption class="sr">Stored runs, newest first</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table>'
        "</div>{}"
    ).format(heads, rows, _pager(listed))


def selection_bar() -> Markup:
    """What happens to the runs that are ticked; the page counts them itself."""
    return Markup(
        '<div class="selection" data-none="{0}"><span class="picked" aria-live="polite">{0}</span>'
        '<button type="button" class="secondary" data-act="compare" aria-disabled="true">Show side by side</button>'
        "</div>"
    ).format("Select two to four runs of one image and one question to see them side by side.")


def _row(run: RunSummary, *, local: bool) -> Markup:
    seconds = sum(part or 0.0 for part in (run.encode_seconds, run.compress_seconds, run.prefill_seconds))
    who = f"{title_of(run.strategy)}, {run.question}"
    delete = EMPTY
    if local or not run.is_sample:
        delete = Markup('<span class="sure" hidden>{}{}</span>{}').format(
            Markup(
                '<button type="button" class="quiet danger" data-act="delete" data-run="{}" aria-label="Delete for '
                'good: {}">Delete for good</button>'
            ).format(run.run, who),
            Markup('<button type="button" class="quiet" data-ask="no">Keep</button>'),
            Markup('<button type="button" class="quiet" data-ask="yes" aria-label="Delete: {}">Delete</button>').format(
                who
            ),
        )
    return Markup(
        '<tr><td class="pick"><input type="checkbox" data-run="{run}" aria-label="Select {who}"></td>'
        '<td class="l wide"><a href="/?run={run}" data-act="open" data-run="{run}">{question}</a>'
        "<small>{image}{sample}</small></td>"
        '<td class="l">{title}<small class="mono">{strategy}</small></td>'
        '<td class="l">{answer} {verdict}<small>{task}</small></td>'
        '<td>{kept} of {total}<small>{ratio} kept</small></td><td>{ms}</td><td class="l">{made}<small>{model}</small>'
        "</td>"
        '<td class="l acts">{again}{delete}</td></tr>'
    ).format(
        run=run.run,
        who=who,
        question=run.question,
        image=run.image_name,
        sample=" · sample" if run.is_sample else "",
        title=title_of(run.strategy),
        strategy=run.strategy,
        answer=answer_of(run.answer),
        verdict=verdict(run.is_correct, capital=False),
        task=task_words(run.task) or "free question",
        kept=f"{run.tokens_kept:,}",
        total=f"{run.tokens_total:,}",
        ratio=percent(run.retention_ratio, 0),
        ms=f"{seconds * 1e3:,.1f}",
        made=run.created_utc[:16].replace("T", " "),
        model=run.model,
        again=button("Compare again", "again", quiet=True, run=run.run, label=f"Compare again: {who}"),
        delete=delete,
    )


def _pager(listed: Listed) -> Markup:
    first = listed.filters.page * PAGE
    here = f"{first + 1:,} to {first + len(listed.runs):,} of {listed.count:,} runs" if listed.count > 1 else "1 run"
    back = button("Newer", "page", page=listed.filters.page - 1) if listed.filters.page > 0 else EMPTY
    on = button("Older", "page", page=listed.filters.page + 1) if listed.filters.page + 1 < listed.pages else EMPTY
    return Markup('<div class="pager num"><span>{}</span><span class="acts">{}{}</span></div>').format(here, back, on)


def _nothing(filters: Filters) -> Markup:
    """An empty list says whether it is empty or only narrowed too far."""
    if filters == Filters(page=filters.page):
        return Markup(
            '<div class="none-yet"><b>No runs yet</b><p>Every comparison stores one run per strategy. Make one on '
            "the Compare tab.</p></div>"
        )
    return Markup(
        '<div class="none-yet"><b>No run matches</b><p>Try fewer words, or take a filter away.</p>{}</div>'
    ).format(button("Clear the filters", "clear"))


def choices_of(values: Sequence[str], every: str) -> list[tuple[str, str]]:
    """Entries of a filter: all of them first."""
    return [(every, ""), *((value, value) for value in values)]
