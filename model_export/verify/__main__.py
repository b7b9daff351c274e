"""`python -m model_export.verify DIRECTORY`: the verifying process; launch.py starts it."""

from __future__ import annotations

import sys
from pathlib import Path

from handlers.errors import KindlingError
from model_export.verify.exchange import (
    OUTCOME,
    REQUEST,
    DriftRequest,
    EncoderGates,
    Outcome,
    VerifyRequest,
    read_request,
    write,
)


def main() -> None:
    """Does what the request asks for and writes the outcome."""
    directory = Path(sys.argv[1])
    try:
        outcome = _verify(read_request(directory / REQUEST))
    except KindlingError as error:
        outcome = Outcome(figures={}, failure=str(error))
    write(directory / OUTCOME, outcome)


def _verify(request: VerifyRequest | DriftRequest) -> Outcome:
    if isinstance(request, DriftRequest):
        from model_export.verify.decoder import measure_drift

        return measure_drift(request)
    gates = request.gates
    if isinstance(gates, EncoderGates):
        from model_export.verify.encoder import verify_encoder

        return verify_encoder(request, gates, _say)
    from model_export.verify.decoder import verify_decoder

    return verify_decoder(request, gates, _say)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
