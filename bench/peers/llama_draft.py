"""llama-server with its own draft option, without and with it in turns, on bench.draft's pairs.

    python -m bench.peers.llama_draft [MODEL+DRAFT ...] [--tokens 128] [--rounds 3] [--drafted 3]

The models are those of bench.draft_models in llama.cpp's own Q4_K_M. Its drafts follow no script: a
pair of random weights shows one end of the curve, a model that is its own draft the other. The
speeds are those that the server itself counts for an answer. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.draft_models import DIRECTORY, IDS, folder_of, pair_of
from bench.folder_recipe import SOURCE
from bench.peers import llama_cpp
from bench.prepare import run_once
from bench.rounds import say
from bench.servers import Server, running
from handlers.cpus import available_cpus

TYPE = "Q4_K_M"
PROMPT = 64
PORT = 18520
DRAFTS = ("draft_n", "draft_n_accepted")
"""The server's names for how many ids it has drafted, and how many came true."""
START_LIMIT_SECONDS = 120


def gguf_of(name: str) -> Path:
    """Returns the quantised file of a recipe's random model, made before if there is none."""
    path = DIRECTORY / name / f"{TYPE}.gguf"
    if path.is_file():
        return path
    llama_cpp.prepare_export()
    whole = path.with_name("bf16.gguf")
    words, environ = llama_cpp.convert(folder_of(name) / SOURCE, whole, "bf16")
    run_once(whole, words, environ)
    quantize = str(llama_cpp.binaries() / "llama-quantize")
    run_once(path, (quantize, str(whole), str(path), TYPE, str(available_cpus())))
    whole.unlink()  # twice as large as all that is made of it
    return path


def server(model: Path, draft: Path | None, port: int, drafted: int) -> Server:
    """Returns a server of one slot, with a draft model or without."""
    options = {
        "--model": str(model),
        "--threads": str(available_cpus()),
        "--parallel": "1",
        "--ctx-size": "1024",
        "--cache-ram": "0",
        "--host": "127.0.0.1",
        "--port": str(port),
    }
    if draft is not None:
        options |= {"--model-draft": str(draft), "--spec-type": "draft-simple"}
        options |= {"--spec-draft-n-max": str(drafted)}
    words = (word for option in options.items() for word in option)
    name = "llama-server-drafting" if draft else "llama-server-plain"
    return Server(name, port, (str(llama_cpp.llama_server()), *words, "--no-ui"))


def timings(served: Server, ids: Sequence[int], tokens: int) -> dict[str, float]:
    """Asks for a greedy answer to ids. Returns what the server says that it took."""
    body = {"prompt": ids, "n_predict": tokens, "temperature": 0, "ignore_eos": True}
    url = f"http://127.0.0.1:{served.port}/completion"
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=600) as response:
        said: dict[str, float] = json.load(response)["timings"]
    return said


def wait_for(served: Server) -> None:
    """Waits until a server has loaded. Raises RuntimeError when it does not."""
    limit = time.monotonic() + START_LIMIT_SECONDS
    while time.monotonic() < limit:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{served.port}/health").close()
        except OSError:  # refused, or 503 while it loads
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{served.name} has not loaded.")


def measure(pair: str, tokens: int, rounds: int, drafted: int) -> dict[str, Any]:
    """Measures one pair: two servers take turns on a prompt of each round."""
    model, draft = map(gguf_of, pair_of(pair))
    servers = server(model, None, PORT, drafted), server(model, draft, PORT + 1, drafted)
    speeds: list[float] = []
    ratios: list[float] = []
    drafts: Counter[str] = Counter()
    with ExitStack() as stack:
        for each in servers:
            stack.enter_context(running(each))
            wait_for(each)
        for number in range(rounds + 1):
            ids = random.Random(number).choices(IDS, k=PROMPT)  # noqa: S311  no secret
            order = servers if number % 2 else servers[::-1]
            said = {each.name: timings(each, ids, tokens) for each in order}
            plain, drafting = (said[each.name] for each in servers)
            say(f"{pair}, {plain}, {drafting}")
            if number:  # the first round is not counted
                speeds.append(plain["predicted_per_second"])
                ratios.append(drafting["predicted_per_second"] / speeds[-1])
                drafts.update({name: int(drafting.get(name, 0)) for name in DRAFTS})
    return {
        "pair": pair,
        "tokens_per_second": round(statistics.median(speeds), 1),
        "ratio": round(statistics.median(ratios), 2),
        "least": round(min(ratios), 2),
        "most": round(max(ratios), 2),
        **drafts,
    }


def main() -> None:
    """Measures each pair and prints one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("pairs", nargs="+", metavar="MODEL+DRAFT")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--drafted", type=int, default=3, help="ids at once: its own default is 3")
    options = parser.parse_args()
    llama_cpp.build()
    rows = [
        measure(pair, options.tokens, options.rounds, options.drafted) for pair in options.pairs
    ]
    print(json.dumps({"benchmark": "llama-draft", "drafted": options.drafted, "pairs": rows}))


if __name__ == "__main__":
    main()
