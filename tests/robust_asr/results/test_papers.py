"""The papers' tables: as printed, and joined with ours by what two numbers have to share."""

from __future__ import annotations

from decimal import Decimal

import pytest

from robust_asr.results.papers import NOT_REPORTED, Column, average, column, compare, read_tables

TABLES = {table.name: table for table in read_tables()}
# Data rows that the transcription says there are.
SIZES = {
    "olivier2021_table1_noise_wer": 42,
    "olivier2021_table2_cw": 24,
    "olivier2021_table3_adaptive": 12,
    "olivier2021_table4_all": 160,
    "zelasko2021_table1": 247,
    "jayashankar2020_table1_accuracy": 36,
    "jayashankar2020_table2_auc": 36,
    "joshi2022_table3_fgsm_pgd7": 77,
    "joshi2022_table4_pgd500": 30,
    "yang2022_table2_detection": 24,
    "yang2022_table3_unsuccessful_rate": 48,
}


def ours(system: str = "mine", **columns) -> dict:
    line = {
        "attack": "PGD-7 targeted",
        "norm": "Linf",
        "strength": 1e-3,
        "strength_unit": "amplitude",
        "metric": "GT_WER",
    }
    return (
        line
        | {"system": system, "eval_set": "an4", "value": 50.0, "n": 130, "note": "", "knowledge": "exact"}
        | columns
    )


CLEAN = {"attack": "none", "norm": "", "strength": "", "strength_unit": "", "metric": "WER", "knowledge": ""}


def test_every_printed_number_is_there():
    assert {name: len(table.cells) for name, table in TABLES.items()} == SIZES


def test_values_are_texts_as_printed():
    """97.90 keeps its zero, 9.7 gets none, and what is not reported stays so."""
    values = {cell["value"] for table in TABLES.values() for cell in table.cells}
    assert {"97.90", "9.7", "485.7"} <= values and all(isinstance(value, str) for value in values)
    assert any(cell["value"] in ("", NOT_REPORTED) for cell in TABLES["zelasko2021_table1"].cells)


def mean(table: str, row: str, attack: str, metric: str = "GT_WER") -> Decimal:
    cells = [
        cell for cell in TABLES[table].cells if (cell["row"], cell["attack"], cell["metric"]) == (row, attack, metric)
    ]
    return average(cell["value"] for cell in cells)


def test_the_averages_that_joshi_et_al_print():
    """Mean gains over the reduced baseline: 19.31 (FGSM), 22.31 (PGD-7), 45.08 (PGD-500), 68.05 (PGD-500, target)."""
    three, four = "joshi2022_table3_fgsm_pgd7", "joshi2022_table4_pgd500"
    assert mean(three, "2", "FGSM targeted") - mean(three, "6", "FGSM targeted") == Decimal("19.31")
    assert mean(three, "2", "PGD-7 targeted") - mean(three, "7", "PGD-7 targeted") == Decimal("22.31")
    gain = mean(four, "1", "PGD-500 targeted") - mean(four, "6", "PGD-500 targeted")
    assert gain == Decimal("45.08")
    target = [mean(four, row, "PGD-500 targeted", "TGT_WER") for row in ("1", "6")]
    assert target[1] - target[0] == Decimal("68.05")


def test_an_average_of_what_is_no_number_is_refused():
    with pytest.raises(ValueError, match="no average of '-': not a printed number"):
        average(["1.5", NOT_REPORTED])


@pytest.mark.parametrize("strength", ["0.0001", "1e-4", 1e-4, "0.00010", " 1E-4 "])
def test_equal_strengths_are_one_column(strength):
    assert column(ours(strength=strength)) == column(ours(strength="0.0001"))


@pytest.mark.parametrize(
    "other", [{"strength": 2e-4}, {"norm": "L2"}, {"strength_unit": "dB"}, {"attack": "PGD-7"}, {"metric": "TGT_WER"}]
)
def test_anything_else_that_differs_is_another_column(other):
    assert column(ours(**other)) != column(ours())


def test_no_attack_and_strength_zero_are_the_clean_audio():
    noise = {
        "attack": "gaussian noise (no attack)",
        "norm": "",
        "strength_unit": "std (audio in [-1,1])",
        "metric": "WER",
    }
    clean = Column("none", "", "", "", "WER")
    zeros = [CLEAN, *(noise | {"strength": zero} for zero in (0, 0.0, "0", "0.0")), ours(strength=0)]
    assert {column(line) for line in zeros} == {clean} and clean.is_clean
    assert not column(noise | {"norm": "SNR", "strength": 0, "strength_unit": "dB"}).is_clean


def test_a_table_is_shown_where_it_shares_a_cell():
    found = {each.table.name: each for each in compare([ours()])}
    assert set(found) == {"joshi2022_table3_fgsm_pgd7", "zelasko2021_table1"}
    joshi = found["joshi2022_table3_fgsm_pgd7"]
    # The clean audio first, then every strength of the shared attack; FGSM is another one.
    assert [key.strength for key in joshi.columns] == ["", "0.0001", "0.001", "0.01", "0.1", "0.2"]
    assert {key.attack for key in joshi.columns} == {"none", "PGD-7 targeted"}
    assert joshi.shares_an_attack and [key.strength for key in joshi.shared] == ["0.001"]
    printed = [row for row in joshi.rows if not row.is_ours]
    assert [row.system for row in printed][:3] == [
        "Baseline (full LibriSpeech test-clean)",
        "Baseline (reduced LibriSpeech test-clean)",
        "+ RS0.001",
    ]
    assert [row.eval_set for row in printed][:2] == ["full test-clean", "first 100 of test-clean"]
    assert [printed[1].values[key] for key in joshi.columns] == ["4.53", "6.44", "25.89", "63.63", "95.71", "97.90"]
    (mine,) = [row for row in joshi.rows if row.is_ours]
    assert (mine.system, mine.eval_set) == ("mine", "an4") and [line["value"] for line in mine.values.values()] == [
        50.0
    ]


def test_tables_of_the_clean_audio_alone_come_last():
    found = compare([ours(), ours(**CLEAN)])
    kinds = [each.shares_an_attack for each in found]
    assert kinds == sorted(kinds, reverse=True) and 0 < sum(kinds) < len(kinds)
    assert all(column.is_clean for each in found if not each.shares_an_attack for column in each.columns)


def test_what_the_attacker_knows_is_a_row_of_its_own_with_the_same_clean_audio():
    lines = [ours(**CLEAN, value=7.0), ours(), ours(knowledge="unaware", value=30.0)]
    found = next(each for each in compare(lines) if each.table.name == "joshi2022_table3_fgsm_pgd7")
    rows = [row for row in found.rows if row.is_ours]
    assert [[line["value"] for line in row.values.values()] for row in rows] == [[50.0, 7.0], [30.0, 7.0]]
    assert "attacker's knowledge unaware" in rows[1].about


def test_systems_of_one_label_are_told_apart():
    """Olivier and Raj print AUG, RS, ... once for each sigma."""
    found = next(each for each in compare([ours(**CLEAN)]) if each.table.name == "olivier2021_table4_all")
    about = [row.about for row in found.rows if row.system == "AUG" and not row.is_ours]
    assert about == ["sigma 0.01", "sigma 0.02"]


def test_remarks_on_printed_numbers_are_kept():
    found = next(each for each in compare([ours()]) if each.table.name == "zelasko2021_table1")
    assert "(1) + attack from (8): source: Espresso Transformer" in found.notes


def test_nothing_shared_is_nothing_shown():
    assert compare([ours(attack="mine")]) == [] and compare([]) == []
