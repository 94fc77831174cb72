"""The `keepmap` command. Heavy libraries are imported inside the verbs, so that help and mistakes answer at once."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

EXIT_FAILED = 1
EXIT_MISTAKE = 2
TO_RECORD = ("attention", "router", "scores")


class Mistake(Exception):
    """Something that the user can mend: one line, exit code 2."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_MISTAKE, f"keepmap: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """The verbs that work in this version, each with an example."""
    parser = _Parser(
        prog="keepmap",
        description="See what a compressed vision-language model keeps.",
        epilog="Without a verb, the dashboard opens. Example: keepmap --port 8000",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)

    def verb(name: str, summary: str, example: str) -> argparse.ArgumentParser:
        return verbs.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=f"Example: {example}"
        )

    serve = verb("serve", "open the dashboard", "keepmap serve --port 8000 --db sqlite:///paper.db")
    for options in (parser, serve):
        _add_server_options(options)

    run = verb(
        "run",
        "run strategies on one image and question, and store the runs",
        'keepmap run scene.tif "How many ships are there?" -s identity -s dualcomp@0.25 -s fastv@96',
    )
    run.add_argument("image", metavar="IMAGE", type=Path, help="PNG, JPEG, WebP, TIFF, GeoTIFF or COG")
    run.add_argument("question", metavar="QUESTION", help="what to ask")
    run.add_argument(
        "-s",
        "--strategy",
        action="append",
        required=True,
        metavar="STRATEGY",
        help="name[:param=value,...][@budget], steps of a plan joined by +; repeat it",
    )
    run.add_argument(
        "--choice", action="append", default=[], metavar="TEXT", help="an answer to choose among; repeat it"
    )
    run.add_argument("--expected", metavar="TEXT", help="the right answer, where it is known")
    run.add_argument(
        "--evidence",
        action="append",
        default=[],
        metavar="L,T,R,B",
        help="a box in pixels that the answer depends on; repeat it",
    )
    run.add_argument("--model", metavar="ID", help="embedded, a checkpoint's folder, or a hub id (default: embedded)")
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where the model runs (default: auto)")
    run.add_argument("--seed", type=int, default=0, help="for strategies that draw at random (default: 0)")
    run.add_argument(
        "--record",
        default=",".join(TO_RECORD),
        metavar="WHAT",
        help="what to record, comma-separated (default: %(default)s)",
    )
    run.add_argument(
        "--repeats", type=int, metavar="N", help="measurements of each time, after one warm-up (default: 3)"
    )
    run.add_argument("--db", metavar="URL", help="the store (default: sqlite:///keepmap.db)")
    run.add_argument("--json", action="store_true", help="print one JSON object instead of a table")

    scenes = verb(
        "scenes",
        "write sample scenes: georeferenced GeoTIFFs and questions.jsonl",
        "keepmap scenes samples --count 8 --seed 0",
    )
    scenes.add_argument("folder", metavar="DIR", type=Path, help="where to write; made if it is not there")
    scenes.add_argument("--count", type=int, default=8, help="number of scenes (default: 8)")
    scenes.add_argument("--seed", type=int, default=0, help="seed of the first scene (default: 0)")
    scenes.add_argument(
        "--size", type=int, default=256, help="edge in pixels, a multiple of 256 up to 8192 (default: 256)"
    )
    scenes.add_argument("--questions", type=int, default=12, metavar="N", help="questions per scene (default: 12)")

    sweep = verb(
        "sweep",
        "run models x strategies x questions from a file into the store, and print accuracies",
        "keepmap sweep families.toml --resume --csv families.csv",
    )
    sweep.add_argument(
        "file",
        metavar="FILE.toml",
        type=Path,
        help='TOML lines such as name = "families", strategies = ["identity", "fastv"], ratios = [0.5, 0.25], and '
        'questions = "FOLDER" with a questions.jsonl, or a table [scenes] with count or per_family, size, seed, '
        "questions; also models, seeds, record, repeats, warmup",
    )
    sweep.add_argument("--engine", default="local", metavar="NAME", help="where it runs: local, this process (default)")
    sweep.add_argument(
        "--resume", action="store_true", help="go on with the sweep of this name: what is missing or failed is run"
    )
    sweep.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where the model runs (default: auto)")
    sweep.add_argument("--db", metavar="URL", help="the store (default: sqlite:///keepmap.db)")
    sweep.add_argument("--json", action="store_true", help="print JSON instead of a table")
    sweep.add_argument("--csv", metavar="FILE", type=Path, help="write the figures to a file as well, one row each")

    told = verb(
        "pid",
        "decompose where the information in answers came from, in bits",
        "keepmap pid --regimes 128 -s identity -s dualcomp@0.25 -s uniform_grid@0.25",
    )
    told.add_argument("--where", default="", metavar="SQL", help="which stored runs, a condition over v_runs")
    told.add_argument(
        "--by", default="strategy,task", metavar="NAMES", help="order of the table: strategy,task or task,strategy"
    )
    told.add_argument(
        "--regimes", type=int, metavar="N", help="ask the embedded benchmark about N pictures instead of stored runs"
    )
    told.add_argument(
        "-s", "--strategy", action="append", default=[], metavar="STRATEGY", help="with --regimes; repeat it"
    )
    told.add_argument(
        "--intervention",
        default="shuffled",
        metavar="NAME",
        help="what stands in for the other source: shuffled, mean, noise, dropped, options_kept (default: %(default)s)",
    )
    told.add_argument(
        "--selection", default="frozen", metavar="NAME", help="frozen, or rerun: decide anew in every pass"
    )
    told.add_argument("--gate", type=float, default=0.3, help="least probability on the choices (default: 0.3)")
    told.add_argument(
        "--partners", type=int, default=8, metavar="N", help="passes per sample when shuffled (default: 8)"
    )
    told.add_argument("--layers", action="store_true", help="read every layer by the logit lens as well")
    told.add_argument("--seed", type=int, default=0, help="of pairs, noise and resampling (default: 0)")
    told.add_argument("--replicates", type=int, default=1000, metavar="N", help="of the bootstrap (default: 1000)")
    told.add_argument("--model", metavar="ID", help="embedded, a checkpoint's folder, or a hub id (default: embedded)")
    told.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where the model runs (default: auto)")
    told.add_argument("--db", metavar="URL", help="the store (default: sqlite:///keepmap.db)")
    told.add_argument("--json", action="store_true", help="print JSON instead of a table")

    for name, summary in (
        ("strategies", "list the strategies"),
        ("models", "list the models that are offered by name"),
    ):
        verb(name, summary, f"keepmap {name} --json").add_argument("--json", action="store_true", help="print JSON")

    train = verb(
        "train-embedded", "train the embedded model anew", "keepmap train-embedded --minutes 60 --output training"
    )
    train.add_argument(
        "--output",
        type=Path,
        default=Path("embedded-training"),
        metavar="DIR",
        help="run folder (default: %(default)s)",
    )
    train.add_argument(
        "--minutes", type=float, metavar="N", help="time to aim for, turned into steps by a measurement at the start"
    )
    train.add_argument(
        "--steps", metavar="V,A,L,P", help="steps of the four stages, as a training log gives them, to repeat a run"
    )
    train.add_argument("--seed", type=int, default=0, help="of weights, scenes and questions (default: 0)")
    train.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to train (default: auto)"
    )
    train.add_argument("--resume", action="store_true", help="go on with the run in DIR")

    doctor = verb("doctor", "say what works here and what does not", "keepmap doctor")
    doctor.add_argument("--db", metavar="URL", help="the store to look at (default: sqlite:///keepmap.db)")
    return parser


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port (default: 7860)")
    parser.add_argument("--db", metavar="URL", help="the store (default: sqlite:///keepmap.db)")
    parser.add_argument("--assets", metavar="DIR", help="folder of the stored images (default: beside the store)")
    parser.add_argument(
        "--model", metavar="ID", help="embedded, a checkpoint's folder, or a hub id (default: embedded)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where the model runs (default: auto)")
    parser.add_argument(
        "--public", action="store_const", const=True, help="many visitors: each sees the own runs and the samples only"
    )
    parser.add_argument("--repeats", type=int, help="measurements of each time (default: 3)")
    parser.add_argument("--queue", type=int, help="comparisons that may wait (default: 16)")
    parser.add_argument(
        "--jobs-per-visitor", type=int, help="comparisons that one visitor may have waiting (default: 2)"
    )
    parser.add_argument("--upload-mb", type=int, help="largest upload in megabytes (default: 512)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0, or 2 for a mistake with one line on stderr."""
    options = build_parser().parse_args(arguments)
    if options.version:
        from analysis.environment import keepmap_version

        print(f"keepmap {keepmap_version()}")
        return 0
    verbs: dict[str | None, Callable[[argparse.Namespace], int]] = {
        None: _serve,
        "serve": _serve,
        "run": _run,
        "scenes": _scenes,
        "sweep": _sweep,
        "pid": _pid,
        "strategies": _strategies,
        "models": _models,
        "train-embedded": _train,
        "doctor": _doctor,
    }
    try:
        _check_seed(getattr(options, "seed", 0))
        return verbs[options.verb](options)
    except KeyboardInterrupt:
        print("keepmap: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not _is_ours(error):
            raise
        print(f"keepmap: {error}", file=sys.stderr)
        return EXIT_MISTAKE


def _check_seed(seed: int) -> None:
    from dashboard.settings import LARGEST_SEED

    if not 0 <= seed <= LARGEST_SEED:
        raise Mistake(f"--seed must be a whole number from 0 to {LARGEST_SEED}, got {seed}")


def _is_ours(error: Exception) -> bool:
    """Whether an error was raised by one of our packages, which say what was wrong and what to do."""
    from analysis.errors import AnalysisError
    from compression.errors import CompressionError
    from dashboard.errors import DashboardError
    from pid.errors import PidError
    from storage.errors import StorageError

    return isinstance(error, Mistake | AnalysisError | CompressionError | DashboardError | PidError | StorageError)


def _settings(options: argparse.Namespace) -> Any:
    from dashboard.settings import Settings

    names = (
        "host",
        "port",
        "db",
        "assets",
        "model",
        "device",
        "public",
        "repeats",
        "queue",
        "jobs_per_visitor",
        "upload_mb",
    )
    return Settings.from_env(
        **{name: getattr(options, name) for name in names if getattr(options, name, None) is not None}
    )


def _serve(options: argparse.Namespace) -> int:
    from dashboard.app import serve

    serve(_settings(options))
    return 0


def _run(options: argparse.Namespace) -> int:
    from analysis.annotations import find_annotation
    from analysis.pipeline import Inquiry, open_image
    from compression.strategies import CATALOGUE

    settings = _settings(options)
    plans = [CATALOGUE.plan(text) for text in options.strategy]
    record = _recorded(options.record)
    image = open_image(options.image)
    known = find_annotation(options.image, options.question)
    inquiry = Inquiry(
        path=options.image,
        image=image,
        question=options.question,
        choices=tuple(options.choice) or (known.choices if known else ()),
        expected=options.expected or (known.answer if known else None),
        evidence=_boxes(options.evidence, image.width, image.height) or (known.evidence if known else ()),
        family=known.family if known else "",
        task=known.task if known else "",
    )
    from compression.backends import load_model

    vlm = load_model(settings.model, device=settings.device)
    prompt = vlm.prompt(inquiry.question, inquiry.choices)
    if options.expected and prompt.choices and options.expected.strip().lower() not in map(str.lower, prompt.choices):
        raise Mistake(
            f"--expected {options.expected!r} is none of the answers to choose among: {', '.join(prompt.choices)}; "
            "write one of them, or add it with --choice"
        )
    for plan in plans:
        vlm.check(plan, vlm.count_tokens((image.height, image.width)), (image.height, image.width))
    from dashboard.batch import run_and_store

    outcomes, comparison = run_and_store(inquiry, plans, vlm, settings, seed=options.seed, record=record)
    runs = [outcome.run for outcome in outcomes if outcome.run]
    from dashboard.messages import sentence
    from dashboard.report import image_json, plain_table, run_json, run_row

    if options.json:
        model = {
            "name": vlm.card.name,
            "family": vlm.card.family,
            "revision": vlm.card.revision,
            "parameters": vlm.card.parameters,
        }
        choices = list(runs[0].request.choices) if runs else list(inquiry.choices)
        print(json.dumps({"image": image_json(image), "question": inquiry.question, "choices": choices, "model": model,
                          "comparison": comparison, "runs": [run_json(run) for run in runs]}, indent=2))  # fmt: skip
    elif runs:
        print(plain_table([run_row(run) for run in runs]))
        for notice in dict.fromkeys(notice for run in runs for notice in run.notices):
            print(f"Note: {sentence(notice)}")
        print(_where_to_find(settings, comparison))
    failed = [outcome for outcome in outcomes if outcome.run is None]
    for outcome in failed:
        print(f"keepmap: {outcome.strategy}: {outcome.reason}", file=sys.stderr)
    return EXIT_MISTAKE if failed else 0


def _where_to_find(settings: Any, comparison: str) -> str:
    """Where the runs are, and the command that shows them; a store in memory ends with the command."""
    import shlex

    from dashboard.settings import Settings

    if settings.is_in_memory:
        return "The store was in memory and is gone; to keep runs, name a file: --db sqlite:///keepmap.db"
    defaults = Settings()
    given = [
        f"--{name} {shlex.quote(getattr(settings, name))}"
        for name in ("db", "assets")
        if getattr(settings, name) != getattr(defaults, name)
    ]
    command = " ".join(["keepmap serve", *given])
    return f"Stored in {settings.store_name}. Open it: {command}, then /?comparison={comparison}"


def _recorded(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in TO_RECORD:
            raise Mistake(f"{name!r} cannot be recorded; choose among {', '.join(TO_RECORD)}")
    return names


def _boxes(texts: Sequence[str], width: int, height: int) -> tuple[tuple[float, float, float, float], ...]:
    from analysis.annotations import as_box

    try:
        boxes = tuple(as_box(text.split(",")) for text in texts)
    except ValueError as error:
        raise Mistake(f"--evidence: {error}; write for example --evidence 32,48,48,64") from error
    for text, (left, top, right, bottom) in zip(texts, boxes, strict=True):
        if left >= width or top >= height or right <= 0 or bottom <= 0:
            raise Mistake(f"--evidence {text} lies outside the image of {width} x {height} pixels; give its own pixels")
    return boxes


def _scenes(options: argparse.Namespace) -> int:
    from compression.backends.embedded.scenes import MAX_SIZE, VIEW

    for name, value in (("--count", options.count), ("--questions", options.questions)):
        if value < 1:
            raise Mistake(f"{name} must be at least 1, got {value}")
    if options.size % VIEW or not VIEW <= options.size <= MAX_SIZE:
        raise Mistake(f"--size must be a multiple of {VIEW} from {VIEW} to {MAX_SIZE}, got {options.size}")
    from dashboard.batch import write_scenes

    try:
        if options.folder.exists() and not options.folder.is_dir():
            raise Mistake(f"{options.folder} is a file; name a folder")
        written = write_scenes(options.folder, options.count, options.seed, options.size, options.questions)
    except OSError as error:
        raise Mistake(
            f"{options.folder} cannot be written: {error.strerror or error}; choose another folder"
        ) from error
    print(f"Wrote {options.count} scenes and {written} questions to {options.folder}")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    if options.engine == "ray":
        raise Mistake("--engine ray is not in this version; leave --engine out to run in this process")
    if options.engine != "local":
        raise Mistake(f"--engine is local, got {options.engine!r}")
    if options.csv and not options.csv.absolute().parent.is_dir():
        raise Mistake(f"--csv {options.csv}: there is no folder {options.csv.parent}; make it, or name another")
    from dashboard.sweep_file import read_sweep

    settings, asked = _settings(options), read_sweep(options.file)
    from dashboard.sweep_table import figures_json, figures_of, sweep_report, write_csv
    from dashboard.sweeping import sweep_and_store
    from storage import open_store

    with open_store(settings.db, assets=settings.assets_path) as store:
        try:
            sweep = sweep_and_store(
                asked,
                settings,
                store,
                resume=options.resume,
                tell=lambda line: print(line, file=sys.stderr, flush=True),
            )
        except KeyboardInterrupt:
            print(
                f"keepmap: stopped; what ended is stored in {settings.store_name}, go on with --resume", file=sys.stderr
            )
            return 130
        requests = store.swept_requests(sweep.sweep)
    figures = figures_of(requests)
    if options.json:
        print(json.dumps({"sweep": asdict(sweep), "figures": figures_json(figures)}, indent=2))
    else:
        print(sweep_report(figures))
        counts = f"{sweep.done:,} done, {sweep.failed:,} failed, {sweep.refused:,} unreachable or not offered"
        print(f"{sweep.planned:,} requests: {counts}. Stored in {settings.store_name} as {sweep.name}")
    if options.csv:
        write_csv(figures, options.csv)
    untold = [one for one in requests if one.state in ("failed", "refused")]
    for strategy, reason in sorted({(one.strategy, one.reason) for one in untold}):
        print(f"keepmap: {strategy}: {reason}", file=sys.stderr)
    return EXIT_FAILED if sweep.failed else 0


def _pid(options: argparse.Namespace) -> int:
    from analysis.beliefs import INTERVENTIONS, SELECTIONS

    for flag, value, allowed in (
        ("--intervention", options.intervention, tuple(INTERVENTIONS)),
        ("--selection", options.selection, tuple(SELECTIONS)),
        ("--by", options.by, ("strategy,task", "task,strategy")),
    ):
        if value not in allowed:
            raise Mistake(f"{flag} is one of {'; '.join(allowed)}, got {value!r}")
    for flag, number, least in (("--partners", options.partners, 2), ("--replicates", options.replicates, 100)):
        if number < least:
            raise Mistake(f"{flag} must be at least {least}, got {number}")
    if not 0 <= options.gate <= 1:
        raise Mistake(f"--gate is a probability from 0 (off) to 1, got {options.gate:g}")
    if options.strategy and options.regimes is None:
        raise Mistake("-s belongs to --regimes; stored runs have their own strategies, --where chooses among them")
    if options.where.strip() and options.regimes is not None:
        raise Mistake("--where chooses among stored runs and --regimes asks the benchmark instead; give one of them")
    from analysis.information import Settings
    from dashboard.report import spectra_json, spectra_report

    settings = Settings(
        intervention=options.intervention,
        selection=options.selection,
        gate=options.gate,
        partners=options.partners,
        seed=options.seed,
        layers=options.layers,
        replicates=options.replicates,
    )
    from dashboard.informing import decompose_for

    spectra, notes = decompose_for(
        _settings(options),
        settings,
        where=options.where,
        regimes=options.regimes,
        strategies=tuple(options.strategy) or ("identity",),
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if options.json:
        print(json.dumps(spectra_json(spectra), indent=2))
    else:
        print(spectra_report(spectra, by_task=options.by == "task,strategy"))
    for note in notes:
        print(f"Note: {note}", file=sys.stderr)
    return 0


def _strategies(options: argparse.Namespace) -> int:
    from compression.strategies import CATALOGUE
    from dashboard.report import plain_table

    infos = [strategy.info for strategy in CATALOGUE]
    if options.json:
        from dashboard.batch import strategy_json

        print(json.dumps([strategy_json(strategy) for strategy in CATALOGUE], indent=2))
        return 0
    print(
        plain_table(
            [
                {
                    "strategy": info.name,
                    "acts": info.stage.words,
                    "does": info.reduces,
                    "budget": {"no limit": "or no limit"}.get(info.without_budget, "or left to its router")
                    if info.adaptive
                    else "all"
                    if info.reduces == "nothing"
                    else "required",
                    "needs": "; ".join(info.needs_words(str)) or "nothing",
                    "source": info.paper or "baseline",
                }
                for info in infos
            ]
        )
    )
    return 0


def _models(options: argparse.Namespace) -> int:
    from compression.backends import known_models
    from compression.backends.known import gigabytes
    from dashboard.report import plain_table

    known = known_models()
    if options.json:
        rows = [
            {
                **{name: getattr(model, name) for name in ("name", "family", "title", "source", "needs")},
                "parameters": model.on_gpu.parameters,
                "visual_tokens": model.on_gpu.visual_tokens,
                "gpu": {**asdict(model.on_gpu), "total_bytes": model.on_gpu.total_bytes},
                "cpu": {**asdict(model.on_cpu), "total_bytes": model.on_cpu.total_bytes},
            }
            for model in known
        ]
        print(json.dumps(rows, indent=2))
        return 0
    print(
        plain_table(
            [
                {
                    "model": model.name,
                    "family": model.family,
                    "tokens": f"{model.on_gpu.visual_tokens:,}",
                    "weights": gigabytes(model.on_gpu.weights_bytes),
                    "cache": gigabytes(model.on_gpu.kv_cache_bytes),
                    "pass": gigabytes(model.on_gpu.activation_bytes),
                    "GPU": gigabytes(model.on_gpu.total_bytes),
                    "CPU": gigabytes(model.on_cpu.total_bytes),
                    "from": "repository" if model.is_embedded else "hub",
                }
                for model in known
            ]
        )
    )
    print(MEMORY_WORDS)
    return 0


MEMORY_WORDS = """
tokens: the most that a model makes of an image. The other numbers are GB (10^9 bytes) at so many tokens, all kept:
weights, key-value cache and widest moment of a pass in the checkpoint's own 16 bits (embedded: 32), their sum on a
GPU, and the sum on a CPU, where numbers have 32 bits. Worked out from each model's configuration; the pass is an
estimate. A folder, a hub id or id@revision of any of these families works as well."""


def _train(options: argparse.Namespace) -> int:
    from compression.backends.embedded.schedule import Schedule
    from compression.backends.embedded.training import DEFAULT_MINUTES, train

    if options.minutes is not None and options.minutes <= 0:
        raise Mistake(f"--minutes must be above 0, got {options.minutes:g}")
    try:
        train(
            options.output,
            minutes=options.minutes or DEFAULT_MINUTES,
            steps=Schedule.parse(options.steps) if options.steps else None,
            seed=options.seed,
            device=options.device,
            resume=options.resume,
            log=lambda line: print(line, flush=True),
        )
    except (ValueError, OSError) as error:
        raise Mistake(str(error)) from error
    print(f"Wrote {options.output / 'checkpoint'}")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from dashboard.doctor import examine

    settings = _settings(options)
    findings = examine(settings)
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f"{'ok  ' if finding.works else 'no  '} {finding.what.ljust(width)}  {finding.said}")
    return 0 if all(finding.works or not finding.is_needed for finding in findings) else 1


if __name__ == "__main__":
    raise SystemExit(main())
