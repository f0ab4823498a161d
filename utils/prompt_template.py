"""Prompt templates: what stands around image, questions and answers, in the words of each family of models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """A conversation: opening, image between its two tokens, first, answer and end, further, answer and end, ...

    Special tokens are written by their strings. `{question}` stands for the question, in which none is recognized.

    Attributes:
        opening: what comes before the image.
        image_tokens: strings of the tokens before and behind the image tokens.
        first: from the image to the first answer.
        further: from the end of an answer to the next one.
    """

    opening: str
    image_tokens: tuple[str, str]
    first: str
    further: str


SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
VICUNA = PromptTemplate(
    opening=f"<s>{SYSTEM} USER:",
    image_tokens=("<im_start>", "<im_end>"),
    first="{question} ASSISTANT:",
    further="USER: {question} ASSISTANT:",
)
"""Of LLaVA-1.5; an answer ends with `</s>`."""
QWEN = PromptTemplate(
    opening="<|im_start|>user\n",
    image_tokens=("<|vision_start|>", "<|vision_end|>"),
    first="{question}<|im_end|>\n<|im_start|>assistant\n",
    further="\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
)
"""Of Qwen3-VL, which has no system prompt; an answer ends with `<|im_end|>`."""
QWEN_WITH_SYSTEM = PromptTemplate(
    opening=f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{QWEN.opening}",
    image_tokens=QWEN.image_tokens,
    first=QWEN.first,
    further=QWEN.further,
)
"""Of Qwen2.5-VL."""
