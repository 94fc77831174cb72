"""The tables. Text that is JSON says so in its name, numbers carry their unit; comments say what each column holds.

runs ─┬─ run_records   everything of a run that is not an array
      ├─ run_arrays ── arrays (content-addressed, shared between runs)
      ├─ choices       one row per answer to choose among
      ├─ turns         one row per turn of a strategy that looks at the image in turns
      └─ router        one row per stream of a route decision
comparisons ── panes ── runs, failures
spectra ─── spectrum_arrays ── arrays
sweeps ──── sweep_runs ── runs, failures
images                 bytes lie in files beside the store
jobs
schema_steps           which migrations were applied
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)


class Words(TypeDecorator[str]):
    """Text of any length. Half a surrogate pair, which no database takes, becomes "?"."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """The text as it is stored and compared."""
        return None if value is None else value.encode("utf-8", "replace").decode("utf-8")


metadata = MetaData()

schema_steps = Table(
    "schema_steps",
    metadata,
    Column("name", Words, primary_key=True, comment="Name of the migration step"),
    Column(
        "position",
        Integer,
        nullable=False,
        unique=True,
        comment="Its place in the order, from 1; the highest is the schema's version",
    ),
    Column("applied_utc", Words, nullable=False, comment="When it was applied, ISO 8601"),
)

runs = Table(
    "runs",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True, comment="Order of storing; says nothing to users"),
    Column("id", Words, nullable=False, unique=True, comment="Random 128 bits, hex"),
    Column("owner", Words, nullable=False, comment="Whose run it is; empty for local use"),
    Column("is_sample", Boolean, nullable=False, comment="Whether it came with Keepmap and everyone may see it"),
    Column("comparison", Words, nullable=False, comment="Id of the comparison that it belongs to; empty for none"),
    Column("request", Words, nullable=False, comment="SHA-256 of the canonical JSON of what was asked, hex"),
    Column("created_utc", Words, nullable=False, comment="ISO 8601 with seconds and Z"),
    Column("model", Words, nullable=False, comment="As a user asks for it"),
    Column("model_family", Words, nullable=False, comment="Backend family, such as llava"),
    Column("model_revision", Words, nullable=False, comment="SHA-256 over the weight files, hex"),
    Column("strategy", Words, nullable=False, comment="Canonical strategy text"),
    Column("strategy_name", Words, nullable=False, comment="Registry key of the strategy"),
    Column("strategy_stage", Words, comment="encoding, zoom, encoder or decoder; NULL where not known here"),
    Column("strategy_params_json", Words, nullable=False, comment="All parameters of the strategy, JSON object"),
    Column("budget_requested", Integer, comment="Visual tokens asked for; NULL where the router chose"),
    Column("budget_realised", Double, nullable=False, comment="Visual tokens, mean over the language model's layers"),
    Column("tokens_total", Integer, nullable=False, comment="Visual tokens of the image before any strategy"),
    Column("tokens_kept", Integer, nullable=False, comment="Visual tokens after the last reduction"),
    Column("retention_ratio", Double, nullable=False, comment="budget_realised divided by tokens_total"),
    Column("image", Words, nullable=False, comment="SHA-256 of the image's bytes as received, hex"),
    Column("image_name", Words, nullable=False, comment="File name, for people"),
    Column("image_width", Integer, nullable=False, comment="Pixels"),
    Column("image_height", Integer, nullable=False, comment="Pixels"),
    Column("crs", Words, comment="Reference system such as EPSG:32632; NULL for plain pixels"),
    Column("question", Words, nullable=False, comment="The user's words"),
    Column("question_family", Words, nullable=False, comment="object-semantic, scene-geometric, knowledge or empty"),
    Column("task", Words, nullable=False, comment="Name of the question's template, or empty"),
    Column("answer", Words, nullable=False, comment="What the model said"),
    Column("answer_expected", Words, comment="The right answer; NULL where not known"),
    Column("is_correct", Boolean, comment="Whether the answer is the expected one; NULL where not known"),
    Column("confidence", Double, comment="Probability of the answer; NULL where it is not among the choices"),
    Column("choice_mass", Double, comment="Probability that the choices cover, before renormalising"),
    Column("seed", BigInteger, nullable=False, comment="Seed of everything drawn at random"),
    Column("device", Words, nullable=False, comment="cpu, or cuda with the device's name"),
    Column("dtype", Words, nullable=False, comment="Type of the model's numbers, such as float32"),
    Column("encode_seconds", Double, comment="Measured median of the vision encoder"),
    Column("compress_seconds", Double, comment="Measured median of the compression; NULL where there was none"),
    Column("prefill_seconds", Double, nullable=False, comment="Measured median of the language model's first pass"),
    Column("decode_seconds", Double, comment="Measured median of the decoding; NULL where the answer needed none"),
    Column("prefill_flops", BigInteger, nullable=False, comment="Estimated, language model only, two per multiply-add"),
    Column("kv_cache_bytes", BigInteger, nullable=False, comment="Measured from the cache after prefill"),
    Column(
        "peak_memory_bytes", BigInteger, comment="Measured peak of the process or of the device; NULL where not known"
    ),
    Column(
        "evidence_recall",
        Double,
        comment="Share of the evidence's tokens kept or merged into kept ones; NULL where not known",
    ),
    Column("labels_json", Words, nullable=False, comment="Short labels such as reconstruction, JSON list"),
    Column("keepmap_version", Words, nullable=False, comment="Version that made the run"),
    Column("code_commit", Words, nullable=False, comment="Commit of the code that made the run, or empty"),
    Column(
        "tokens_encoded",
        Integer,
        nullable=False,
        server_default="0",
        comment="Visual tokens on the run's own grid; other than tokens_total where the strategy encoded the image",
    ),
    Index("ix_runs_created", "created_utc", "number"),
    Index("ix_runs_owner", "owner", "created_utc"),
    Index("ix_runs_comparison", "comparison"),
    Index("ix_runs_image", "image"),
    Index("ix_runs_request", "request"),
)

run_records = Table(
    "run_records",
    metadata,
    Column("run", Words, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True, comment="Id of the run"),
    Column("record_json", Words, nullable=False, comment="The whole run without its arrays, JSON object"),
)

arrays = Table(
    "arrays",
    metadata,
    Column("digest", Words, primary_key=True, comment="SHA-256 of dtype, shape and uncompressed bytes, hex"),
    Column("dtype", Words, nullable=False, comment="NumPy dtype with byte order, such as <f2"),
    Column("shape_json", Words, nullable=False, comment="Axis lengths, JSON list"),
    Column("data", LargeBinary, nullable=False, comment="Bytes in C order, compressed with zlib"),
)

run_arrays = Table(
    "run_arrays",
    metadata,
    Column("run", Words, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True, comment="Id of the run"),
    Column("name", Words, primary_key=True, comment="Name of the array in the run, such as scores"),
    Column("digest", Words, ForeignKey("arrays.digest"), nullable=False, comment="Which array"),
    Index("ix_run_arrays_digest", "digest"),
)

choices = Table(
    "choices",
    metadata,
    Column("run", Words, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True, comment="Id of the run"),
    Column("position", Integer, primary_key=True, comment="Place among the choices, from 0"),
    Column("text", Words, nullable=False, comment="The choice"),
    Column("probability", Double, comment="In 0..1, renormalised where choices were given; NULL where not a number"),
    Column("is_expected", Boolean, comment="Whether it is the right answer; NULL where that is not known"),
)

turns = Table(
    "turns",
    metadata,
    Column("run", Words, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True, comment="Id of the run"),
    Column("turn", Integer, primary_key=True, comment="Its number, from 1"),
    Column("left", Double, nullable=False, comment="Where it looked, in pixels of the original image"),
    Column("top", Double, nullable=False, comment="Pixels"),
    Column("right", Double, nullable=False, comment="Pixels"),
    Column("bottom", Double, nullable=False, comment="Pixels"),
    Column("confidence", Double, comment="What spoke for the box, 0 to 1; NULL where nothing was counted"),
    Column("tokens_spent", Integer, nullable=False, comment="Visual tokens that the turn added"),
    Column("answer_before", Words, nullable=False, comment="The model's answer before; empty where it was not asked"),
    Column("answer_after", Words, nullable=False, comment="The model's answer after; empty where it was not asked"),
    Column("accepted", Boolean, nullable=False, comment="Whether what it saw was kept"),
    Column("reason", Words, nullable=False, comment="Why not, or what was done to the box; may be empty"),
)

router = Table(
    "router",
    metadata,
    Column("run", Words, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True, comment="Id of the run"),
    Column("position", Integer, primary_key=True, comment="Place among the run's route decisions, from 0"),
    Column("stage", Words, comment="encoder or decoder"),
    Column("layer", Integer, comment="Language-model layer; NULL outside the language model"),
    Column("stream", Words, nullable=False, comment="The route: semantic or geometric"),
    Column("share", Double, comment="Share of the kept tokens that took it"),
    Column("lambda", Double, comment="0 is object semantics, 1 is scene geometry"),
    Column("rho", Double, comment="Retention ratio that the router chose or was given"),
    Column("score", Double, comment="Distance of the deciding head from its boundary; NULL where a rule decided"),
    Column("threshold", Double, comment="Threshold that applied to the route; NULL where there is none"),
)

failures = Table(
    "failures",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True, comment="Order of storing"),
    Column("id", Words, nullable=False, unique=True, comment="Random 128 bits, hex"),
    Column("owner", Words, nullable=False, comment="Whose failure it is; empty for local use"),
    Column("created_utc", Words, nullable=False, comment="ISO 8601 with seconds and Z"),
    Column("request_json", Words, nullable=False, comment="What was asked, JSON object"),
    Column("stage", Words, nullable=False, comment="Where it failed"),
    Column("reason", Words, nullable=False, comment="Why, in a sentence"),
    Index("ix_failures_owner", "owner", "created_utc"),
)

images = Table(
    "images",
    metadata,
    Column("digest", Words, primary_key=True, comment="SHA-256 of the bytes as received, hex; also the file's name"),
    Column("size_bytes", BigInteger, nullable=False, comment="Length of the file"),
    Column("received_utc", Words, nullable=False, comment="When the bytes were last received, ISO 8601"),
    Column("is_awaited", Boolean, nullable=False, comment="Received, and no run or comparison has used it since"),
)

comparisons = Table(
    "comparisons",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True, comment="Order of storing"),
    Column("id", Words, nullable=False, unique=True, comment="Random 128 bits, hex"),
    Column("owner", Words, nullable=False, comment="Whose comparison it is; empty for local use"),
    Column("is_sample", Boolean, nullable=False, comment="Whether it came with Keepmap and everyone may see it"),
    Column("created_utc", Words, nullable=False, comment="ISO 8601 with seconds and Z"),
    Column("image", Words, nullable=False, comment="SHA-256 of the image's bytes as received, hex"),
    Column("image_json", Words, nullable=False, comment="What is needed to place the image, JSON object"),
    Column("question", Words, nullable=False, comment="The user's words"),
    Column("choices_json", Words, nullable=False, comment="Answers to choose among, JSON list"),
    Column("expected", Words, comment="The right answer; NULL where not known"),
    Column("evidence_json", Words, nullable=False, comment="Boxes in original pixels, JSON list"),
    Column("family", Words, nullable=False, comment="Family of the question, or empty"),
    Column("task", Words, nullable=False, comment="Name of the question's template, or empty"),
    Column("model", Words, nullable=False, comment="As a user asks for it"),
    Column("notices_json", Words, nullable=False, comment="Sentences that hold for all panes, JSON list"),
    Index("ix_comparisons_created", "created_utc", "number"),
    Index("ix_comparisons_owner", "owner", "created_utc"),
    Index("ix_comparisons_image", "image"),
)

panes = Table(
    "panes",
    metadata,
    Column(
        "comparison",
        Words,
        ForeignKey("comparisons.id", ondelete="CASCADE"),
        primary_key=True,
        comment="Id of the comparison",
    ),
    Column("position", Integer, primary_key=True, comment="Place on the page, from 0"),
    Column("strategy", Words, nullable=False, comment="Canonical strategy text"),
    Column("run", Words, ForeignKey("runs.id", ondelete="SET NULL"), comment="Id of the run, once there is one"),
    Column(
        "failure", Words, ForeignKey("failures.id", ondelete="SET NULL"), comment="Id of the failure, where it failed"
    ),
    Column("reason", Words, nullable=False, comment="Why there is no run, in a sentence"),
    Column(
        "lowest", Integer, comment="Smallest reachable budget in visual tokens, where it was refused for its budget"
    ),
    Column("state", Words, nullable=False, comment="waiting, running, done, refused, failed, cancelled or deleted"),
    Index("ix_panes_run", "run"),
)

spectra = Table(
    "spectra",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True, comment="Order of storing"),
    Column("id", Words, nullable=False, unique=True, comment="Random 128 bits, hex"),
    Column("owner", Words, nullable=False, comment="Whose decomposition it is; empty for local use"),
    Column("is_sample", Boolean, nullable=False, comment="Whether it came with Keepmap and everyone may see it"),
    Column("request", Words, nullable=False, comment="SHA-256 of the canonical JSON of what was asked, hex"),
    Column("created_utc", Words, nullable=False, comment="ISO 8601 with seconds and Z"),
    Column("model", Words, nullable=False, comment="As a user asks for it"),
    Column("model_revision", Words, nullable=False, comment="SHA-256 over the weight files, hex"),
    Column("strategy", Words, nullable=False, comment="Canonical strategy text"),
    Column("strategy_name", Words, nullable=False, comment="Registry key of the strategy"),
    Column("budget", Double, comment="As written: a ratio up to 1, or a count; NULL where the router chose"),
    Column("question_family", Words, nullable=False, comment="Family of the questions; empty for several"),
    Column("task", Words, nullable=False, comment="Template of the questions; empty for several"),
    Column("layer", Integer, comment="Language-model layer read by the logit lens; NULL for the answer itself"),
    Column("checkpoint", Integer, comment="Training step; NULL for the finished model"),
    Column("n", Integer, nullable=False, comment="Rows of beliefs: samples, or pairs of them when shuffled"),
    Column("samples", Integer, nullable=False, comment="Questions about pictures"),
    Column("measure", Words, nullable=False, comment="Of the decomposition, such as broja"),
    Column("estimator", Words, nullable=False, comment="How beliefs became a decomposition"),
    Column("intervention", Words, nullable=False, comment="What stood in for the source that a pass left out"),
    Column("selection", Words, nullable=False, comment="frozen, or rerun where the strategy decided in every pass"),
    Column("gate", Double, nullable=False, comment="Mass on the choices below which a belief counts as uniform"),
    Column("redundancy_bits", Double, nullable=False, comment="Told by picture alone and by question alone"),
    Column("unique_vision_bits", Double, nullable=False, comment="Told by the picture only"),
    Column("unique_language_bits", Double, nullable=False, comment="Told by the question only"),
    Column(
        "synergy_bits",
        Double,
        nullable=False,
        comment="Told by both together only; negative if incoherent",
    ),
    Column("total_bits", Double, nullable=False, comment="Mutual information of both sources and the answer"),
    Column("lower_bits", Double, nullable=False, comment="Proven lower bound of the union information"),
    Column("upper_bits", Double, nullable=False, comment="Proven upper bound of the union information"),
    Column("ci_low_json", Words, nullable=False, comment="Lower end of each atom's interval, JSON object"),
    Column("ci_high_json", Words, nullable=False, comment="Upper end of each atom's interval, JSON object"),
    Column("gated_fraction_json", Words, nullable=False, comment="Share of beliefs below the gate, JSON object"),
    Column("incoherence_bits", Double, nullable=False, comment="By which the tables are no marginals of one joint"),
    Column("seed", BigInteger, nullable=False, comment="Of pairs, noise and resampling"),
    Column("retention_ratio", Double, nullable=False, comment="Mean share of the visual tokens that were processed"),
    Column("accuracy", Double, comment="Share of right answers; NULL where they are not known"),
    Column("accuracy_blind", Double, comment="Share of right answers without the picture; NULL where not known"),
    Column("choice_mass", Double, nullable=False, comment="Mean probability that the choices cover"),
    Column("labels_json", Words, nullable=False, comment="Short labels such as reconstruction, JSON list"),
    Column("record_json", Words, nullable=False, comment="The whole decomposition, JSON object"),
    Index("ix_spectra_request", "request"),
    Index("ix_spectra_owner", "owner", "number"),
)

spectrum_arrays = Table(
    "spectrum_arrays",
    metadata,
    Column(
        "spectrum",
        Words,
        ForeignKey("spectra.id", ondelete="CASCADE"),
        primary_key=True,
        comment="Id of the decomposition of the answer itself",
    ),
    Column("name", Words, primary_key=True, comment="Name of the array, such as full"),
    Column("digest", Words, ForeignKey("arrays.digest"), nullable=False, comment="Which array"),
    Index("ix_spectrum_arrays_digest", "digest"),
)

sweeps = Table(
    "sweeps",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True, comment="Order of storing"),
    Column("id", Words, nullable=False, unique=True, comment="Random 128 bits, hex"),
    Column("owner", Words, nullable=False, comment="Whose sweep it is; empty for local use"),
    Column("name", Words, nullable=False, comment="As its file names it"),
    Column("planned", Integer, nullable=False, comment="Requests that it consists of"),
    Column("started_utc", Words, nullable=False, comment="When it was first started, ISO 8601"),
    Column("finished_utc", Words, comment="When nothing was left to run; NULL before"),
    Index("ix_sweeps_name", "owner", "name", unique=True),
)

sweep_runs = Table(
    "sweep_runs",
    metadata,
    Column("sweep", Words, ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True, comment="Id of the sweep"),
    Column("request", Words, primary_key=True, comment="SHA-256 of the canonical JSON of what was asked, hex"),
    Column("model", Words, nullable=False, comment="As a user asks for it"),
    Column("strategy", Words, nullable=False, comment="Canonical strategy text"),
    Column("seed", BigInteger, nullable=False, comment="Seed of everything drawn at random"),
    Column("question_family", Words, nullable=False, comment="Family of the question, or empty"),
    Column("task", Words, nullable=False, comment="Name of the question's template, or empty"),
    Column("state", Words, nullable=False, comment="done, failed, unreachable or refused"),
    Column("reason", Words, nullable=False, comment="Why there is no run, in a sentence"),
    Column("lowest", Integer, comment="Smallest reachable budget in visual tokens, where the budget was unreachable"),
    Column("run", Words, ForeignKey("runs.id", ondelete="CASCADE"), comment="Id of the run, where there is one"),
    Column("failure", Words, ForeignKey("failures.id"), comment="Id of the failure, where it failed"),
    Index("ix_sweep_runs_run", "run"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True, comment="Order of the queue"),
    Column("id", Words, nullable=False, unique=True, comment="Random 128 bits, hex"),
    Column("owner", Words, nullable=False, comment="Whose job it is; empty for local use"),
    Column("created_utc", Words, nullable=False, comment="ISO 8601 with seconds and Z"),
    Column("state", Words, nullable=False, comment="queued, running, done, failed or cancelled"),
    Column("progress", Double, nullable=False, comment="Share that is done, 0 to 1"),
    Column("message", Words, nullable=False, comment="What is being done, or why it ended"),
    Column("request_json", Words, nullable=False, comment="What was asked, JSON object"),
    Column("comparison", Words, nullable=False, comment="Id of the comparison that it fills; empty for none"),
    Column("worker", Words, nullable=False, comment="Who works on it; empty while it is queued"),
    Column("heartbeat_utc", Words, comment="Last sign of life, ISO 8601 with microseconds; NULL while it is queued"),
    Column("is_cancel_requested", Boolean, nullable=False, comment="Whether someone asked it to stop"),
    Index("ix_jobs_state", "state", "number"),
)
