"""What a strategy is: a declaration and one method; and how a plan of strategies is written and read."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from compression.errors import InvalidBudget, InvalidParameter, InvalidStrategyText, MissingSignal
from compression.layer import LayerState
from compression.selection import Selection
from compression.tokens import SIGNALS, Signal, VisualTokens


class Stage(StrEnum):
    """Where a strategy acts."""

    ENCODING = "encoding"  # on the image: what the vision encoder reads, or what happens inside it
    ZOOM = "zoom"  # on the image, in turns: an overview, then parts of it at full resolution
    ENCODER = "encoder"  # once, between the vision encoder and the language model
    DECODER = "decoder"  # inside the language model, before a layer

    @property
    def words(self) -> str:
        """Where that is, for people."""
        return {
            Stage.ENCODING: "on the image",
            Stage.ZOOM: "on the image, in turns",
            Stage.ENCODER: "before the language model",
            Stage.DECODER: "in the language model",
        }[self]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a strategy: its name, kind, default, range and meaning.

    Args:
        name: As written in a strategy text.
        default: Its type is the kind: bool, int, float or str. None with `kind` given means "chosen by the method".
        meaning: One sentence for people, with the equation or table where it comes from.
        minimum, maximum: Inclusive range of numbers.
        choices: The allowed words of a str.
        reconstructed: True where the paper leaves the value out and this project chose it.
        kind: Type of the value where `default` is None.
    """

    name: str
    default: bool | int | float | str | None
    meaning: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    reconstructed: bool = False
    kind: type | None = None

    @property
    def type(self) -> type:
        """bool, int, float or str."""
        return self.kind or type(self.default)

    def allowed(self) -> str:
        """The allowed values in words."""
        if self.type is bool:
            return "true or false"
        if self.type is str:
            return ", ".join(self.choices) if self.choices else "a word"
        kind = "a whole number" if self.type is int else "a number"
        if self.minimum is not None and self.maximum is not None:
            return f"{kind} from {self.minimum:g} to {self.maximum:g}"
        if self.minimum is not None:
            return f"{kind} of at least {self.minimum:g}"
        return kind

    def parse(self, text: str) -> bool | int | float | str:
        """The value that a text stands for.

        Raises:
            InvalidParameter: the text is not of the parameter's kind or range.
        """
        try:
            value: Any = {"true": True, "false": False}[text.lower()] if self.type is bool else self.type(text)
        except (ValueError, KeyError) as error:
            raise InvalidParameter(f"{self.name} takes {self.allowed()}, got {text!r}") from error
        return self.check(value)

    def check(self, value: Any) -> bool | int | float | str:
        """The value itself when it is allowed.

        Raises:
            InvalidParameter: it is not.
        """
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        good = type(value) is self.type
        if good and isinstance(value, int | float) and not isinstance(value, bool):
            good = (
                math.isfinite(value)
                and (self.minimum is None or value >= self.minimum)
                and (self.maximum is None or value <= self.maximum)
            )
        if good and self.choices:
            good = value in self.choices
        if not good:
            raise InvalidParameter(f"{self.name} takes {self.allowed()}, got {value!r}")
        result: bool | int | float | str = value
        return result

    def format(self, value: bool | int | float | str) -> str:
        """How the value is written in a strategy text."""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float) and float(f"{value:g}") == value:
            return f"{value:g}"
        return str(value)


@dataclass(frozen=True)
class StrategyInfo:
    """What a strategy declares about itself. Menus, checks, the methods page and the labels follow from it.

    Args:
        name: Registry key, equal to the module's name.
        title: The method's name as its paper writes it.
        paper: Authors or team, title, year, identifier; empty for baselines.
        stage: Where it acts.
        needs: Signals that the model must provide.
        instead: What stands in for a needed signal that a model does not provide; None where the method does without.
        reduces: What it does to tokens.
        acts_on: Whether outputs are made before or after the projector. For pure pruning both give the same.
        adaptive: Whether the budget may be left out.
        identity_at_full: Whether budget = tokens changes nothing.
        position_free: Whether scores follow a permutation of the tokens.
        own_order: Whether the method defines its own order of the outputs; else ascending anchors.
        ignores_image: Whether the choice does not depend on the image.
        score: What the score is, for the legend; empty where there is none.
        parameters: In the order in which they are written.
        labels: Travel with each run: reconstructions and the like.
        alone: Those of the labels that hold only where it is the one step of its plan.
        deviations: How this implementation differs from the paper, one sentence each.
        version: Raised whenever the same input may give another selection.
    """

    name: str
    title: str
    paper: str
    stage: Stage
    needs: frozenset[Signal]
    reduces: Literal["nothing", "prunes", "merges", "prunes and merges", "encodes fewer"]
    acts_on: Literal["encoder", "projected"] = "projected"
    adaptive: bool = False
    identity_at_full: bool = True
    position_free: bool = False
    own_order: bool = False
    ignores_image: bool = False
    score: str = ""
    parameters: tuple[Parameter, ...] = ()
    labels: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()
    version: int = 1
    instead: Mapping[Signal, Signal | None] = field(default_factory=dict, hash=False)

    def missing(self, provides: Set[Signal]) -> frozenset[Signal]:
        """The needed signals that are not among these and that nothing stands in for; none where the method can run."""
        absent = self.needs - provides
        return frozenset(
            signal for signal in absent if signal not in self.instead or self.instead[signal] not in {None, *provides}
        )

    def stand_ins(self, provides: Set[Signal]) -> tuple[str, ...]:
        """Labels of a run with a model that provides these signals: what was read in place of what."""
        return tuple(
            f"{SIGNALS[other].title} in place of {SIGNALS[signal].title}"
            for signal, other in self.instead.items()
            if other is not None and signal not in provides
        )

    def needs_words(self, name: Callable[[Signal], str]) -> tuple[str, ...]:
        """Each need under a name for it, and what may stand in for it, in the names' order."""

        def said(signal: Signal) -> str:
            if signal not in self.instead:
                return name(signal)
            other = self.instead[signal]
            return f"{name(signal)}, where there is one" if other is None else f"{name(signal)} or {name(other)}"

        return tuple(sorted(said(signal) for signal in self.needs))

    @property
    def without_budget(self) -> str:
        """What holds where an adaptive strategy is given no budget, in words."""
        return "no limit" if self.stage is Stage.ZOOM else "router chooses"

    def parameter(self, name: str) -> Parameter:
        """The parameter of that name.

        Raises:
            InvalidParameter: there is none.
        """
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        known = ", ".join(parameter.name for parameter in self.parameters) or "none"
        raise InvalidParameter(f"{self.name} has no parameter {name!r}; it has: {known}")


@dataclass(frozen=True)
class Route:
    """What a trained router reads from a question.

    Args:
        lam: lambda in 0..1; 0 is object semantics, 1 is scene geometry.
        rho: Retention ratio in (0, 1].
        margins: Distance of each head from its decision boundary, in logits.
    """

    lam: float
    rho: float
    margins: Mapping[str, float]


class Router(Protocol):
    """A trained router that comes with a model, on top of that model's word embeddings."""

    def route(self, text: Tensor) -> Route:
        """Read a question, float [words, dim]."""


@dataclass(frozen=True)
class Context:
    """What a compressor may look at that is not a visual token.

    Args:
        question: The user's words.
        seed: For methods that draw at random.
        text: Float [words, dim], the question in the language model's embeddings, or None.
        layer: Language-model layer before which the strategy acts, or None outside the language model.
        layers: Number of language-model layers.
        attention: Float [heads, query, tokens] rows of layer `layer - 1` over the visual tokens, the answer position
            first, then the question's words; or None.
        state: What the language model holds before `layer`, or None.
        teacher: Float32 [tokens], attention that each visual token receives in a deeper layer of a full first pass, for
            a strategy that names one (`teacher_layer`); or None.
        router: The model's trained router, or None.
    """

    question: str = ""
    seed: int = 0
    text: Tensor | None = None
    layer: int | None = None
    layers: int = 0
    attention: Tensor | None = None
    state: LayerState | None = None
    teacher: Tensor | None = None
    router: Router | None = None

    def generator(self) -> torch.Generator:
        """A fresh generator of this seed; it lives on the CPU so that every device draws the same."""
        return torch.Generator().manual_seed(self.seed)


@runtime_checkable
class Compressor(Protocol):
    """A configured strategy: frozen, comparable, rebuilt from `parameters`."""

    info: ClassVar[StrategyInfo]

    @property
    def parameters(self) -> Mapping[str, bool | int | float | str]:
        """The values of all parameters by name."""

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Decide what is kept, merged and dropped.

        Args:
            tokens: The visual tokens as the strategy finds them.
            budget: Number of outputs, 1..len(tokens); None only where the strategy is adaptive.
            context: The question, the seed, the layer.

        Raises:
            InvalidBudget: the budget is outside 1..len(tokens), or missing.
            MissingSignal: the tokens or the context lack a needed signal.
        """


class Strategy:
    """Base of the strategies here: parameters as dataclass fields, validated when built, and the common checks."""

    info: ClassVar[StrategyInfo]

    def __post_init__(self) -> None:
        for parameter in self.info.parameters:
            value = getattr(self, parameter.name)
            if value is not None or parameter.default is not None:
                object.__setattr__(self, parameter.name, parameter.check(value))

    @property
    def parameters(self) -> Mapping[str, bool | int | float | str]:
        """The values of all parameters that are set, by name."""
        values = {parameter.name: getattr(self, parameter.name) for parameter in self.info.parameters}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def description(cls) -> str:
        """The class docstring, which is the strategy's text on screen."""
        return inspect.cleandoc(cls.__doc__ or "")

    def checked_budget(self, tokens: VisualTokens, budget: int | None) -> int:
        """The budget when it lies in 1..len(tokens).

        Raises:
            InvalidBudget: it does not, or it is missing.
        """
        if budget is None:
            raise InvalidBudget(f"{self.info.name} needs a budget; write {self.info.name}@0.25 or {self.info.name}@64")
        if not 1 <= budget <= len(tokens):
            raise InvalidBudget(
                f"budget must be 1..{len(tokens)} visual tokens, got {budget}; write a count up to {len(tokens)} or "
                "a retention ratio up to 1.0",
                lowest=1,
            )
        return budget

    def signal(self, tokens: VisualTokens, signal: Signal) -> Tensor:
        """A signal of the tokens.

        Raises:
            MissingSignal: the tokens do not carry it.
        """
        if signal not in tokens.signals:
            raise MissingSignal(
                f"{self.info.name} needs the signal {signal.value!r}, which these tokens do not carry; choose "
                "another model"
            )
        return tokens.signals[signal]

    def seen(self, tokens: VisualTokens) -> Tensor:
        """Attention on each patch, float [heads, tokens]: the rows of [CLS].

        From a tower without [CLS], the attention that each patch receives stands in as that of a single head, [1,
        tokens], where the strategy says so in `instead`.

        Raises:
            MissingSignal: neither is there.
        """
        other = self.info.instead.get(Signal.CLS_ATTENTION)
        if other is not None and other in tokens.signals and Signal.CLS_ATTENTION not in tokens.signals:
            return tokens.signals[other][None]
        return self.signal(tokens, Signal.CLS_ATTENTION)

    def words(self, tokens: VisualTokens, context: Context) -> Tensor:
        """The question's words in the language model's embeddings, float [words, dim of the projected tokens].

        A model gives them in the context; without a model they come as the signal `text`.

        Raises:
            MissingSignal: neither is there.
        """
        return context.text if context.text is not None else self.signal(tokens, Signal.TEXT)


@dataclass(frozen=True)
class Budget:
    """What a user asked for: a retention ratio, a count of visual tokens, or nothing.

    Exactly one of `ratio` and `count` is set, or neither for an adaptive budget.
    """

    ratio: float | None = None
    count: int | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read "0.25" or "1.0" as a ratio and "64" as a count.

        Raises:
            InvalidBudget: the text is neither, or out of range.
        """
        if re.fullmatch(r"[0-9]{1,18}", text):
            if int(text) < 1:
                raise InvalidBudget(
                    f"a budget is at least 1 visual token, got {text}; write a count such as 64 or a ratio such as 0.25"
                )
            return cls(count=int(text))
        if re.fullmatch(r"[0-9]*\.[0-9]+|[0-9]+\.[0-9]*", text) and 0 < float(text) <= 1:
            return cls(ratio=float(text))
        raise InvalidBudget(
            "a budget is a retention ratio above 0 and up to 1.0 with a decimal point, or a whole number of visual "
            f"tokens, got {text!r}; "
            "write 0.25 or 64"
        )

    def __str__(self) -> str:
        if self.count is not None:
            return str(self.count)
        if self.ratio is None:
            return ""
        return format(
            Decimal(repr(self.ratio)), "f"
        )  # all digits and no exponent, so that it reads back as the same ratio

    def tokens(self, total: int) -> int | None:
        """The number of visual tokens asked for on an image of `total`, or None for an adaptive budget.

        Raises:
            InvalidBudget: a count above the total.
        """
        if self.count is not None:
            if self.count > total:
                raise InvalidBudget(
                    f"budget {self.count} is above the {total} visual tokens of this image; write at most {total}"
                )
            return self.count
        return None if self.ratio is None else max(1, round(self.ratio * total))


@dataclass(frozen=True)
class Step:
    """One compressor of a plan, and the budget it was asked for."""

    compressor: Compressor
    budget: Budget

    @property
    def stage(self) -> Stage:
        """Where the step acts."""
        return self.compressor.info.stage


def _labels(info: StrategyInfo, company: bool) -> list[str]:
    return [label for label in info.labels if not (company and label in info.alone)]


def joined(infos: Sequence[StrategyInfo]) -> StrategyInfo:
    """What several steps of one plan declare together; a single one stays as it is.

    Names and titles are joined by "+". Labels and deviations are those of every step; labels that hold for a step
    `alone` are left out where another one reduces tokens too. The score is that of the first step that has one, whose
    scores a run keeps. The version is the sum: it rises when any step's does. Stage and adaptiveness are those of the
    last step, and no parameters are left.
    """
    if len(infos) == 1:
        return infos[0]
    company = sum(info.reduces != "nothing" for info in infos) > 1
    words = {word for info in infos for word in info.reduces.split(" and ")} - {"nothing"}
    reduces = " and ".join(sorted(words, reverse=True)) or "nothing"
    return replace(
        infos[-1],
        name="+".join(info.name for info in infos),
        title=" + ".join(info.title for info in infos),
        paper="; ".join(dict.fromkeys(info.paper for info in infos if info.paper)),
        needs=frozenset().union(*(info.needs for info in infos)),
        instead={
            signal: other
            for info in infos
            for signal, other in info.instead.items()
            if all(signal not in one.needs or one.instead.get(signal, signal) == other for one in infos)
        },
        reduces=reduces,  # type: ignore[arg-type]
        acts_on=infos[0].acts_on,
        identity_at_full=all(info.identity_at_full for info in infos),
        position_free=all(info.position_free for info in infos),
        own_order=any(info.own_order for info in infos),
        ignores_image=all(info.ignores_image for info in infos),
        score=next((info.score for info in infos if info.score), ""),
        parameters=(),
        labels=tuple(dict.fromkeys(label for info in infos for label in _labels(info, company))),
        alone=(),
        deviations=tuple(dict.fromkeys(text for info in infos for text in info.deviations)),
        version=sum(info.version for info in infos),
    )


@dataclass(frozen=True)
class Plan:
    """A strategy as a user writes it: one step usually, or several that follow each other.

    At most one step acts before the language model, and it is the first; any number act inside. All budgets are of
    the image's visual tokens: a ratio of 0.25 is a quarter of the image's, whatever earlier steps left. The step before
    the language model is asked for its number of outputs. A step inside is asked for the mean over all layers that the
    language model is to process once this step has acted: its schedule starts from the tokens that enter, and counts
    with what the steps in front of it leave. So what the whole plan was asked for is the budget of its last step, and
    the mean that a run realises is compared with that.

    Raises:
        InvalidStrategyText: no step, or a step before the language model that is not the first.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise InvalidStrategyText("a plan has at least one step, got none; write a strategy such as identity@1.0")
        for step in self.steps[1:]:
            if step.stage is not Stage.DECODER:
                raise InvalidStrategyText(
                    f"{step.compressor.info.name} acts before the language model and cannot follow another step in "
                    f"{str(self)!r}; a plan begins with at most one such step, and those inside the language model "
                    "follow"
                )

    @property
    def info(self) -> StrategyInfo:
        """What its steps declare together; see `joined`."""
        return joined([step.compressor.info for step in self.steps])

    @property
    def needs(self) -> frozenset[Signal]:
        """Signals that any step needs."""
        return self.info.needs

    @property
    def stage(self) -> str:
        """Where its steps act, each place once: "encoder", "decoder" or "encoder+decoder"."""
        return "+".join(dict.fromkeys(step.stage.value for step in self.steps))

    @property
    def budget(self) -> Budget:
        """What the plan as a whole was asked for: the budget of its last step."""
        return self.steps[-1].budget

    def __str__(self) -> str:
        return "+".join(format_strategy(step.compressor, step.budget) for step in self.steps)


def split_strategy(text: str) -> tuple[str, dict[str, str], Budget]:
    """Read one step, `name[:param=value[,param=value…]][@budget]`, into its three parts, without knowing any strategy.

    >>> split_strategy("fastv:layer=2@64")
    ('fastv', {'layer': '2'}, Budget(ratio=None, count=64))

    Raises:
        InvalidStrategyText: the text has another form.
        InvalidBudget: the budget is neither a ratio nor a count.
    """
    shape = re.fullmatch(r"\s*([A-Za-z0-9_]+)(?::([^@]*))?(?:@([^@]*))?\s*", text)
    if not shape:
        raise InvalidStrategyText(
            f"a strategy is written name:param=value,param=value@budget, got {text!r}; write for example "
            "fastv:layer=2@0.25"
        )
    name, pairs, budget = shape.groups()
    values: dict[str, str] = {}
    for pair in (pairs or "").split(",") if pairs is not None else []:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip() or not value.strip() or key.strip() in values:
            raise InvalidStrategyText(f"parameters are written param=value, each once, got {pair!r} in {text!r}")
        values[key.strip()] = value.strip()
    return name.lower(), values, Budget() if budget is None else Budget.parse(budget.strip())


def format_strategy(compressor: Compressor, budget: Budget) -> str:
    """The canonical text of a strategy: parameters in declared order, those at their default left out."""
    info = compressor.info
    pairs = [
        f"{parameter.name}={parameter.format(value)}"
        for parameter in info.parameters
        if (value := compressor.parameters.get(parameter.name)) is not None and value != parameter.default
    ]
    text = info.name + (":" + ",".join(pairs) if pairs else "")
    return f"{text}@{budget}" if str(budget) else text


Cancel = Callable[[], bool]
"""Asked between strategies, layers and decoding steps; True stops the work."""
