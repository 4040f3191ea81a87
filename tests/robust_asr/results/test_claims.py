"""One rule for holds, fails and undecidable: by intervals and margins, from committed differences."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_asr.results.claims import DIRECTIONS, FAILS, HOLDS, UNDECIDABLE, main, read_claims, table, together, verdict

DIFFERENCES = """condition,eval_set,metric,system,baseline,value,unit,n,ci_low,ci_high
none,test,WER,asr + RS,RS,2.5,% absolute,60,-1.2,6.3
none,test,WER,conformer + RS,RS,-0.6,% absolute,60,-3.7,2.5
pgd,test,GT_WER,asr + RS,RS,-8.9,% absolute,60,-14.8,-2.6
pgd 2,test,GT_WER,asr + RS,RS,-3.6,% absolute,60,-9.4,2.5
"""
SUMMARY = """system,model,defense,sigma,attack,norm,strength,strength_unit,eval_set,metric,value,unit,note,knowledge,n,\
ci_low,ci_high,seconds,forwards,condition
asr,CTC,none,,PGD-7 targeted,Linf,0.1,amplitude,test,TGT_WER,97.5,%,,exact,60,91.5,104.0,1,8,pgd
asr,CTC,none,,PGD-7 targeted,Linf,0.1,amplitude,test,GT_WER,80.0,%,,exact,60,71.0,88.0,1,8,pgd
rs,CTC,RS,0.1,PGD-7 targeted,Linf,0.1,amplitude,test,TGT_WER,92.5,%,,exact,60,88.0,99.0,1,8,pgd
"""
HEAD = "claim,results,condition,system,baseline,direction,margin\n"


@pytest.mark.parametrize(
    ("interval", "direction", "margin", "expected"),
    [
        # The two of one README: with one margin of 3 points.
        ((-1.2, 6.3), "not higher", 3, UNDECIDABLE),
        ((-3.7, 2.5), "not higher", 3, HOLDS),
        ((3.1, 9.0), "not higher", 3, FAILS),
        ((-9, -1), "lower", 0, HOLDS),
        ((-9, -1), "lower", 2, UNDECIDABLE),
        ((-1.5, 4), "lower", 2, FAILS),
        ((0, 4), "lower", 0, FAILS),
        ((0, 4), "higher", 0, UNDECIDABLE),
        ((1, 4), "higher", 0, HOLDS),
        ((-1, 4), "not lower", 2, HOLDS),
        ((-4, -2), "not lower", 2, FAILS),
        ((-1, 1.9), "equal", 2, HOLDS),
        ((-1, 2.1), "equal", 2, UNDECIDABLE),
        ((2, 3), "equal", 2, FAILS),
        ((91, 99), "above", 90, HOLDS),
        ((80, 91), "above", 90, UNDECIDABLE),
        ((80, 90), "above", 90, FAILS),
        ((80, 89), "below", 90, HOLDS),
    ],
)
def test_an_interval_is_judged_by_the_side_of_the_margin_that_it_lies_on(interval, direction, margin, expected) -> None:
    assert verdict(*interval, direction=direction, margin=margin) == expected


@given(st.floats(-99, 99), st.floats(0, 50), st.floats(0, 50), st.floats(0, 20), st.sampled_from(sorted(DIRECTIONS)))
def test_a_narrower_interval_never_turns_a_verdict_round(value, below, above, margin, direction) -> None:
    wide = verdict(value - below, value + above, direction=direction, margin=margin)
    narrow = verdict(value - below / 2, value + above / 2, direction=direction, margin=margin)
    assert narrow == wide or wide == UNDECIDABLE


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([HOLDS, HOLDS], HOLDS),
        ([HOLDS, UNDECIDABLE], UNDECIDABLE),
        ([HOLDS, FAILS, UNDECIDABLE], FAILS),
    ],
)
def test_a_claim_on_all_budgets_needs_all_of_them(verdicts: list[str], expected: str) -> None:
    assert together(verdicts) == expected


@pytest.fixture
def write(tmp_path: Path):
    (tmp_path / "differences.csv").write_text(DIFFERENCES)
    (tmp_path / "summary.csv").write_text(SUMMARY)

    def written(*lines: str, head: str = HEAD) -> Path:
        (tmp_path / "claims.csv").write_text(head + "".join(line + "\n" for line in lines))
        return tmp_path / "claims.csv"

    return written


def test_the_table_holds_the_numbers_of_the_differences(write) -> None:
    path = write(
        "fine-tuning helps,differences.csv,pgd,asr + RS,RS,lower,0",
        "fine-tuning helps,differences.csv,pgd 2,asr + RS,RS,lower,0",
        "it costs nothing clean,differences.csv,none,conformer + RS,RS,not higher,3",
        "RS is worse,differences.csv,pgd,RS,asr + RS,higher,1",
    )
    assert table(read_claims(path)).split("\n")[2:] == [
        "| fine-tuning helps | lower, 0 | asr + RS minus RS: pgd -8.9 [-14.8, -2.6] holds, pgd 2 -3.6 [-9.4, 2.5] undecidable | 60 "
        "| **undecidable** |",
        "| it costs nothing clean | not higher, 3 | conformer + RS minus RS: none -0.6 [-3.7, 2.5] | 60 | **holds** |",
        "| RS is worse | higher, 1 | RS minus asr + RS: pgd +8.9 [2.6, 14.8] | 60 | **holds** |",
    ]


def test_a_rate_itself_is_judged(write) -> None:
    path = write(
        "no target is reached,summary.csv,pgd,asr,TGT_WER,above,90",
        "no target is reached,summary.csv,pgd,rs,TGT_WER,above,90",
    )
    assert table(read_claims(path)).split("\n")[2:] == [
        "| no target is reached | above, 90 | TGT_WER of asr: pgd 97.5 [91.5, 104.0] holds; "
        "TGT_WER of rs: pgd 92.5 [88.0, 99.0] undecidable | 60 | **undecidable** |"
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "c,differences.csv,pgd,asr,RS,lower,0",
            "claims.csv, line 2: must name one line of .*differences.csv, found 0 with",
        ),
        ("c,differences.csv,pgd,asr + RS,RS,better,0", "line 2: direction must be one of lower, .*, found 'better'"),
        ("c,differences.csv,pgd,asr + RS,RS,lower,-1", "line 2: margin must be .* 0 or more, found -1"),
        ("c,differences.csv,pgd,asr + RS,RS,lower,two", "line 2: margin must be a finite number, found 'two'"),
        ("c,differences.csv,pgd,asr + RS,RS,lower", "line 2: must hold 7 cells"),
        ("c,summary.csv,pgd,asr,WER,above,90", "must name one line of .*summary.csv, found 0 with .* baseline 'WER'"),
    ],
)
def test_a_wrong_line_is_named(write, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_claims(write(line))


def test_a_wrong_file_ends_the_command_with_one_sentence(write, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (write(head="a,b\n"), Path("nowhere.csv"), write("c,none.csv,pgd,asr + RS,RS,lower,0")):
        with pytest.raises(SystemExit) as stopped:
            main([str(path)])
        printed = capsys.readouterr()
        assert stopped.value.code == 2 and printed.err.count("\n") == 1 and not printed.out
