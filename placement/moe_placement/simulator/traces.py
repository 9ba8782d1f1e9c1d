"""Reads request traces: Azure's CSV, Mooncake's JSON lines, and a plain form of either.

The plain form has `arrival` in seconds, `prompt_tokens` and `output_tokens`; as JSON lines it may
have `blocks` and `block_tokens` as in SimulatedRequest.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moe_placement.simulator.scheduler import SimulatedRequest
from moe_placement.simulator.trace_fields import TraceError, TraceRow

_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_MOONCAKE = ("timestamp", "input_length", "output_length")
_PLAIN = ("arrival", "prompt_tokens", "output_tokens")


def read_trace(path: Path, limit: int | None = None) -> tuple[SimulatedRequest, ...]:
    """The requests of a trace, numbered in its order; the first one to come is at 0 seconds.

    Args:
        limit: the most requests to take, in the order of the file.

    Raises:
        TraceError: naming file, line and key, and what to do.
    """
    if limit is not None and limit < 1:
        raise TraceError(f"{path}: limit is {limit}; take at least 1 request")
    requests: list[SimulatedRequest] = []
    try:
        # Spreadsheets write a mark of their own at the start.
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = _json_rows(path, lines) if path.suffix == ".jsonl" else _csv_rows(path, lines)
            for row in rows:
                if len(requests) == limit:
                    break
                requests.append(_request(len(requests), row))
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}; name a trace that can be read") from error
    except UnicodeDecodeError as error:
        raise TraceError(f"{path}: byte {error.start} is not UTF-8; name a CSV or jsonl") from error
    except csv.Error as error:
        raise TraceError(f"{path}: is no CSV ({error}); give one request a line") from error
    if not requests:
        raise TraceError(f"{path}: has no requests; give a trace of at least one")
    start = min(request.arrival for request in requests)
    return tuple(replace(request, arrival=request.arrival - start) for request in requests)


def _csv_rows(path: Path, lines: Iterator[str]) -> Iterator[TraceRow]:
    reader = csv.DictReader(lines)
    header = reader.fieldnames or []
    if not any(set(keys) <= set(header) for keys in (_AZURE, _PLAIN)):
        raise TraceError(
            f"{path}:1: the columns are {', '.join(header) or 'missing'}; a trace has "
            f"{', '.join(_AZURE)}, or {', '.join(_PLAIN)}"
        )
    for values in reader:
        yield TraceRow(path, reader.line_num, values)


def _json_rows(path: Path, lines: Iterator[str]) -> Iterator[TraceRow]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield TraceRow(path, number, _json_object(path, number, line))


def _json_object(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TraceError(
            f"{path}:{number}: is not JSON ({error}); give one object a line"
        ) from None
    if not isinstance(values, dict) or not any(
        set(keys) <= set(values) for keys in (_MOONCAKE, _PLAIN)
    ):
        found = ", ".join(values) if isinstance(values, dict) else type(values).__name__
        raise TraceError(
            f"{path}:{number}: has {found or 'no keys'}; a trace has {', '.join(_MOONCAKE)}, or "
            f"{', '.join(_PLAIN)}"
        )
    return values


def _request(number: int, row: TraceRow) -> SimulatedRequest:
    if _AZURE[0] in row.values:
        arrival = row.parsed(_AZURE[0], _seconds, "a time as 2023-11-16 18:15:46.68")
        return SimulatedRequest(
            request_id=number,
            arrival=arrival,
            prompt_tokens=row.count(_AZURE[1]),
            output_tokens=row.count(_AZURE[2]),
        )
    if _MOONCAKE[0] in row.values:
        return SimulatedRequest(
            request_id=number,
            arrival=row.seconds(_MOONCAKE[0]) / 1000,
            prompt_tokens=row.count(_MOONCAKE[1]),
            output_tokens=row.count(_MOONCAKE[2]),
            blocks=row.integers("hash_ids"),
        )
    return SimulatedRequest(
        request_id=number,
        arrival=row.seconds(_PLAIN[0]),
        prompt_tokens=row.count(_PLAIN[1]),
        output_tokens=row.count(_PLAIN[2]),
        blocks=row.integers("blocks"),
        block_tokens=row.count("block_tokens") if "block_tokens" in row.values else 512,
    )


def _seconds(text: str) -> float:
    # As if of Greenwich where no zone is told: no hour is skipped there.
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
