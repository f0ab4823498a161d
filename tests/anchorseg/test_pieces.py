"""Qwen's vocabulary: the ids of transformers' own tokenizer, special tokens only where a template has them, folders."""

import json
import random

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

from anchorseg.method.tokens import TokenRegistry, TokenStrings
from anchorseg.weights.folder import ASSETS, tiny_tokenizer, tiny_tokenizer_model
from anchorseg.weights.presets import new_registry
from scripts.make_tiny_tokenizer import QWEN_SPECIALS
from utils.errors import CheckpointError, SettingsError
from utils.prompt_template import QWEN, QWEN_WITH_SYSTEM, VICUNA

MODEL = (ASSETS / "tiny_tokenizer.json").read_bytes()
PUBLISHED_PIECES = 151_643
PUBLISHED = (*QWEN_SPECIALS[:3], "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>", *QWEN_SPECIALS[3:], "<tool_call>", "</tool_call>", "<|fim_prefix|>",
    "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>",
    "</tool_response>", "<think>", "</think>")  # fmt: skip
"""The 26 tokens after the pieces of the published vocabulary; those without a bar are not special."""
BLANKS = ("", " ", "  ", "\n", "\n\n", " \n ", "\t", "\r\n", "\xa0", "\u2009", "\u2028", "\u3000")
ODD = (
    *BLANKS, "\u200b", "\ufeff", "\x00", "é", "e\u0301", "A\u030a", "한", "\u1112\u1161\u11ab", "中文", "\u0627", "½ﬁ",
    "😀", "👩‍👩‍👧", "It's", "WE'LL", "2024", "3.14", "1,000,000", "x=[1,2];", "{question}", "{}", "%s", "<|", "|>",
    "<SEG", "im_end", "Ġ", "ĠĊ", "the red ball", "What is it?", "user", "assistant\n",
)  # fmt: skip


def qwen(latents: int = 3, model: bytes = MODEL) -> TokenRegistry:
    return TokenRegistry.create(model, TokenStrings.for_bank(latents, 1, QWEN.image_tokens))


def values() -> dict:
    return json.loads(MODEL)


def published() -> bytes:
    """The tiny vocabulary in the published shape: as many pieces, and the tokens after them."""
    content = values()
    vocabulary = content["model"]["vocab"]
    vocabulary |= {f"@@{index}": index for index in range(len(vocabulary), PUBLISHED_PIECES)}
    kind = content["added_tokens"][0]
    content["added_tokens"] = [
        {**kind, "id": PUBLISHED_PIECES + index, "content": token, "special": "|" in token}
        for index, token in enumerate(PUBLISHED)
    ]
    return json.dumps(content).encode()


def plain_texts() -> list[str]:
    """Each odd text, long ones, and mixtures."""
    rng = random.Random(7)
    letters = [chr(rng.randint(1, 0xD7FF)) for _ in range(300)] + [chr(rng.randint(0x10000, 0x1FFFF)) for _ in BLANKS]
    mixed = ["".join(rng.choice(rng.choice((ODD, letters))) for _ in range(rng.randint(1, 9))) for _ in range(500)]
    return [*ODD, "the big red ball " * 3000, "é" * 20_000, " " * 5000, "0" * 5000, *letters, *mixed]


def special_texts(registry: TokenRegistry) -> list[str]:
    """Each special token beside each blank, and mixtures with text between."""
    rng = random.Random(8)
    special = [*registry.strings.all, "<image>", *QWEN_SPECIALS]
    near = [f"a{blank}{token}{blank}b" for blank in BLANKS for token in special]
    pairs = [f"{one}{blank}{two}" for blank in BLANKS for one in special for two in special]
    mixed = ["".join(rng.choice(rng.choice((ODD, special))) for _ in range(rng.randint(1, 9))) for _ in range(500)]
    return [*near, *pairs, *mixed]


def test_plain_text_has_the_ids_of_transformers_own_class():
    model = values()["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    own = Qwen2Tokenizer(vocab=model["vocab"], merges=merges, unk_token=None)
    registry, tried = qwen(), plain_texts()
    assert [registry.encode_piece(text) for text in tried] == own(tried)["input_ids"]
    assert registry.encode_piece("e\u0301") == registry.encode_piece("é")


def test_special_tokens_in_a_text_are_recognized_by_encode_alone(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(MODEL)
    registry, own = qwen(), PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    tried = [f"a {one}\n {two}b" for one in QWEN_SPECIALS for two in QWEN_SPECIALS]
    assert [registry.encode(text, -1) for text in tried] == own(tried)["input_ids"]
    for token in (*QWEN_SPECIALS, *registry.strings.all):
        ids = registry.encode_piece(f"a {token} b")
        assert max(ids) < len(values()["model"]["vocab"])
        assert registry.decode(ids) == f"a {token} b"


def test_ids_follow_the_vocabulary_and_its_special_tokens_keep_theirs():
    registry = qwen(2)
    size = len(values()["model"]["vocab"]) + len(QWEN_SPECIALS)
    assert (
        registry.vocabulary_size == size
        and registry.new_ids == tuple(range(size, size + 4))
        and len(registry) == size + 4
    )
    assert (registry.segment_id, registry.reject_id, registry.reasoning_ids) == (size, size + 1, (size + 2, size + 3))
    assert registry.image_ids == (size - 5, size - 4)
    assert (registry.bos_id, registry.eos_id) == (None, size - 6)


def test_the_published_shape(tmp_path):
    registry = qwen(7, published())
    assert registry.new_ids == tuple(range(151_669, 151_678)) and registry.segment_id == 151_669
    assert (registry.image_ids, registry.eos_id) == ((151_652, 151_653), 151_645)
    text = "<|im_start|>user\n<|vision_start|><image><|vision_end|>a<think>\nb <SEG> .<|im_end|>\n"
    ids = registry.encode(text, len(registry))
    assert registry.decode(registry.encode("<think>a</think> <SEG>.", -1)) == "<think>a</think> <SEG>."
    registry.save(tmp_path)
    again = TokenRegistry.load(tmp_path, registry.strings)
    assert again.added == registry.added and again.encode(text, len(registry)) == ids
    assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == ids


def test_a_prompt_is_split_at_the_templates_tokens_alone():
    registry = qwen()
    start, end = registry.encode("<|im_start|><|im_end|>", -1)
    piece = registry.encode_piece
    assert registry.encode_prompt(QWEN.opening) == [start, *piece("user\n")]
    for question in ("What?", "{question} {0}", "Is <SEG><|im_end|>\n<REAS_1> it?", "a\n", ""):
        asked = [end, *piece("\n"), start, *piece("assistant\n")]
        assert registry.encode_prompt(QWEN.first, question) == piece(question) + asked
        expected = [*piece("\n"), start, *piece(f"user\n{question}"), *asked]
        assert registry.encode_prompt(QWEN.further, question) == expected
    whole = registry.encode(QWEN_WITH_SYSTEM.opening, -1)
    assert registry.encode_prompt(QWEN_WITH_SYSTEM.opening) == whole


def test_a_prompt_of_llava_keeps_its_pieces():
    registry = new_registry(tiny_tokenizer("llava-1.5"), "llava-1.5", (3, 1))
    assert registry.added == TokenRegistry.create(tiny_tokenizer_model(), TokenStrings.for_bank(3)).added
    opening = VICUNA.opening.removeprefix("<s>")
    assert registry.encode_prompt(VICUNA.opening) == [registry.bos_id, *registry.encode_piece(opening)]
    for question in ("What?", "Is </s> {0} <SEG>?"):
        asked = registry.encode_piece(f"{question} ASSISTANT:")
        assert registry.encode_prompt(VICUNA.first, question) == asked
        assert registry.encode_prompt("</s> {question} ASSISTANT: ", question) == [registry.eos_id, *asked]


def test_decoded_answers_read_naturally():
    registry = qwen(2)
    bank = "<REAS_1><REAS_2><SEG>"
    for written, shown in {
        f"It is {bank}.": "It is <REAS_1> <REAS_2> <SEG>.",
        f"It is {bank}, and {bank} too !": "It is <REAS_1> <REAS_2> <SEG>, and <REAS_1> <REAS_2> <SEG> too !",
        f"{bank}Next": "<REAS_1> <REAS_2> <SEG> Next",
        "no <REJ> .": "no <REJ>.",
        "é 😀\n 中": "é 😀\n 中",
    }.items():
        assert registry.decode([*registry.encode(written, -1), registry.eos_id]) == shown
    assert registry.decode(registry.encode("<|im_start|>a<|im_end|>\n<|endoftext|>b", -1)) == "a\nb"
    assert registry.decode([*registry.image_ids, *registry.encode("a<|vision_end|>", -1)]) == "a"
    assert registry.decode([]) == "" and registry.decode([registry.segment_id]) == "<SEG>"


def test_a_folder_gives_the_same_ids_again_and_to_auto_tokenizer(tmp_path):
    registry = qwen(7)
    registry.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "added_tokens.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    tried = special_texts(registry) + plain_texts()
    image = len(registry)
    expected = [registry.encode(text, image) for text in tried]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.convert_tokens_to_ids("<image>") == image == len(tokenizer) - 1
    assert (tokenizer.eos_token_id, tokenizer.pad_token) == (registry.eos_id, "<|endoftext|>")
    assert tokenizer(tried)["input_ids"] == expected
    tokenizer.save_pretrained(tmp_path / "again")
    assert AutoTokenizer.from_pretrained(tmp_path / "again")(tried)["input_ids"] == expected

    loaded = TokenRegistry.load(tmp_path, registry.strings)
    assert (loaded.added, loaded.vocabulary_size, len(loaded)) == (
        registry.added,
        registry.vocabulary_size,
        len(registry),
    )
    assert [loaded.encode(text, image) for text in tried] == expected
    (tmp_path / "third").mkdir()
    loaded.save(tmp_path / "third")
    for name in ("added_tokens.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "third" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_other_names_have_the_same_ids(tmp_path):
    registry = qwen(1)
    registry.save(tmp_path)
    strings = TokenStrings(segment="[SEG]", reject="[REJ]", reasoning=("[L]",), image_start="<|vision_start|>",
        image_end="<|vision_end|>")  # fmt: skip
    renamed = TokenRegistry.load(tmp_path, registry.strings).renamed(strings)
    assert renamed.bank_ids == registry.bank_ids and renamed.image_ids == registry.image_ids
    assert renamed.encode("a [SEG] b", -1) == registry.encode("a <SEG> b", -1)


def test_there_is_no_published_layout(tmp_path):
    with pytest.raises(SettingsError, match=r"tokenizer\.json, but published checkpoints have only LLaMA's"):
        qwen().save_published(tmp_path)


def without(content: dict, *path: str) -> bytes:
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return json.dumps(content).encode()


def with_tokens(**changes: object) -> bytes:
    content = values()
    content["added_tokens"][2] |= changes
    return json.dumps(content).encode()


DAMAGED = {
    "cut": (MODEL[:2000], r"tokenizer\.json is damaged: .*; copy it again"),
    "a list in it": (b"{3", r"tokenizer\.json is damaged: it is not valid JSON"),
    "no model": (b"{}", r"it must hold a model but holds \{\}; copy"),
    "no tokens": (without(values(), "added_tokens"), r"its added_tokens are None, but must be a list"),
    "an id as text": (with_tokens(id="3"), r"but must be a list of objects with content, id"),
    "an id that is not next": (with_tokens(id=5000), r"ids must follow each other"),
    "no merges": (without(values(), "model", "merges"), r"tokenizer\.json is damaged: .*; copy it again"),
    "no end": (with_tokens(content="<|end|>"), r"none of Qwen's \(the special token <\|im_end\|> expected\)"),
    "no decoder": (without(values(), "decoder"), r"none of Qwen's \(text of bytes expected\)"),
    "a byte without a piece": (
        MODEL.replace('"Ā": '.encode(), b'"the zero byte": ', 1),
        r"none of Qwen's \(a piece for each byte expected\)",
    ),
}


@pytest.mark.parametrize("case", list(DAMAGED))
def test_a_damaged_vocabulary_is_refused(tmp_path, case):
    content, message = DAMAGED[case]
    with pytest.raises(CheckpointError, match=message):
        TokenRegistry.create(content, TokenStrings.for_bank(2))
    registry = qwen(2)
    registry.save(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json (is damaged|is none of Qwen's)"):
        TokenRegistry.load(tmp_path, registry.strings)


def test_files_of_another_kind_or_missing_are_named(tmp_path):
    registry = qwen(2)
    registry.save(tmp_path)
    saved = (tmp_path / "tokenizer.json").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(b"\0\1")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: it is no JSON object; copy it again"):
        TokenRegistry.load(tmp_path, registry.strings)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.model is missing, and so is tokenizer\.json"):
        TokenRegistry.load(tmp_path, registry.strings)
    (tmp_path / "tokenizer.model").write_bytes(saved)
    with pytest.raises(CheckpointError, match=r"tokenizer\.model: it is a JSON object; copy it again"):
        TokenRegistry.load(tmp_path, registry.strings)


def test_ids_of_another_vocabulary_are_refused(tmp_path):
    registry = qwen(2)
    registry.save(tmp_path)
    moved = {token: index + (token in QWEN_SPECIALS) for token, index in registry.added.items()}
    (tmp_path / "added_tokens.json").write_text(json.dumps(moved))
    with pytest.raises(CheckpointError, match=r"pieces of tokenizer\.json are followed by"):
        TokenRegistry.load(tmp_path, registry.strings)
