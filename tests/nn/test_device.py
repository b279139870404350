import pytest
import torch

from recvae.errors import ParameterError
from recvae.nn.device import check_device_name, find_device, matmul_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:13"])
def test_names_of_devices(name: str) -> None:
    assert check_device_name(name) == name


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", "auto:1", "", None, 0])
def test_other_names_are_refused(name: object) -> None:
    with pytest.raises(ParameterError, match="expected auto, cpu, cuda or cuda:N"):
        check_device_name(name)


def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == find_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("auto") == torch.device("cuda")


def test_a_device_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert find_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ParameterError, match="device is 'cuda:1'; this machine has 1 CUDA devices"):
        find_device("cuda:1")


@pytest.mark.parametrize(
    ("precision", "instructions", "reduced"),
    [("float32", True, False), ("bfloat16", False, True), ("auto", True, True), ("auto", False, False)],
)
def test_auto_multiplies_in_bfloat16_where_the_processor_can(
    precision: str, instructions: bool, reduced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": instructions})
    with matmul_precision(precision, CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if reduced else torch.float32)
