"""weights = "auto" measures plans of a graph, and writes the one that is chosen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from handlers.artifact.manifest import Artifact
from model_export import plan_choice, plan_search
from model_export.__main__ import main
from model_export.pipeline import export, measure_plans
from model_export.plan_choice import MeasuredPlan
from model_export.plan_search import BAR, PlanSearch, table
from model_export.quantize import matrices_of, output_projection
from model_export.quantize.plan import Frontier, OutputProjection
from model_export.recipe import BITS, DecoderTolerance, Precision
from model_export.recipe_loader import load_decoder_recipe
from model_export.reporting import ExportError
from model_export.save import save
from model_export.verify.exchange import DriftRequest, Outcome
from tests.support.reports import ignore
from tests.support.tiny_folder import save_tiny_folder
from tests.support.tiny_models import CONTEXT_LENGTH
from tests.support.traced import fused

LIMITS = DecoderTolerance(max_kl=0.1, min_top1_agreement=0.9, max_perplexity_ratio=1.1)
AUTO = Precision("auto")


def test_the_table_has_a_line_for_each_plan_with_its_speed_by_bytes_and_a_bar_of_its_kl() -> None:
    plans = [
        MeasuredPlan(n, f"{200 - n} int4, {n} int8", 1000 + 10 * n, 1 - n / 200, 1.0, 1.0)
        for n in (0, 100, 200)
    ]
    head, *lines = (line.split() for line in table(plans).splitlines())
    assert head == ["matrices", "MB", "top-1", "ratio", "decode", "speed", "KL"]
    assert [line[:4] for line in lines][1] == ["100", "int4,", "100", "int8"]
    assert [line[7] for line in lines] == ["1.00", "0.50", "0.33"]
    bars = [line[9] if len(line) > 9 else "" for line in lines]
    assert [len(bar) for bar in bars] == [round(BAR * plan.kl / plans[0].kl) for plan in plans]
    assert {*"".join(bars)} == {"\N{FULL BLOCK}"}


def test_plans_that_lose_nothing_have_no_bars() -> None:
    exact = [
        MeasuredPlan(0, "1 int4", 100, 0.0, 1.0, 1.0),
        MeasuredPlan(1, "1 int8", 200, 0.0, 1.0, 1.0),
    ]
    assert "\N{FULL BLOCK}" not in table(exact)


def limited(max_kl: float) -> DecoderTolerance:
    return DecoderTolerance(max_kl=max_kl, min_top1_agreement=0.9, max_perplexity_ratio=1.1)


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlanSearch:
    """A search over a tiny graph, whose KL falls from 1 to 0 with the bits of its matrices."""

    def measured(request: DriftRequest, *_: object) -> Outcome:
        bits = bits_in(request.graph)
        kl = sum(8 - each for each in bits) / (4 * len(bits))
        return Outcome({"kl": kl, "top1_agreement": 1.0, "perplexity_ratio": 1.0}, None)

    monkeypatch.setattr(plan_search, "verify", measured)
    return searching(AUTO, tmp_path)


def searching(precision: Precision, directory: Path) -> PlanSearch:
    reference: Any = Reference(directory)
    return PlanSearch(fused("llama"), precision, reference, directory, 1, ignore)


class Reference:
    """Holds what a search asks of a reference."""

    def __init__(self, directory: Path) -> None:
        self.windows, self.choosing, self.vocabulary = [[1, 2]], [[3, 4]], 512
        self.logits = directory / "logits"


def bits_in(graph: Path) -> list[int]:
    nodes = ir.load(graph).graph
    return [n.attributes["bits"].value for n in nodes if n.op_type == "AffineMatMul"]


def test_the_smallest_plan_that_holds_is_what_is_written(
    search: PlanSearch, tmp_path: Path
) -> None:
    upgrades = search.chosen(limited(0.5))
    assert 0 < upgrades < len(search.frontier.upgrades)
    save(search.quantised(upgrades), tmp_path / "out")
    plan = search.frontier.plan(upgrades)
    assert sorted(bits_in(tmp_path / "out" / "model.onnx")) == sorted(
        BITS[each] for each in plan.values()
    )


def test_what_was_measured_of_the_chosen_plan_becomes_the_artefact(
    search: PlanSearch, tmp_path: Path
) -> None:
    upgrades = search.chosen(limited(0.5))
    assert not search.move_chosen(upgrades + 1, tmp_path / "moved")
    (tmp_path / "moved").mkdir()  # as an export that was interrupted leaves it
    (tmp_path / "moved" / "older").touch()
    assert search.move_chosen(upgrades, tmp_path / "moved")
    save(search.quantised(upgrades), tmp_path / "anew")
    assert bytes_in(tmp_path / "moved") == bytes_in(tmp_path / "anew")
    assert not search.move_chosen(upgrades, tmp_path / "again")


def bytes_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_smaller_plan_of_equal_bits_is_taken_where_it_holds_too(
    search: PlanSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where what the order of the matrices gives most bits is not what needs them."""

    def measured(request: DriftRequest, *_: object) -> Outcome:
        bits = bits_in(request.graph)
        kl = {4: 1.0, 5: 0.25}.get(min(bits), 0.0)  # the matrix with the fewest decides
        return Outcome({"kl": kl, "top1_agreement": 1.0, "perplexity_ratio": 1.0}, None)

    monkeypatch.setattr(plan_search, "verify", measured)
    upgrades = search.chosen(limited(0.4))
    plan = search.frontier.plan(upgrades)
    assert set(plan.values()) == {"compact5"}
    assert search.measured[-1].bytes < min(
        each.bytes for each in search.measured[:-1] if each.kl <= 0.32
    )
    assert search.move_chosen(upgrades, tmp_path / "moved")
    assert set(bits_in(tmp_path / "moved" / "model.onnx")) == {5}


def test_where_no_smaller_plan_of_equal_bits_holds_the_searched_one_stays(
    search: PlanSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_search, "UNCERTAIN", 100.0)
    upgrades = search.chosen(limited(0.5))
    assert search.measured[-1].kl > 0.4  # of all in compact5, which was tried
    assert 0 < upgrades < len(search.frontier.upgrades)
    assert len({*search.frontier.plan(upgrades).values()}) > 1


def test_where_all_matrices_keep_their_blocks_nothing_is_measured(
    search: PlanSearch, tmp_path: Path
) -> None:
    search.frontier = Frontier(search.frontier.smallest, ())
    assert search.chosen(limited(0.0)) == 0
    assert not search.measured
    assert not search.move_chosen(0, tmp_path / "moved")


def test_a_manifest_has_the_plan_by_matrix_and_all_that_was_measured(search: PlanSearch) -> None:
    upgrades = search.chosen(limited(0.5))
    info = search.info(upgrades)
    assert set(info.weights) == set(matrices_of(fused("llama"), AUTO))
    assert {*info.weights.values()} <= {*BITS}
    assert info.weights == search.frontier.plan(upgrades)
    assert (info.measured[0]["upgrades"], info.measured[0]["kl"]) == (0, 1.0)
    assert any(each["upgrades"] == upgrades and each["kl"] <= 0.4 for each in info.measured)


def test_the_output_projection_is_part_of_the_plan_unless_it_has_weights_of_its_own(
    tmp_path: Path,
) -> None:
    for head, ends in (("int4", (4, 4)), ("int6", (6, 6)), ("int8", (8, 8)), ("", (4, 8))):
        found = searching(Precision("auto", lm_head=head), tmp_path)
        for count, bits in zip((0, len(found.frontier.upgrades)), ends, strict=True):
            save(found.quantised(count), tmp_path / "out")
            assert bits_in(tmp_path / "out" / "model.onnx")[-1] == bits


@pytest.mark.parametrize(("family", "copies"), [("llama", 1), ("qwen2", 2)])
def test_an_embedding_of_its_own_has_the_weights_of_the_output_projection_and_its_bytes_count(
    family: str, copies: int, tmp_path: Path
) -> None:
    graph = fused(family)
    search = PlanSearch(graph, AUTO, Reference(tmp_path), tmp_path, 1, ignore)  # type: ignore[arg-type]
    head = list(matrices_of(graph, AUTO))[-1]
    assert output_projection(graph) == OutputProjection(head, is_untied=copies == 2)
    shape = matrices_of(graph, AUTO)[head].shape
    first = next(each for each in search.frontier.upgrades if each.matrix == head)
    assert first.weights == "compact5"
    assert first.extra == copies * shape[0] * shape[1] // 8
    largest = search.quantised(len(search.frontier.upgrades)).graph
    (gather,) = (node for node in largest if node.op_type == "AffineGather")
    product = [node for node in largest if node.op_type == "AffineMatMul"][-1]
    assert gather.attributes["bits"].value == product.attributes["bits"].value == 8


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_a_budget_is_filled_and_not_passed(share: float, tmp_path: Path) -> None:
    free = searching(AUTO, tmp_path)
    matrices = len(free.frontier.upgrades)
    least, most = (written(free, count, tmp_path) for count in (0, matrices))
    budget = least + share * (most - least)
    found = searching(Precision("auto", max_mb=budget / 1e6), tmp_path)
    count = found.chosen(LIMITS)
    assert written(found, count, tmp_path) <= budget
    assert sorted(map(str, found.frontier.upgrades)) == sorted(map(str, free.frontier.upgrades))
    taken = found.frontier.upgrades[:count]
    for each in free.frontier.next_after(taken):
        found.frontier = free.frontier.with_first([*taken, each])
        assert written(found, count + 1, tmp_path) > budget
    assert not found.measured


def test_a_budget_gives_all_matrices_the_same_bits_unless_others_are_predicted_to_lose_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = searching(AUTO, tmp_path)
    free.frontier = free.frontier.above("compact5")
    budget = written(free, 0, tmp_path) + 4096
    bits, left = list[set[int]](), list[float]()
    for uncertain in (1.0, 100.0):
        monkeypatch.setattr(plan_search, "UNCERTAIN", uncertain)
        found = searching(Precision("auto", max_mb=budget / 1e6), tmp_path)
        count = found.chosen(LIMITS)
        assert written(found, count, tmp_path) <= budget
        bits.append({*bits_in(tmp_path / "out" / "model.onnx")})
        left.append(found.frontier.loss(count))
    assert left[0] <= left[1]
    assert min(bits[1]) == 5


def test_a_budget_below_all_compact4_is_refused_with_what_that_takes(tmp_path: Path) -> None:
    found = searching(Precision("auto", max_mb=0.1), tmp_path)
    with pytest.raises(
        ExportError, match=r"all matrices in compact4 the weights take 0\.2 MB: raise"
    ):
        found.chosen(LIMITS)
    assert searching(Precision("auto", max_mb=0.3), tmp_path).chosen(LIMITS) >= 0


def written(search: PlanSearch, int8: int, directory: Path) -> int:
    save(search.quantised(int8), directory / "out")
    return (directory / "out" / "model.onnx.data").stat().st_size


def test_an_encoder_has_no_plans(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bge-small-en-v1.5", "--plan"]) == 1
    assert "--plan is for decoders, and the recipe bge-small-en-v1.5 is" in capsys.readouterr().err


RECIPE = f"""
[model]
id = "Tiny"
licence = "Apache-2.0"

[source]
path = "source"

[export]
context_length = {CONTEXT_LENGTH}

[precision]
weights = "auto"

[tolerance]
max_kl = MAX_KL
min_top1_agreement = 0.0
max_perplexity_ratio = 2.0
"""


def test_an_export_finds_its_weights_and_passes_the_gates_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_search, "SHOWN", (0, 1))  # each takes a process
    monkeypatch.setattr(plan_choice, "STEPS", 3)
    save_tiny_folder(tmp_path / "source")
    path, lines = tmp_path / "tiny.toml", list[str]()
    path.write_text(RECIPE.replace("MAX_KL", "1000"))
    shown = measure_plans(load_decoder_recipe(str(path)), tmp_path / "out", ignore)
    plans, drafts = shown.split("\n\n")
    assert "the first 1 of 3 layers" in drafts
    rows = [line.split() for line in plans.splitlines()[1:]]
    drift = [float(row[-2] if row[-1].startswith("\N{FULL BLOCK}") else row[-1]) for row in rows]
    assert drift[0] > drift[-1]
    assert drift[-1] < 0.05  # against the logits of the same windows
    assert sorted(found.name for found in tmp_path.iterdir()) == ["source", "tiny.toml"]

    limit = (drift[0] + drift[-1]) / 2
    path.write_text(RECIPE.replace("MAX_KL", str(limit)))
    export(load_decoder_recipe(str(path)), tmp_path / "out", lines.append)
    manifest = Artifact.open(tmp_path / "out").manifest
    assert manifest.plan is not None
    counts = Counter(manifest.plan.weights.values())
    words = ", ".join(f"{counts[weights]} {weights}" for weights in BITS if counts[weights])
    assert counts["compact4"] < counts.total()
    assert manifest.precision == f"auto: affine block 32, {words}"
    assert manifest.verification["drift"]["kl"] <= limit
    bits = Counter(bits_in(tmp_path / "out" / "model.onnx"))
    assert bits == Counter({BITS[weights]: count for weights, count in counts.items()})
    assert any(line.startswith(f"plan: {words}, ") for line in lines)
