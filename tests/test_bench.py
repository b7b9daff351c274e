"""The benchmark: what would make it hang, measure another program, or report what is not so."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bench import __main__ as program
from bench import draft, export, random_weights, report, rounds, servers, sizes, sweep, watched
from bench.chart import PANELS, chart
from bench.cold import cold_start
from bench.cost import Prices, per_million
from bench.export_stages import stages_of
from bench.exporters import Exporter, kindling
from bench.goals import GOALS, MODEL, Goal, judge, ratios
from bench.machine import describe_machine
from bench.peers import PEERS, llama_cpp
from bench.peers.llama_convert import PRE_TOKENIZER, with_own_vocabulary
from bench.peers.peer import Peer
from bench.prepare import NotRunnable
from bench.prompts import Prompts
from bench.rounds import Entry, Plan
from bench.runtime_api import RuntimeApi
from bench.scripted_draft import CERTAIN, ScriptedRunner, hits_of
from bench.servers import Capacity, Server, python, running
from bench.watched import Command, Limits, Usage
from bench.workload import ask, first_answer
from handlers.engine.batch import Batch
from tests.engine.fake_session import VOCAB, FakeSession

CAPACITY = Capacity(threads=1, slots=1)

# A function that answers as the Lambda entry must, by the Runtime API alone.
FUNCTION = """
import json, os, time, urllib.request
api = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/"
with urllib.request.urlopen(api + "invocation/next") as invocation:
    identity = invocation.headers["Lambda-Runtime-Aws-Request-Id"]
    event = json.load(invocation)
assert event["rawPath"] == "/v1/completions", event
usage = {"prompt_tokens": 38, "completion_tokens": json.loads(event["body"])["max_tokens"]}
answer = {"statusCode": 200, "body": json.dumps({"usage": usage})}
url = api + "invocation/" + identity + "/response"
urllib.request.urlopen(urllib.request.Request(url, json.dumps(answer).encode())).close()
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def logs_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(servers, "CACHE", tmp_path)
    monkeypatch.setattr(rounds, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(servers, "END_LIMIT_SECONDS", 1)  # a background job takes no SIGINT


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port: int = closed.getsockname()[1]
    return port


def test_a_port_that_is_taken_is_refused_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = Server("occupied", other.getsockname()[1], python("-c", "pass"))
        with pytest.raises(RuntimeError, match="is taken"), running(server):
            pass


def test_a_server_that_dies_while_it_starts_is_not_waited_for() -> None:
    server = Server("dying", unused_port(), python("-c", "raise SystemExit(3)"))
    with running(server) as process, pytest.raises(RuntimeError, match=r"status 3.*dying\.log"):
        first_answer(server, process, "a prompt")


def serve(events: bytes, *, busy: int = 0) -> Iterator[Server]:
    """A server that answers `busy` requests with 503, and then all of them with these events."""
    refused = iter(range(busy))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(503 if next(refused, None) is not None else 200)
            self.end_headers()
            self.wfile.write(events)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield Server("fake", http.server_port, ())
        http.shutdown()


USAGE = b'"usage": {"prompt_tokens": 38, "completion_tokens": %d}'
TOKEN = b'data: {"choices": [{"text": "a"}]}\n\n'


def test_a_server_that_answers_503_while_it_loads_is_asked_again() -> None:
    with running(Server("idle", 0, python("-c", "import time; time.sleep(600)"))) as process:
        for server in serve(TOKEN + b'data: {"choices": [], ' + USAGE % 1 + b"}\n\n", busy=2):
            answer = first_answer(server, process, "a prompt")
            assert answer.sent <= answer.first == answer.last


def test_an_answer_of_another_length_is_no_figure() -> None:
    for server in serve(TOKEN + b'data: {"choices": [], ' + USAGE % 1 + b"}\n\n"):
        with pytest.raises(RuntimeError, match="'completion_tokens': 1"):
            ask(server, "a prompt", 38, 2)


def test_a_server_without_usage_must_say_that_it_reached_the_limit() -> None:
    for server in serve(
        TOKEN + b'data: {"choices": [{"text": "", "finish_reason": "length"}]}\n\n'
    ):
        assert ask(server, "a prompt", 38, 1).first > 0
    for server in serve(TOKEN + b'data: {"choices": [{"text": "", "finish_reason": "stop"}]}\n\n'):
        with pytest.raises(RuntimeError, match="stop"):
            ask(server, "a prompt", 38, 1)


def test_a_lambda_function_is_invoked_through_the_runtime_api() -> None:
    start = cold_start(Server("function", 0, python("-c", FUNCTION)), "a prompt")
    assert start.milliseconds > 0
    assert start.read_mb >= 0


def test_a_function_that_ends_without_an_answer_is_not_waited_for() -> None:
    with pytest.raises(RuntimeError, match="ended"):
        cold_start(Server("function", 0, python("-c", "pass")), "a prompt")


def test_a_functions_error_is_reported_with_its_words() -> None:
    with RuntimeApi() as api:
        url = f"http://{api.address}/2018-06-01/runtime/init/error"
        urllib.request.urlopen(url, b'{"errorMessage": "no model"}').close()
        with pytest.raises(RuntimeError, match="no model"):
            api.answer(lambda: True, 10)


def test_no_prompt_is_asked_twice() -> None:
    prompts = Prompts({38: ["one", "two"]})
    assert [prompts.take(38), prompts.take(38)] == ["one", "two"]
    with pytest.raises(RuntimeError, match="No prompt of 38"):
        prompts.take(38)


def test_a_plan_has_a_prompt_for_every_question() -> None:
    plan = Plan(rounds=2, first_tokens={38: 3, 64: 1})
    # The first start; then in each round two cold starts, the first answer, 8 streams of warm-up,
    # 3 first tokens, and 1 + 4 + 8 streams; and of the longest one warm-up and one measurement.
    assert plan.prompts()[38] == 1 + 2 * (2 + 1 + 8 + 3 + 13)
    assert plan.prompts()[64] >= 2 * (1 + 1)


def absent() -> None:
    raise NotRunnable("no compiler")


def peer(name: str, **options: Any) -> Peer:
    return Peer(name, "weights", lambda _: Server(name, 0, python("-c", "pass")), **options)


def test_a_peer_that_cannot_be_had_is_reported_with_its_reason() -> None:
    entry = Entry(peer("absent", prepare=absent), CAPACITY, {})
    written = report.document([entry], describe_machine(1), 1.0, [])
    assert written["peers"]["absent"]["failed"] == "making it ready: no compiler"
    assert "absent failed at making it ready: no compiler" in report.card(written)


def test_a_peer_that_fails_later_keeps_its_reason_and_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounds, "make_prompts", lambda counts: {n: ["text"] * 99 for n in counts})
    (entry,) = rounds.measure([peer("dying", cold_only=True)], CAPACITY, Plan(rounds=1))
    assert entry.failed is not None
    assert entry.failed.startswith("its first start: The function ended")


MEDIANS = {
    "kindling": {"cold_start_ms": 500.0, "decode_1_tok_s": 120.0, "first_start_read_mb": 130.0},
    "llama-server": {"cold_start_ms": 1000.0, "decode_1_tok_s": 100.0},
    MODEL: {"first_start_read_mb": 100.0},
}


def test_a_ratio_is_ours_over_theirs_of_what_both_have() -> None:
    expected = {"cold_start_ms": 0.5, "decode_1_tok_s": 1.2}
    assert ratios(MEDIANS) == {"llama-server": {"kindling": expected}}


def test_a_goal_is_met_missed_or_not_measured() -> None:
    judged = {
        (row["entry"], row["metric"], row["against"]): (row["ratio"], row["met"])
        for row in judge(MEDIANS)
    }
    assert len(judged) == len(GOALS)
    assert judged["kindling", "cold_start_ms", "llama-server"] == (0.5, True)
    assert judged["kindling", "decode_1_tok_s", "llama-server"] == (1.2, False)
    assert judged["kindling", "first_start_read_mb", MODEL] == (1.3, True)
    assert judged["kindling", "cold_start_ms", "plain"] == (None, None)


def test_every_goal_names_entries_and_a_metric_that_exist() -> None:
    for goal in GOALS:
        assert goal.ours in PEERS
        assert goal.theirs in {*PEERS, MODEL}
        assert goal.metric in report.METRICS
    assert Goal("kindling", "cold_start_ms", "plain", 0.8).wanted == "<= 0.8x"


@pytest.fixture
def written() -> dict[str, Any]:
    ours = Entry(peer("kindling"), CAPACITY, {})
    for metric in report.METRICS:
        ours.samples[metric] += [1.0, 3.0, 2.0]
    theirs = Entry(peer("<other> & co", prepare=absent), CAPACITY, {})
    return report.document([ours, theirs], describe_machine(1), 1.0, ["nothing"])


def test_the_tables_hold_every_figure_with_its_spread(written: dict[str, Any]) -> None:
    card = report.card(written)
    assert card.count("2 (1-3)") == len(report.METRICS)
    assert "skipped: nothing" in card
    assert len(report.goals_table(written).splitlines()) == 1 + len(GOALS)


def test_a_row_has_a_cell_for_every_column_of_the_page(written: dict[str, Any]) -> None:
    page = (servers.ROOT / "BENCHMARKS.md").read_text()
    header = next(line for line in page.splitlines() if line.startswith("| date"))
    assert report.row(written).count("|") == header.count("|")


def test_the_chart_is_xml_with_a_bar_for_every_figure(written: dict[str, Any]) -> None:
    drawn = ET.fromstring(chart(written))
    assert len(drawn.findall(".//{http://www.w3.org/2000/svg}rect")) == len(PANELS)


def test_the_barrier_is_put_into_llama_cpps_source_once() -> None:
    source = f"void init() {{\n{llama_cpp.LOAD}\n}}\n"
    patched = llama_cpp.with_barrier(source)
    assert patched.count("__asm__") == 1
    assert llama_cpp.with_barrier(patched) == patched


def test_a_million_tokens_cost_what_the_table_says() -> None:
    prices = Prices("2000-01-01", lambda_gb=1.0, cloud_run_vcpu=10.0, cloud_run_gib=1.0)
    # 2 CPUs of Lambda come with 2 x 1769 MB; a larger process needs more, and gets it.
    assert prices.lambda_second(2, 100) == 2 * 1769 / 1024
    assert prices.lambda_second(1, 2048 * 2**20 / 1e6) == 2.0
    assert prices.cloud_run_second(2, 100) == 20.5
    assert prices.cloud_run_second(1, 0.6 * 2**30 / 1e6) == 10.75
    assert per_million(2.0, 4.0) == 500_000


def test_the_shipped_prices_are_dated_and_positive() -> None:
    prices = Prices.load()
    assert prices.date >= "2026"
    assert min(prices.lambda_gb, prices.cloud_run_vcpu, prices.cloud_run_gib) > 0


def test_a_sweeps_row_has_every_column() -> None:
    row = {"precision": "int4", "threads": 2, "context_length": 512, "cold_start_ms": 1.0}
    row |= {"prefill_tok_s": 500.0, "decode_1_tok_s": 100.0, "decode_8_tok_s": 200.0}
    row |= {"peak_rss_mb": 300.0}
    assert sweep.table([row | sweep.costs(row, Prices.load())]).count("\n") == 2


def test_a_sweep_is_of_the_demo_and_of_other_decoders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "MODEL", tmp_path / "model")
    for name, task in {"larger": "text-generation", "embeddings": "feature-extraction"}.items():
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "manifest.json").write_text(json.dumps({"task": task}))
    assert sweep.exported() == [tmp_path / "model", tmp_path / "models" / "larger"]


@pytest.mark.parametrize("benchmark", [sizes, export])
def test_the_other_benchmarks_get_the_recipes_that_are_named(
    monkeypatch: pytest.MonkeyPatch, benchmark: ModuleType
) -> None:
    named: list[list[str]] = []
    monkeypatch.setattr(benchmark, "main", named.append)
    name = benchmark.__name__.removeprefix("bench.")
    monkeypatch.setattr("sys.argv", ["bench", name, "gpt2", "qwen3-0.6b"])
    program.main()
    assert named == [["gpt2", "qwen3-0.6b"]]


def test_a_table_of_sizes_has_a_cell_for_every_figure_that_a_model_has() -> None:
    figures = {"model": "tiny", "date": "today", "export_seconds": 1234, "read_tok_s": 5.4}
    head, _, row = sizes.table([figures]).split("\n")
    assert head.count("|") == row.count("|") == len(sizes.COLUMNS) + 2
    assert row.replace(" ", "").strip("|").split("|")[:3] == ["`tiny`", "today", "1,234"]


HOLDER = """
import subprocess, sys, time
subprocess.run([sys.executable, "-c", "a = bytearray(200_000_000); import time; time.sleep(2)"])
"""


def watch(script: str, tmp_path: Path, **limits: float) -> Usage:
    return watched.run(Command(python("-c", script)), tmp_path / "log", Limits(**limits))


def test_a_programs_memory_and_time_are_those_of_its_children_too(tmp_path: Path) -> None:
    usage = watch(HOLDER, tmp_path)
    assert usage.failed is None
    assert usage.seconds > 2
    assert usage.cpu_seconds > 0
    assert 200 < usage.peak_own_mb < usage.peak_mb < 300


def test_a_program_that_takes_too_much_memory_is_killed_alone(tmp_path: Path) -> None:
    usage = watch(HOLDER.replace("sleep(2)", "sleep(600)"), tmp_path, memory_mb=150)
    assert usage.failed == "killed: it took more than 150 MB of memory"
    assert usage.peak_own_mb > 150
    assert usage.seconds < 60


def test_a_program_that_fills_the_disk_is_killed(tmp_path: Path) -> None:
    usage = watch("import time; time.sleep(600)", tmp_path, free_disk_mb=1e12)
    assert usage.failed is not None
    assert usage.failed.startswith("killed: it left less than")


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    assert watch("raise SystemExit('no such tensor')", tmp_path).failed == (
        "ended with 1: no such tensor"
    )


def test_an_exports_seconds_are_told_by_stage() -> None:
    lines = "[   2.0 s] load x\n[   5.5 s] odd words\n[   6.0 s] fuse\n[   8.0 s] done: x\n"
    assert stages_of("A warning\n" + lines, 9.5) == {"start": 3.5, "load": 4.0, "fuse": 2.0}


def write(path: Path) -> Command:
    script = "import sys, time; time.sleep(0.1); open(sys.argv[1], 'wb').write(bytes(10**6))"
    return Command(python("-c", script, str(path)))


def test_an_exporters_programs_are_measured_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "weights").write_text("1")

    def commands(folder: Path) -> dict[str, Command]:
        return {name: write(folder / "made" / name) for name in ("one", "two")}

    figures = export.measure(Exporter("made", commands, "two"), tmp_path, Limits())
    assert figures["artefact_mb"] == 1.0
    assert isinstance(figures["stages"], dict)
    assert [*figures["stages"]] == ["one", "two"]
    assert min(figures["stages"].values()) >= 0.1
    assert sum(figures["stages"].values()) == pytest.approx(figures["seconds"], abs=0.2)
    assert figures["failed"] is None


def test_an_exporter_that_cannot_be_had_is_a_row_with_its_reason(tmp_path: Path) -> None:
    figures = export.measure(Exporter("absent", lambda _: {}, "x", absent), tmp_path, Limits())
    row = {"model": "tiny", "exporter": "absent"} | figures
    table = export.table([row, row | {"peak_rss_mb": 5.0}]).split("\n")
    assert "failed: no compiler" in table[2]
    assert len({line.count("|") for line in table}) == 1


def test_a_demo_is_exported_from_its_package_too() -> None:
    names = [exporter.name for exporter in export.exporters_of("smollm2-135m", None)]
    assert names == ["kindling", "kindling-package", "llama.cpp", "genai"]
    other = [exporter.name for exporter in export.exporters_of("qwen2.5-0.5b", Path("before"))]
    assert other == ["kindling", "kindling-before", "llama.cpp", "genai"]


def test_another_revision_is_exported_in_its_own_tree(tmp_path: Path) -> None:
    (command,) = kindling("before", tmp_path).commands(Path("folder")).values()
    assert command.directory == tmp_path
    assert command.words[1:] == (
        *("-m", "model_export", "folder/recipe.toml", "--out", "folder/before/model"),
    )


def test_no_row_of_a_large_random_matrix_is_like_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random_weights, "BLOCK", 101)
    parts = list(random_weights.values_of("embedding.weight", (50, 8), 0.02))
    assert [len(part) for part in parts] == [101, 101, 101, 97]
    rows = np.concatenate(parts).reshape(50, 8)
    assert len(np.unique(rows, axis=0)) == 50


def test_a_peer_whose_process_has_ended_says_so() -> None:
    entry = Entry(peer("dead"), CAPACITY, {})
    with running(Server("dead", 0, python("-c", "raise SystemExit(3)"))) as entry.process:
        entry.process.wait()
        with entry.attempt("decoding"):
            raise ConnectionRefusedError("refused")
    assert entry.failed == "decoding: refused (its process ended with status 3)"


def test_llama_cpps_converter_takes_the_random_folders_vocabulary() -> None:
    class Converter:
        def set_vocab(self) -> str:
            raise NotImplementedError("BPE pre-tokenizer was not recognized")

        def _set_vocab_gpt2(self) -> str:
            return self.get_vocab_base_pre("a tokenizer")

        def get_vocab_base_pre(self, tokenizer: str) -> str:
            raise NotImplementedError("BPE pre-tokenizer was not recognized")

    converter: Any = with_own_vocabulary(lambda _: Converter)("LlamaForCausalLM")
    assert converter().set_vocab() == PRE_TOKENIZER


def drafting_batch(past: int, tokens: int) -> Batch:
    """The next tokens of a slot that holds `past`, whose logits are all wanted."""
    return Batch(
        first_slot=0,
        input_ids=np.zeros((1, tokens), np.int64),
        query_seqlens=np.array([tokens], np.int32),
        seqlens_k=np.array([past + tokens - 1], np.int32),
        logits_indices=np.arange(tokens),
    )


def test_a_scripted_draft_prefers_the_known_id_where_it_is_to_hit_and_another_elsewhere() -> None:
    runner = ScriptedRunner(FakeSession())
    runner.follow([7, 8, 9, VOCAB - 1], np.array([True, True, False, False]))
    assert runner.step(drafting_batch(0, 3)).argmax(axis=1).tolist() == [8, 10, 0]
    assert runner.step(drafting_batch(3, 1)).max() < CERTAIN  # no more is known
    assert {columns: len(times) for columns, times in runner.seconds.items()} == {3: 1, 1: 1}
    assert runner.medians() == {}


def test_a_scripts_share_of_hits_is_exact_and_its_order_the_seeds() -> None:
    for acceptance in (0.0, 0.3, 0.7, 1.0):
        assert hits_of(acceptance, 200, seed=1).sum() == acceptance * 200
    assert hits_of(0.5, 200, seed=1).tolist() == hits_of(0.5, 200, seed=1).tolist()
    assert hits_of(0.5, 200, seed=1).tolist() != hits_of(0.5, 200, seed=2).tolist()


def test_a_point_is_the_median_of_its_own_samples() -> None:
    samples = [
        draft.Sample(acceptance, ratio, processor=ratio - 0.1, drafted=10, accepted=4)
        for acceptance, ratio in ((0.5, 1.1), (0.5, 1.3), (0.5, 1.2), (0.9, 2.0))
    ]
    row = {"pair": "a+b", "points": [draft.point(samples, value) for value in (0.5, 0.9)]}
    assert row["points"][0] == {
        "acceptance": 0.5,
        "ratio": 1.2,
        "least": 1.1,
        "most": 1.3,
        "processor": 1.1,
        "drafted": 30,
        "accepted": 12,
    }
    assert draft.table([row]).splitlines() == [
        "| pair | 0.5 | 0.9 |",
        "|---|---:|---:|",
        "| a+b | 1.2 (1.1 to 1.3) | 2.0 (2.0 to 2.0) |",
    ]
