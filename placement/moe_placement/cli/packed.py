"""What a packing becomes: tables or JSON on stdout, and a config whose models have their ranks."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_placement.cli.console import print_pairs, print_table
from moe_placement.cli.parser import UsageError
from moe_placement.hardware.section import plain, read_document
from moe_placement.packing.answer import Packing
from moe_placement.packing.interference import ASSUMPTIONS
from moe_placement.packing.serve_config import placed_config
from moe_placement.packing.slices import PackDevice, PackItem
from moe_placement.report.figures import seconds as in_words
from moe_placement.report.packing_tables import (
    packed_devices_table,
    packed_slices_table,
    packing_summary,
    packing_values,
    unplaced_table,
)


@dataclass(frozen=True, slots=True)
class Packed:
    """Attributes:
    source: the file that was read.
    seconds: that packing took.
    """

    packing: Packing
    items: Sequence[PackItem]
    devices: Sequence[PackDevice]
    source: Path
    seconds: float


def check_out(source: Path, out: Path) -> None:
    """Refuse a config elsewhere: files that it names are looked for from its own folder."""
    if out.parent.resolve() != source.parent.resolve():
        raise UsageError(
            f"--out {out}: is not beside {source}, where the files that a config names are found; "
            f"write it to {source.parent}"
        )


def write_config(out: Path, packed: Packed, command: str) -> None:
    """The config that was read, with the rank of each packed model; none where one has no room.

    Raises:
        UsageError: the file cannot be written.
    """
    if packed.packing.unplaced:
        print(f"moe_plan: {out} is not written, for not all models have room", file=sys.stderr)
        return
    ranks = {device.name: rank for rank, device in enumerate(packed.devices)}
    rank_of = {name: ranks[device] for name, device in packed.packing.device_of.items()}
    config = placed_config(read_document(packed.source), rank_of)
    try:
        out.write_text(f"# Made by: {command}\n\n{plain(config)}", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written: {error.strerror}") from error
    print(f"moe_plan: wrote {out}", file=sys.stderr)


def show(packed: Packed, *, as_json: bool) -> None:
    """Print what was found."""
    if as_json:
        print(json.dumps(packing_values(packed.packing) | {"seconds": packed.seconds}, indent=2))
        return
    summary = packing_summary(packed.packing, len(packed.devices))
    print_pairs([*summary, ("found in", in_words(packed.seconds))])
    if packed.packing.unplaced:
        print_table(unplaced_table(packed.packing.unplaced))
    print_table(packed_devices_table(packed.packing))
    print_table(packed_slices_table(packed.packing, packed.items))
    print("It is assumed that:")
    for sentence in ASSUMPTIONS:
        print(f"- {sentence};")
