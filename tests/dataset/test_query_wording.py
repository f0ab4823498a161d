"""What a query is, and the prompt that it becomes: whole prompts are sent as they are, capitals decide nothing."""

import pytest

from dataset.templates import evaluation
from dataset.templates.wording import kind_of_query, prompt_of_query

# As LISA's documentation has them, and variants of the same instructions.
PROMPTS = (
    "What is the cup in this image? Please output segmentation mask.",
    "Where can the driver see the car speed in this image? Please output segmentation mask.",
    "Can you segment the food that tastes spicy and hot?",
    "Can you segment the cup in this image?",
    "Please segment the cup in this image.",
    "What can make the woman stand higher? Please output segmentation mask and explain why.",
    "What is the cup in this image? Please respond with segmentation mask.",
    "Who was the president of the US in this image? Please output segmentation mask and explain the reason.",
    "Which one rolls?\nPlease output segmentation masks and give some explanation.",
    "what is the cup in this image? please output segmentation mask",
    "WHAT IS IT? PLEASE OUTPUT SEGMENTATION MASK.",
    "Could you please segment the red one?",
    "I would like you to segment the wheel.",
    "Which one rolls? Please give the mask and the reason.",
    "Segment the wheel.",
    "segment the wheel",
    "Where is the wheel? Segment it.",
    "Where is the wheel? Answer with a segmentation mask.",
)
SENTENCES = (
    "Which one rolls?",
    "which one rolls?",
    "What is the cup in this image?",
    "Something here could keep you dry. Where is it?",
    "Find the segment of the worm that is thickest!",
    'He asked: "Which one rolls?"',
    "\u54ea\u4e00\u4e2a\u4f1a\u6eda\uff1f",
)
PHRASES = (
    "the cup",
    "Red cup",
    "Statue of Liberty",
    "NASA logo",
    "The object that could keep you dry",
    "the thickest line segment",
    "segmented worm",
    "segment of an orange",
    "a book about image segmentation",
    "mask of a clown",
    "the man who was asked to please show his face",
    "the hand that will give the mask away",
    "number 7",
)


@pytest.mark.parametrize("query", PROMPTS)
def test_whole_prompts_are_sent_as_they_are(query):
    assert kind_of_query(query) == "prompt" and prompt_of_query(f" {query}\n") == query


@pytest.mark.parametrize("query", SENTENCES)
def test_sentences_get_the_instruction_behind_them(query):
    assert kind_of_query(query) == "sentence"
    assert prompt_of_query(query) == f"{query} Please output segmentation mask."


@pytest.mark.parametrize("query", PHRASES)
def test_phrases_are_put_into_the_published_question(query):
    assert kind_of_query(query) == "phrase"
    assert prompt_of_query(query) == f"What is {query} in this image? Please output segmentation mask."


@pytest.mark.parametrize("template", [evaluation.PHRASE, evaluation.SENTENCE, "{text}", "Say: {text}"])
def test_a_prompt_is_a_prompt_the_second_time(template):
    once = prompt_of_query(template.format(text="Which one rolls?"))
    assert prompt_of_query(once) == once


def test_the_caller_decides():
    assert prompt_of_query("Which one rolls", "sentence") == "Which one rolls Please output segmentation mask."
    assert prompt_of_query("the cup.", "phrase") == "What is the cup. in this image? Please output segmentation mask."
    assert prompt_of_query("the cup", "prompt") == "the cup"
    asked = "Please segment it."
    assert prompt_of_query(asked, "sentence") == f"{asked} Please output segmentation mask."


@pytest.mark.parametrize("text", ["{0}", "{text} {} {x!r}", "100 %s", "\\1"])
def test_braces_and_the_like_are_text(text):
    assert prompt_of_query(text) == f"What is {text} in this image? Please output segmentation mask."
