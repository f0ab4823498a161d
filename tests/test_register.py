"""Known mistakes of published data pipelines and evaluations, each with the test that keeps it out."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

REGISTER = {
    "template lists grow with every dataset": "test_same_generator_same_words_and_banks_stay_as_they_are",
    "false premises never occur": "test_false_premises_occur_in_the_stream",
    "a false premise keeps its mask": "test_false_premises_have_no_slot_and_no_mask",
    "the prompt tells the truth": "test_the_symmetric_decision_does_not_see_the_truth",
    "overlapping parts add up": "test_overlapping_parts_are_united",
    "compressed run lengths are not read": "test_all_forms_decode_alike",
    "a part of the records is scored": "test_the_benchmark_has_every_record_and_fixed_prompts",
    "samples count twice on several ranks": "test_three_ranks_give_the_numbers_of_one_and_every_sample_once",
    "random questions in evaluation": "test_every_benchmark_asks_the_same_twice",
    "draws depend on the worker": "test_workers_and_resume_do_not_change_the_stream",
    "ranks draw alike": "test_ranks_share_the_draws_without_overlap",
    "files come in any order": "test_files_are_sorted_and_hidden_ones_left_out",
    "bad records vanish": "test_bad_records_are_replaced_and_reported",
    "two splits of one set collide": "test_splits_of_one_set_stand_side_by_side",
    "ignored pixels are trained as background": "test_void_pixels_have_no_say_where_they_are_left_out",
    "slots and masks differ in number": "test_slots_are_the_masks_and_a_draw_depends_on_its_generator",
    "rings are lost or fused": "test_rings_of_unequal_and_equal_length_are_united",
    "bracketed text is deleted": "test_ordinary_text_is_kept",
    "advertised sets fail": "test_every_dataset_trains",
    "advertised benchmarks fail": "test_unknown_benchmarks_are_refused",
    "evaluation prompts differ from training's by a blank": "test_a_question_reaches_the_model_in_the_published_pieces",
    "truncation cuts targets": "test_an_over_long_conversation_is_refused_whole",
    "unmatched predictions are not thresholded": "test_a_spurious_prediction_has_iou_zero_and_adds_to_the_union",
    "sums in float32": "test_large_sums_stay_exact",
    "loader errors are swallowed": "test_an_error_in_a_worker_is_not_hidden",
    "masks of every class are held": "test_memory_follows_the_classes_asked",
    "one phrase for several masks": "test_instances_of_one_phrase_are_one_mask",
    "void classes are asked for": "test_mapillary_values",
    "paths are replaced as text": "test_any_folder_and_name_will_do",
    "flags are compared with True": "test_any_truth_value_is_a_flag",
    "rates and datasets differ in number": "test_rates_and_names_must_agree",
    "families of rate 0 are read": "test_the_datasets_of_a_family_share_its_rate_and_a_family_of_rate_zero_is_not_read",
    "class lists depend on the working directory": "test_any_working_directory_will_do",
    "several benchmarks break training": "test_killed_and_resumed_on_the_exact_next_sample",
    "a missing annotation opens a debugger": "test_a_missing_annotation_is_named",
    "an unknown piece counts as padding": "test_an_unknown_piece_is_no_padding",
    "predictions meet the wrong truth": "test_slots_are_never_paired_with_questions_by_position_alone",
    "statistics of the CLIP view": "test_every_row_passes",
}


@pytest.fixture(scope="module")
def names() -> set[str]:
    return {
        name for path in TESTS.rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }


@pytest.mark.parametrize("mistake", REGISTER)
def test_its_test_is_there(mistake, names):
    assert REGISTER[mistake] in names
