"""The field `logit_bias`: what is added to the logits of which ids.

Read by key, so that an error can name the one at fault. Ids are held to the vocabulary by the
engine, which knows it.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from handlers.errors import InvalidRequest, shortened

LARGEST = 100
_DIGITS = 9  # fewer than those of 2**31

# A JSON object's keys are strings.
LogitBias = Annotated[
    dict[str, Any],
    Meta(
        max_length=1024,
        extra_json_schema={
            "propertyNames": {"pattern": f"^(0|[1-9][0-9]{{0,{_DIGITS - 1}}})$"},
            "additionalProperties": {"type": "number", "minimum": -LARGEST, "maximum": LARGEST},
        },
    ),
]


def check_biases(given: LogitBias | None) -> None:
    """Raises InvalidRequest for a key that is no token id, and for a bias out of range."""
    for key, bias in (given or {}).items():
        field = f"logit_bias.{shortened(key)}"
        if not (key.isascii() and key.isdigit() and len(key) <= _DIGITS and key == str(int(key))):
            raise InvalidRequest(
                f"{field}: keys are token ids in decimal digits, such as 1234. POST /tokenize "
                f"gives the ids of a text.",
                param=field,
            )
        number = isinstance(bias, int | float) and not isinstance(bias, bool)
        if not (number and -LARGEST <= bias <= LARGEST):
            raise InvalidRequest(
                f"{field}: a bias is a number from -{LARGEST} to {LARGEST}.", param=field
            )


def biases(given: LogitBias | None) -> dict[int, float]:
    """The biases by their ids, once they are checked."""
    return {int(key): bias for key, bias in (given or {}).items()}
