"""Every family against the stock model of its class: nothing changes but what a strategy asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from analysis.pipeline import Inquiry, execute, open_image
from analysis.recorder import Recorder
from compression.backends import known_models, load_model
from compression.backends.base import Prompt
from compression.backends.llava import PROVIDES
from compression.backends.sequence import rearranged
from compression.compressor import Budget, Context, Plan, Step
from compression.errors import InvalidGrid, MissingSignal, ModelUnavailable, NeedsSight, UnknownModel
from compression.layer import Heads
from compression.selection import Selection
from compression.sight import looking
from compression.strategies import CATALOGUE
from compression.strategies.fastkv import FastKV
from compression.strategies.sparsevlm import rating_words
from compression.tokens import Signal, VisualTokens
from dashboard.cli import main
from tests.compression.backends.conftest import WORDS
from tests.compression.backends.families import FAMILIES, Family, Size, ids_of_axes, packing
from tests.compression.backends.test_llava import hooks_on, masked_reference, word_logs
from tests.contracts.toys import PER_HEAD

QUESTION = "where is the red ship"
TEXT = f"USER: <image> {QUESTION} ASSISTANT:"
SIZES = [
    pytest.param((family, size), id=f"{family.label}-{size[0]}x{size[1]}")
    for family in FAMILIES
    for size in family.sizes
]
ONE_EACH = [pytest.param((family, family.sizes[-1]), id=family.label) for family in FAMILIES]


class Case:
    """A checkpoint, both ways of running it, and a picture."""

    def __init__(self, family: Family, size: Size, folder: Path) -> None:
        self.family, self.size, self.folder = family, size, folder
        self.vlm: Any = load_model(str(folder), device="cpu")
        self.stock = family.model.from_pretrained(folder, attn_implementation="sdpa").eval()
        self.image = np.random.default_rng(7).integers(0, 256, (*size, 3), dtype=np.uint8)
        self.tokens: VisualTokens = self.vlm.encode(self.image, size)
        self.text = TEXT.replace("<image>", family.picture_text(folder, self.image))

    @torch.no_grad()
    def packed(self) -> Tensor:
        """What the stock model reads for the picture, newlines included, [entries, dim]."""
        made = self.stock.get_image_features(**self.family.read(self.folder, self.image), return_dict=True)
        return torch.cat(list(made.pooler_output))

    def rows(self) -> list[list[int]]:
        """Token numbers of the picture's rows; see `packing`."""
        return packing(self.family, self.stock.config, self.size, len(self.tokens))

    def kept_entries(self, kept: set[int]) -> list[int]:
        """Entries of `packed` that stay: the kept tokens, and the newline of each row that has one."""
        entries, at = [], 0
        for number, row in enumerate(self.rows()):
            found = [at + place for place, token in enumerate(row) if token in kept]
            entries += found
            at += len(row)
            if number > 0:
                entries += [at] if found else []
                at += 1
        return entries

    def ids(self, entries: Sequence[int]) -> Tensor:
        """Input ids with a placeholder for each of these entries of `packed`, those of a view where the view stands."""
        coded = self.vlm.tokenizer(self.text)["input_ids"]
        views = coded.count(4)
        counts = iter(np.bincount(np.array(entries) * views // len(self.packed()), minlength=views))
        return torch.tensor([[token for one in coded for token in ([4] * next(counts) if one == 4 else [one])]])

    def inputs(self, ids: Tensor) -> dict[str, Tensor]:
        """What the stock model is given."""
        types = {"mm_token_type_ids": (ids == 4).int()} if self.family.axes > 1 else {}
        return {"input_ids": ids, **self.family.read(self.folder, self.image), **types}

    def beside(self, ids: Tensor) -> dict[str, Any]:
        """Position ids and planes of the uncompressed picture, where the family has them; see `masked_reference`."""
        if self.family.axes == 1:
            return {}
        view = self.tokens.grid.views[0]
        made = self.stock.get_image_features(**self.family.read(self.folder, self.image), return_dict=True)
        planes = [torch.cat(list(plane)) for plane in getattr(made, "deepstack_features", None) or ()]
        return {"positions": ids_of_axes(ids[0].tolist(), (view.rows, view.cols)), "planes": planes}

    def without(self, kept: set[int]) -> Tensor:
        """Logits [vocabulary] of the stock model that never had the other visual tokens.

        With ids of one axis its sequence is shorter, with several all is there and the others are masked.
        """
        if self.family.axes > 1:
            packed = self.packed()
            ids = self.ids(range(len(packed)))
            start = ids[0].tolist().index(4)
            dropped = [start + token for token in range(len(packed)) if token not in kept]
            return masked_reference(self.stock, ids, packed, dropped, 0, **self.beside(ids))[-1]
        entries = self.kept_entries(kept)
        ids = self.ids(entries)
        embedded = self.stock.get_input_embeddings()(ids).clone()
        embedded[0, (ids[0] == 4).nonzero()[:, 0]] = self.packed()[entries]
        return self.stock(inputs_embeds=embedded).logits[0, -1]


_CASES: dict[tuple[str, Size], Case] = {}


@pytest.fixture
def case(request, tmp_path_factory) -> Case:
    family, size = request.param
    if (family.label, size) not in _CASES:
        _CASES[family.label, size] = Case(family, size, family.save(tmp_path_factory.mktemp(family.label)))
    return _CASES[family.label, size]


each_size = pytest.mark.parametrize("case", SIZES, indirect=True)
each_tiled_size = pytest.mark.parametrize("case", [one for one in SIZES if one.values[0][0].is_tiled], indirect=True)
each_family = pytest.mark.parametrize("case", ONE_EACH, indirect=True)
each_tiled_family = pytest.mark.parametrize(
    "case", [one for one in ONE_EACH if one.values[0][0].is_tiled], indirect=True
)


def said_logs(logits: Tensor) -> Tensor:
    """Log-probabilities of `WORDS`."""
    return word_logs(logits)[: len(WORDS)]


def pooled(values: Tensor, merge: int) -> Tensor:
    """Sums over squares of patches, [..., patches] of one view to [..., tokens], a square at a time."""
    edge = round(values.shape[-1] ** 0.5)
    square = values.unflatten(-1, (edge, edge))
    corners = [(row, col) for row in range(0, edge, merge) for col in range(0, edge, merge)]
    return torch.stack(
        [square[..., row : row + merge, col : col + merge].sum((-2, -1)) for row, col in corners], dim=-1
    )


def prompt(*choices: str) -> Prompt:
    return Prompt(QUESTION, choices, TEXT)


@each_size
@torch.no_grad()
def test_identity_gives_the_stock_models_logits(case: Case) -> None:
    ours = case.vlm.generate(case.tokens, prompt(*WORDS), CATALOGUE.plan("identity"))
    ids = case.ids(range(len(case.packed())))
    theirs = said_logs(case.stock(**case.inputs(ids)).logits[0, -1])
    assert torch.allclose(torch.tensor(ours.log_probabilities), theirs, atol=1e-5)


@each_size
@torch.no_grad()
def test_sixteen_tokens_of_a_free_answer_are_those_of_the_stock_model(case: Case) -> None:
    ours = case.vlm.generate(case.tokens, prompt(), CATALOGUE.plan("identity"), max_new_tokens=16)
    ids = case.ids(range(len(case.packed())))
    theirs = case.stock.generate(**case.inputs(ids), max_new_tokens=16, do_sample=False)[0, ids.shape[1] :]
    assert ours.text == case.vlm.tokenizer.decode(theirs, skip_special_tokens=True).strip()


@each_size
def test_each_token_of_the_grid_is_the_entry_that_the_stock_model_reads_there(case: Case) -> None:
    packed, rows, at = case.packed(), case.rows(), 0
    projected = case.tokens.signals[Signal.PROJECTED]
    for number, row in enumerate(rows):
        assert torch.allclose(projected[row], packed[at : at + len(row)], atol=1e-5)
        at += len(row) + (number > 0)
    assert at == len(packed)
    assert sorted(token for row in rows for token in row) == list(range(len(case.tokens)))


@each_size
@torch.no_grad()
@pytest.mark.parametrize("strategy", ["uniform_grid@9", "random_subset@5"])
def test_tokens_removed_before_the_model_leave_with_the_newlines_of_empty_rows(case: Case, strategy: str) -> None:
    ours = case.vlm.generate(case.tokens, prompt(*WORDS), CATALOGUE.plan(strategy))
    kept = set(ours.selection.anchor.tolist())
    assert torch.allclose(torch.tensor(ours.log_probabilities), said_logs(case.without(kept)), atol=1e-5)
    assert ours.sequence_per_layer == (case.ids(case.kept_entries(kept)).shape[1],) * 4
    assert ours.tokens_per_layer == (len(ours.selection),) * 4
    assert ours.selection.diagnostics["positions"] == ("renumbered" if case.family.axes == 1 else "original")


@each_family
@torch.no_grad()
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_cut_inside_equals_masking_in_the_prefill_and_in_each_step(case: Case, layer: int) -> None:
    plan = CATALOGUE.plan(f"fastv:layer={layer}@0.8")
    ours = case.vlm.generate(case.tokens, prompt(), plan, max_new_tokens=6)
    scored = case.vlm.generate(case.tokens, prompt(*WORDS), plan)
    packed = case.packed()
    entries = case.kept_entries(set(ours.selection.anchor.tolist()))
    newlines, at = set(), 0
    for number, row in enumerate(case.rows()):
        at += len(row)
        if number > 0:
            newlines.add(at)
            at += 1
    ids, said = case.ids(range(len(packed))), []
    places = (ids[0] == 4).nonzero()[:, 0].tolist()
    dropped = [place for entry, place in enumerate(places) if entry not in {*entries, *newlines}]
    assert dropped
    for number in range(6):
        logits = masked_reference(case.stock, ids, packed, dropped, layer, **case.beside(ids))
        if number == 0:
            assert torch.allclose(torch.tensor(scored.log_probabilities), said_logs(logits[-1]), atol=1e-5)
        said.append(int(logits[-1].argmax()))
        if said[-1] == 2:
            break
        ids = torch.cat([ids, torch.tensor([[said[-1]]])], dim=1)
    assert ours.text == case.vlm.tokenizer.decode(said, skip_special_tokens=True).strip()


@each_size
def test_signals_are_those_that_are_declared(case: Case) -> None:
    signals, count, views = case.tokens.signals, len(case.tokens), len(case.tokens.grid.views)
    inside = {Signal.TEXT, Signal.LAYER_ATTENTION, Signal.LAYER_STATE, Signal.TEACHER_ATTENTION}
    inside |= {Signal.ENCODER_BLOCKS, Signal.CROPS} & case.vlm.provides  # what the model can do, not what it says
    assert set(signals) | inside == case.vlm.provides
    assert (Signal.CLS_ATTENTION in signals) == case.family.has_cls
    for name, values in signals.items():
        assert torch.isfinite(values).all(), name
        wanted = views if name in (Signal.CLS_FEATURE, Signal.CLS_QUERY) else count
        assert values.shape[1 if name in PER_HEAD else 0] == wanted, name


@each_tiled_size
@torch.no_grad()
def test_signals_are_those_of_an_eager_tower(case: Case) -> None:
    signals = case.tokens.signals
    eager = case.family.model.from_pretrained(case.folder, attn_implementation="eager").eval()
    pixels, cut = case.vlm.cut(case.image, case.size)
    told = tower(eager)(pixels, output_attentions=True)
    layer = getattr(case.stock.config, "vision_feature_layer", -1)
    received = told.attentions[layer].mean((1, 2))
    assert torch.allclose(received.sum(-1), torch.ones(len(cut)), atol=1e-5)
    if case.family.has_cls:
        on_image = case.vlm._on_image(cut, case.size)
        assert torch.allclose(
            signals[Signal.RECEIVED_ATTENTION],
            pooled(received[:, 1:], case.family.merge).flatten()[on_image],
            atol=1e-5,
        )
        rows = pooled(told.attentions[layer][:, :, 0, 1:], case.family.merge).transpose(0, 1).flatten(1)
        assert torch.allclose(signals[Signal.CLS_ATTENTION], rows[:, on_image], atol=1e-5)
    else:
        # Tiles that were interpolated have no patches of their own.
        first = len(case.tokens.grid.views[0]) if case.family.name == "llava_onevision" else len(case.tokens)
        told_so = pooled(received, case.family.merge).flatten()
        assert torch.allclose(signals[Signal.RECEIVED_ATTENTION][:first], told_so[:first], atol=1e-5)


def gradient(size: Size) -> NDArray[np.uint8]:
    """A picture whose red is the column and whose green is the row, as shares of 255."""
    height, width = size
    made = np.zeros((height, width, 3))
    made[..., 0] = (np.arange(width) + 0.5) / width * 255
    made[..., 1] = ((np.arange(height) + 0.5) / height * 255)[:, None]
    return made.round().astype(np.uint8)


@pytest.mark.parametrize("size", [(400, 400), (500, 1000), (910, 370), (300, 1900), (640, 830)], ids=str)
@each_tiled_family
def test_boxes_say_which_pixels_a_token_was_made_of(case: Case, size: Size) -> None:
    pixels, views = case.vlm.cut(gradient(size), size)
    mean, std = (
        torch.tensor(part).view(3, 1, 1) for part in (case.vlm.processor.image_mean, case.vlm.processor.image_std)
    )
    cell = 8 * case.family.merge
    edge = pixels.shape[-1] // cell
    raw = ((pixels * std + mean) * 255)[:, :2, : edge * cell, : edge * cell]
    patches = raw.unflatten(3, (edge, cell)).unflatten(2, (edge, cell)).mean((3, 5)).permute(0, 2, 3, 1).flatten(0, 2)
    found = patches[case.vlm._on_image(views, size)].numpy() / 255  # share of the width, share of the height
    boxes = type(case.tokens.grid)(views, size).boxes()
    assert len(boxes) == len(found)
    height, width = size
    inside = (boxes[:, :2] >= 0).all(1) & (boxes[:, 2] <= width) & (boxes[:, 3] <= height)
    assert inside.sum() > len(boxes) / 2
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / [width, height]
    # One part in 255 of the colour and half a pixel of the smallest tile.
    assert np.abs(centres - found)[inside].max() < 1 / 255 + 0.5 / 32


@pytest.mark.parametrize("size", [(32, 32), (700, 90), (1, 500), (2000, 1333), (5000, 5000), (123, 457)], ids=str)
@each_family
def test_the_grid_is_that_of_the_original_however_small_it_was_read(case: Case, size: Size) -> None:
    if not case.family.is_tiled and max(size) > 200 * min(size):
        for ask in (case.vlm.wanted_size, case.vlm.count_tokens, case.vlm.notices):
            with pytest.raises(InvalidGrid, match="500 × 1 pixels.*at most 200 times the shorter one; choose a part"):
                ask(size)
        return
    wanted = case.vlm.wanted_size(size)
    assert max(wanted) <= max(*size, 600)
    tokens = case.vlm.encode(np.zeros((*wanted, 3), np.uint8), size)
    assert len(tokens) == case.vlm.count_tokens(size)
    assert tokens.grid.image_size == size
    assert all(view.box[0] < size[1] and view.box[1] < size[0] for view in tokens.grid.views)
    boxes = np.array([view.box for view in tokens.grid.views])
    assert boxes[:, :2].min() <= 0


@each_size
def test_the_patches_that_are_counted_are_those_that_the_tower_read(case: Case) -> None:
    if not case.family.is_tiled:
        read = case.family.read(case.folder, case.image)["pixel_values"]
        assert case.vlm.patches_per_view(case.tokens.grid) == (len(read),)
        return
    pixels, _ = case.vlm.cut(case.image, case.size)
    patches = (pixels.shape[-2] // 8) * (pixels.shape[-1] // 8)
    assert case.vlm.patches_per_view(case.tokens.grid) == (patches,) * len(pixels)
    assert len(pixels) == len(case.family.read(case.folder, case.image)["pixel_values"].flatten(0, -4))


@each_family
def test_notices_tell_what_a_model_does_not_see(case: Case) -> None:
    assert any("smaller things vanish" in notice for notice in case.vlm.notices((5000, 5000)))
    squeezed = any("not square" in notice or "shape of its tiles" in notice for notice in case.vlm.notices((640, 830)))
    assert squeezed == (case.family.is_tiled and case.family.name not in ("llava_next", "llava_onevision"))


@each_family
def test_every_strategy_runs_or_names_the_signal_that_is_missing(case: Case) -> None:
    before = hooks_on(case.vlm)
    refused = 0
    for name in CATALOGUE.names():
        plan = CATALOGUE.plan(f"{name}@{'1.0' if name == 'identity' else 0.7}")
        if plan.info.missing(case.vlm.provides):
            refused += 1
            with pytest.raises(MissingSignal):
                case.vlm.generate(case.tokens, prompt("a", "b"), plan)
            continue
        if looking(plan):
            with pytest.raises(NeedsSight, match=rf"{name} reads the image itself"):
                case.vlm.generate(case.tokens, prompt("a", "b"), plan)
            continue
        ours = case.vlm.generate(case.tokens, prompt("a", "b"), plan, probe=Recorder())
        assert np.isfinite(ours.log_probabilities).all(), name
    assert hooks_on(case.vlm) == before
    assert bool(refused) == (case.vlm.provides != PROVIDES | {Signal.CROPS})


@each_family
def test_what_stood_in_for_cls_is_a_label_of_the_run(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(case.image).save(path)
    inquiry = Inquiry(path, open_image(path), QUESTION, ("a", "b"))
    run = execute(inquiry, CATALOGUE.plan("fastervlm@0.5+fastv@0.4"), case.vlm, repeats=1)
    assert ("attention received in place of [CLS] attention" in run.labels) == (not case.family.has_cls)


class Asked:
    """A probe that adds up what the question's words attend to in one layer, by output."""

    def __init__(self, layer: int) -> None:
        self.layer = layer

    def attention(self, layer, rows, layout) -> None:
        if layer == self.layer:
            self.found = np.zeros(len(layout.outputs))
            self.found[layout.outputs] = rows[1:].sum(0).numpy()[layout.visual]


@each_size
def test_the_teacher_speaks_of_the_tokens_in_the_order_of_the_grid(case: Case) -> None:
    asked = Asked(3)
    case.vlm.generate(case.tokens, prompt("a", "b"), CATALOGUE.plan("identity"), probe=asked)
    ours = case.vlm.generate(case.tokens, prompt("a", "b"), CATALOGUE.plan("covipal:layer=1,guidance=3@0.7"))
    np.testing.assert_allclose(ours.selection.scores, asked.found / asked.found.sum(), atol=1e-6)


@dataclass(frozen=True)
class Watching(FastKV):
    """Notes which positions lie behind the picture at its act, and which words SparseVLM would choose among them."""

    heard: ClassVar[list[tuple[list[int], list[int], int]]] = []
    words: ClassVar[list[int]] = []  # behind the picture, where each layer's cache is compressed

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        assert context.state is not None
        state = context.state
        self.heard.append((state.behind.tolist(), rating_words(state).tolist(), state.length))
        return super().compress(tokens, budget, context)

    def cached(self, heads: Heads, visual: Tensor, behind: Tensor, keep: int) -> Tensor | None:
        self.words.append(len(behind))
        assert behind[-1] == heads.key.shape[1] - 1
        return super().cached(heads, visual, behind, keep)


@each_size
def test_what_follows_a_row_is_no_word_behind_the_picture(case: Case) -> None:
    Watching.heard.clear()
    Watching.words.clear()
    plan = Plan((Step(Watching(layer=2), Budget(count=len(case.tokens) - 2)),))
    case.vlm.generate(case.tokens, prompt(*WORDS), plan)
    [(behind, raters, length)] = Watching.heard
    last = prompt(*WORDS).text.index("<image>") + len("<image>")
    after = case.vlm.tokenizer(prompt(*WORDS).text[last:], add_special_tokens=False)["input_ids"]
    assert behind == list(range(length - len(after), length))
    assert Watching.words == [len(after)] * case.vlm.architecture.layers
    assert raters
    assert set(raters) <= set(behind)


@each_family
def test_separators_keep_their_place_among_the_tokens_that_are_left(case: Case) -> None:
    blocks = case.vlm.blocks(Selection.prune(len(case.tokens), np.arange(len(case.tokens))), case.tokens.grid)
    ids, layout = case.vlm.lay_out(prompt(*WORDS), blocks, case.tokens.grid)
    own = {*layout.visual.tolist(), *layout.separators.tolist()}
    assert own >= {at for at, one in enumerate(ids[0].tolist()) if one == 4}  # newlines have the picture's own id
    assert own == set(range(min(own), max(own) + 1))
    source, shorter = rearranged(layout, Selection.prune(len(layout.visual), [0, len(layout.visual) // 2]))
    assert source[shorter.separators].tolist() == layout.separators.tolist()


@pytest.mark.parametrize(
    "case", [one for one in SIZES if "llava_next" in one.id or "onevision" in one.id], indirect=True
)
def test_an_order_of_its_own_is_kept_tile_by_tile(case: Case) -> None:
    grid, rng = case.tokens.grid, np.random.default_rng(3)
    anchors = np.concatenate(
        [rng.permutation(np.arange(*grid.tokens_of(view).indices(len(grid))[:2])) for view in range(len(grid.views))]
    )
    selection = Selection.merge(len(grid), anchors, [([one], [1.0]) for one in anchors])
    [block] = case.vlm.blocks(selection, grid)
    assert anchors[block[block >= 0]].tolist() == anchors.tolist()
    assert (block < 0).sum() == len(grid.views) - 1


class Sums:
    """A probe that keeps the sum of every row."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def attention(self, layer, rows, layout) -> None:
        assert rows.shape[1] == layout.length
        self.seen.append(rows.sum(-1))


@each_family
@pytest.mark.parametrize("strategy", ["identity", "fastv:layer=2@0.8", "uniform_grid@6"])
def test_attention_rows_sum_to_one(case: Case, strategy: str) -> None:
    probe = Sums()
    case.vlm.generate(case.tokens, prompt("a", "b"), CATALOGUE.plan(strategy), probe=probe)
    assert len(probe.seen) == 4
    assert torch.allclose(torch.stack(probe.seen), torch.ones(4, 6), atol=1e-5)


def tower(model: Any) -> Any:
    """The vision tower of a library's model, by either of its names."""
    return getattr(model.model, "vision_tower", None) or model.model.vision_model


def tower_layers(vlm: Any) -> Any:
    if hasattr(vlm.model.model, "visual"):
        return vlm.model.model.visual.blocks
    encoder = tower(vlm.model).encoder
    return encoder.layer if hasattr(encoder, "layer") else encoder.layers


def answer(case: Case) -> None:
    """Read the picture and answer, with a strategy inside the language model and someone who listens."""
    tokens = case.vlm.encode(case.image, case.size)
    case.vlm.generate(tokens, prompt("a", "b"), CATALOGUE.plan("fastv@0.8"), probe=Recorder())


@each_family
def test_no_hook_survives_a_layer_that_raises(case: Case) -> None:
    def fail(*_args):
        raise FloatingPointError("a layer that fails")

    before = hooks_on(case.vlm)
    for module in (case.vlm.decoder_layers[2], tower_layers(case.vlm)[1]):
        handle = module.register_forward_hook(fail)
        with pytest.raises(FloatingPointError):
            answer(case)
        handle.remove()
    assert hooks_on(case.vlm) == before


@each_family
@pytest.mark.parametrize("strategy", ["identity", "uniform_grid@9", "fastv:layer=1@0.8"])
def test_a_packed_question_and_a_score_agree_with_the_answer(case: Case, strategy: str) -> None:
    asked = prompt("north east", "west", "red")
    plan = CATALOGUE.plan(strategy)
    alone = case.vlm.generate(case.tokens, asked, plan)
    together = case.vlm.ask(case.vlm.give(case.tokens, asked, plan), [asked, prompt("a", "b"), asked])
    np.testing.assert_allclose(together[0][0], alone.log_probabilities, atol=3e-5)
    np.testing.assert_allclose(together[2][0], alone.log_probabilities, atol=3e-5)
    if strategy == "identity":
        projected = case.tokens.signals[Signal.PROJECTED]
        for choice, told in zip(asked.choices, alone.log_probabilities, strict=True):
            assert float(case.vlm.score(projected, case.tokens, asked, choice)) == pytest.approx(told, abs=3e-5)


@each_family
def test_a_run_from_the_command_line_answers(case: Case, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(case.image).save("picture.png")
    call = ["run", "picture.png", QUESTION, "--model", str(case.folder), "-s", "identity", "-s", "uniform_grid@6"]
    assert main(call) == 0
    assert "uniform_grid" in capsys.readouterr().out
    assert case.vlm.card.family == case.family.name


@each_family
def test_a_checkpoint_with_pickled_weights_only_is_refused(case: Case, tmp_path) -> None:
    for file in case.folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(ModelUnavailable, match="safetensors"):
        load_model(str(tmp_path))


@each_family
def test_the_prompt_of_a_checkpoint_has_one_place_for_the_picture(case: Case) -> None:
    asked = case.vlm.prompt(QUESTION)
    assert asked.text.count("<image>") == 1
    ids, layout = case.vlm.lay_out(asked, case.vlm.blocks(everything(case), case.tokens.grid), case.tokens.grid)
    assert [case.vlm.tokenizer.convert_ids_to_tokens(int(ids[0, at])) for at in layout.question] == QUESTION.split()
    assert case.vlm.tokenizer.unk_token_id not in ids[0]


def everything(case: Case) -> Selection:
    return Selection.prune(len(case.tokens), np.arange(len(case.tokens)))


@torch.no_grad()
@pytest.mark.parametrize(
    "case", [pytest.param((family, family.sizes[-1]), id=family.label) for family in FAMILIES
     if family.is_tiled and family.merge > 1],
    indirect=True,
)  # fmt: skip
def test_a_shuffled_token_is_made_of_the_patches_in_its_box(case: Case) -> None:
    edge, merge = case.vlm.edge, case.family.merge
    numbers = torch.arange((edge * merge) ** 2).view(1, edge * merge, edge * merge, 1)
    if hasattr(case.stock.model, "connector"):
        made = case.stock.model.connector.pixel_shuffle(numbers.flatten(1, 2), merge)
        shuffled = made.view(edge, edge, merge**2)
    else:
        shuffled = case.stock.model.pixel_shuffle(numbers, scale_factor=case.stock.config.downsample_ratio)[0]
    for row in range(edge):
        for col in range(edge):
            lines, across = range(row * merge, (row + 1) * merge), range(col * merge, (col + 1) * merge)
            assert sorted(shuffled[row, col].tolist()) == [line * edge * merge + at for line in lines for at in across]
    flat = numbers.flatten().float()
    assert torch.equal(case.vlm.pooled(flat), shuffled.float().sum(-1).flatten())
    assert torch.equal(case.vlm.pooled(flat), pooled(flat, merge))


def test_a_checkpoint_that_wants_remote_code_is_refused(tmp_path) -> None:
    told = '{"model_type": "other", "auto_map": {"AutoConfig": "code.OtherConfig"}, "architectures": ["Other"]}'
    (tmp_path / "config.json").write_text(told)
    (tmp_path / "code.py").write_text("raise SystemExit('this code must not run')")
    with pytest.raises(ModelUnavailable, match="cannot be loaded: it wants code of its own to be run") as refused:
        load_model(str(tmp_path))
    assert str(refused.value).count("\n") == 0


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('{"model_type": "bert"}', "of the family 'bert'"),
        ('{"model_type": "nobody-knows"}', "of the family 'nobody-knows'"),
        ("{}", "no config.json with a model_type"),
    ],
)
def test_an_unknown_family_is_told_which_are_known(tmp_path, config, said) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UnknownModel, match=said) as refused:
        load_model(str(tmp_path))
    assert all(family.name in str(refused.value) for family in FAMILIES)
    assert {family.name for family in FAMILIES} | {"embedded"} == {known.family for known in known_models()}
