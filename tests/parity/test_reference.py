"""The digest against the full fixtures, and the rules against what they stand for."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.parity import rules
from tests.parity.reference import ANNOTATION, DIGEST, Reference, assert_matches, fixture_folder


@pytest.fixture
def full() -> Reference:
    folder = fixture_folder()
    if folder is None:
        pytest.skip("the full fixtures are not here")
    return Reference(folder)


@pytest.mark.parametrize("name", sorted(rules.RULES))
def test_rules(reference: Reference, name: str) -> None:
    reference.assert_matches(name, rules.RULES[name](), 1e-6)


@pytest.mark.parametrize("file", ["losses", "preprocess", "quick_select", "decoder"])
def test_digest_agrees_with_the_fixtures(full: Reference, file: str) -> None:
    digest = Reference(None)
    assert {name for name in full.names(file) if "clip_unpadded_variant" not in name} == set(digest.names(file))
    for name in digest.names(file):
        digest.assert_matches(name, full.load(name), 0)


def test_annotation_is_the_fixtures(full: Reference) -> None:
    assert full.folder is not None
    assert json.loads(ANNOTATION.read_text()) == json.loads((full.folder / "preprocess_anno.json").read_text())


def test_digest_is_small() -> None:
    assert DIGEST.stat().st_size < 3_000_000


def test_a_wrong_value_is_noticed(reference: Reference) -> None:
    masks = np.array(reference.load("decoder/in.image_embeddings"))
    masks *= 1.001
    with pytest.raises(AssertionError, match="of the maximum"):
        reference.assert_matches("decoder/in.image_embeddings", masks)
    with pytest.raises(AssertionError, match="shape"):
        assert_matches("decoder/in.image_embeddings", masks[0])


def test_no_number_is_noticed(reference: Reference) -> None:
    values = np.array(reference.load("losses/bce_dice.b.logits"))
    values[0, 0, 0] = np.nan
    with pytest.raises(AssertionError):
        reference.assert_matches("losses/bce_dice.b.logits", values)


def test_weight_rule() -> None:
    norm, bias = rules.tensor("model.norm.weight", (4000,)), rules.tensor("model.norm.bias", (4000,))
    assert norm.mean() == pytest.approx(1, abs=0.01) and bias.std() == pytest.approx(0.05, abs=0.005)
    assert rules.tensor("a.weight", (30, 100)).std() == pytest.approx(0.1, abs=0.01)
    assert not rules.tensor("model.ppm._layer_gate_W_similarity", (33, 8)).any()
