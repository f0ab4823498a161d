"""The run at real size: the whole path in miniature, and the 7B model itself where `-m slow` asks for it."""

import re

import cv2
import numpy as np
import pytest

from scripts import real_size


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8))
    return str(path)


def test_miniature(photo, capsys):
    real_size.main(
        [photo, "the thing", "--preset", "tiny", "--precision", "fp32", "--device", "cpu", "--generate", "3"]
    )
    printed = capsys.readouterr().out
    assert "mask (240, 320)" in printed and "generate: 3 tokens" in printed


@pytest.mark.parametrize("preset", ["qwen3-vl-tiny", "qwen2.5-vl-tiny"])
def test_miniatures_of_other_backbones(photo, capsys, preset):
    real_size.main(
        [
            photo,
            "the thing",
            "--preset",
            preset,
            "--mask_model",
            "sam2.1-large",
            "--precision",
            "fp32",
            "--device",
            "cpu",
        ]
    )
    assert "mask (240, 320)" in capsys.readouterr().out


@pytest.mark.slow
def test_7b_in_bf16_on_a_cpu_fits_24_gib(photo, capsys):
    real_size.main([photo, "the thing", "--preset", "7b", "--device", "cpu"])
    printed = capsys.readouterr().out
    assert "built 7,739,746,864 parameters as bf16" in printed and "mask (240, 320)" in printed
    assert float(re.findall(r"([\d.]+) GiB resident", printed)[-1]) < 24
