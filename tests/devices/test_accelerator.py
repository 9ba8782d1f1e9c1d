"""What GPUs and NPUs share, over what torch's module for one of them would keep."""

import pytest
import torch
from moe_devices.accelerator import Accelerator
from moe_devices.device import Memory
from moe_devices.errors import DeviceError

MIB = 1 << 20


class Module:
    """Keeps what torch.cuda or torch.npu would of two devices of 1 GiB."""

    def __init__(self) -> None:
        self.current = -1
        self.reserved = 96 * MIB
        self.fraction = 1.0

    def device_count(self) -> int:
        return 2

    def set_device(self, index: int) -> None:
        self.current = index

    def get_device_name(self, device: torch.device) -> str:
        return f"Card {device.index}"

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        return 900 * MIB, 1024 * MIB

    def memory_reserved(self, device: torch.device) -> int:
        return self.reserved

    def empty_cache(self) -> None:
        self.reserved = 0

    def set_per_process_memory_fraction(self, fraction: float, device: torch.device) -> None:
        assert isinstance(fraction, float), "torch.npu takes nothing else"
        assert 0 <= fraction <= 1 and device.index == self.current
        self.fraction = fraction


class Card(Accelerator):
    kind = "meta"
    collective = "none"
    common_name = "card"


def test_an_open_accelerator_is_the_current_one() -> None:
    module = Module()
    card = Card(module, 1)
    assert module.current == 1
    assert (card.name, card.torch_device) == ("Card 1", torch.device("meta", 1))
    assert card.memory() == Memory(total=1024 * MIB, free=900 * MIB)
    assert not card.lends_memory


@pytest.mark.parametrize("index", [-1, 2])
def test_an_accelerator_that_is_not_there_says_how_many_are(index: int) -> None:
    with pytest.raises(DeviceError, match=rf"no card {index}: torch .* sees 2; start fewer ranks"):
        Card(Module(), index)


def test_a_cap_bounds_torchs_allocator() -> None:
    module = Module()
    card = Card(module, 0)
    assert card.cap_memory(256 * MIB) == "25.00% of Card 0 at most: an error for who asks for more"
    assert module.fraction == 0.25
    card.cap_memory(1024 * MIB)
    assert module.fraction == 1.0
    with pytest.raises(DeviceError, match=r"a cap of 95\.0 MiB is below the 96\.0 MiB in use"):
        card.cap_memory(95 * MIB)
    card.release_memory()
    assert card.held_memory == 0
    card.cap_memory(95 * MIB)
