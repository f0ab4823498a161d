"""`AutoTokenizer` of a saved folder: the ids of `TokenRegistry` for every text."""

import random

import pytest
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoTokenizer

from anchorseg.method.tokens import TokenRegistry, TokenStrings
from anchorseg.weights.folder import tiny_tokenizer_model
from tests.conftest import SHARED
from utils.errors import CheckpointError
from utils.prompt_template import SYSTEM

FIXTURE = SHARED / "fixtures" / "parity" / "tokenizer.model"
BLANKS = ("", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\x0b", "\x0c", "\x85", "\xa0", "\u2009", "\u2028", "\u3000")
ODD = (
    *BLANKS, "\u200b", "\ufeff", "\x00", "\u2581", "\u2581\u2581", "é", "e\u0301", "中文", "\u0627", "½ﬁ", "😀",
    "👩‍👩‍👧", "<0x0A>", "<", "<SEG", "SEG>", "[SEG", "<im", "</s", ".", " .", ",", "USER:", "ASSISTANT:",
)  # fmt: skip
ADJACENT = ("{}a", "a{}", "a{}b", "a {} b", " {} ", "{}{}", "{} {}", "{}\n\n{}", "a.{}.", "{}\u3000中", "é{}é")


def texts(registry):
    """Whole conversations, every piece, each added token beside each blank, and mixtures of all of these."""
    strings = registry.strings
    answer = f"Sure, it is {''.join(strings.reasoning)}{strings.segment}."
    opening = f"{SYSTEM} USER: <im_start><image><im_end>\nWhat is the red ball in this image? ASSISTANT: {answer}</s>"
    yield from (opening, f"{opening}USER: and\n\n the  other ?  ASSISTANT: no {strings.reject} .</s>")
    yield from ("<image>", "<s>a")
    yield from ODD
    splitting = [*strings.all, "<image>", "</s>", "<s>", "<unk>"]
    yield from (form.replace("{}", token) for form in ADJACENT for token in splitting)
    yield from (f"a{blank}{token}{blank}b" for blank in BLANKS for token in splitting)
    pieces = registry._pieces._pieces
    words = [pieces.id_to_piece(index).replace("\u2581", " ") for index in range(pieces.vocab_size())]
    yield from words
    rng = random.Random(5)
    letters = [chr(rng.randint(32, 0xD7FF)) for _ in range(300)] + [chr(rng.randint(0x10000, 0x1FFFF)) for _ in BLANKS]
    kinds = (splitting, ODD, words, letters)
    for _ in range(600):
        yield "".join(rng.choice(rng.choice(kinds)) for _ in range(rng.randint(1, 9)))


MODELS = {
    "tiny": (tiny_tokenizer_model, TokenStrings.for_bank(7)),
    "tiny without latents": (tiny_tokenizer_model, TokenStrings.for_bank(0)),
    "other names": (tiny_tokenizer_model, TokenStrings(segment="[S.*]", reject="no\u00e9", reasoning=("(a",))),
    "released": (FIXTURE.read_bytes, TokenStrings.released(7)),
}


@pytest.mark.parametrize("case", list(MODELS))
def test_every_text_has_the_same_ids(tmp_path, case):
    if case == "released" and not FIXTURE.is_file():
        pytest.skip("the folder of real test material is not here (ANCHORSEG_SHARED)")
    model, strings = MODELS[case]
    registry = TokenRegistry.create(model(), strings)
    registry.save(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert image == len(registry) == len(tokenizer) - 1
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (registry.bos_id, registry.eos_id)
    tried = list(texts(registry))
    assert len(tried) > 1000
    expected = [[registry.bos_id, *registry.encode(text, image)] for text in tried]
    assert tokenizer(tried)["input_ids"] == expected
    tokenizer.save_pretrained(tmp_path / "again")
    assert AutoTokenizer.from_pretrained(tmp_path / "again")(tried)["input_ids"] == expected


def test_a_point_behind_an_added_token_and_a_newline_behind_an_image(tmp_path):
    registry = TokenRegistry.create(tiny_tokenizer_model(), TokenStrings.for_bank(7))
    registry.save(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("It is <REAS_1><SEG>. <im_end>\nred")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<s>", "▁It", "▁is", "<REAS_1>", "<SEG>", "▁.", "<im_end>", "▁red"]


def test_a_sentencepiece_model_of_another_kind_is_refused():
    fields = sentencepiece_model_pb2.ModelProto.FromString(tiny_tokenizer_model())
    fields.normalizer_spec.remove_extra_whitespaces = True
    with pytest.raises(CheckpointError, match=r"none of LLaMA's \(blanks as they are"):
        TokenRegistry.create(fields.SerializeToString(), TokenStrings.for_bank(7))
    fields.normalizer_spec.remove_extra_whitespaces = False
    fields.trainer_spec.model_type = fields.trainer_spec.UNIGRAM
    with pytest.raises(CheckpointError, match=r"none of LLaMA's \(byte pair encoding"):
        TokenRegistry.create(fields.SerializeToString(), TokenStrings.for_bank(7))
