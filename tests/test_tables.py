"""The tables of a run: rows are appended, cut off, read back and smoothed."""
from pathlib import Path

import numpy
import pytest
import torch
from conftest import csv_rows

import common


def losses(step, epoch, loss_d, loss_g):
    return {"step": step, "epoch": epoch, "loss_d": torch.tensor(loss_d),
            "loss_g": torch.tensor(loss_g)}


# --------------------------------------------------------------------------------------- rows out
def test_rows_are_appended_under_one_header_and_come_back_as_numbers():
    Path("t.csv").touch()  # as a resume of epoch 0 leaves it
    first = common.append_rows("t.csv", [losses(1, 1, 0.25, 1.0), losses(2, 1, 0.75, -4.0)])
    assert first.tolist() == [[1, 1, 0.25, 1], [2, 1, 0.75, -4]]
    common.append_rows("t.csv", [losses(12345678, 2, 1e-9, 7)])
    header, rows = csv_rows("t.csv")
    assert header == ["step", "epoch", "loss_d", "loss_g"]
    last = [12345678, 2, pytest.approx(1e-9, rel=1e-6), 7]
    assert rows == [[1, 1, 0.25, 1], [2, 1, 0.75, -4], last]


def test_rows_of_other_columns_are_refused_and_leave_the_file_as_it_was(stops):
    """As when a loss was added, or renamed, before a resume."""
    common.append_rows("t.csv", [{"step": 1, "epoch": 1, "loss_d": 0.5}])
    before = Path("t.csv").read_bytes()
    for changed in ({"loss_d": 0.5, "loss_extra": 1.0}, {"loss": 0.5}):
        row = {"step": 2, "epoch": 2, **changed}
        line = stops(lambda argv: common.append_rows("t.csv", [row]), [])
        assert "t.csv has the columns step,epoch,loss_d, not step,epoch," in line
        assert "new run" in line and Path("t.csv").read_bytes() == before


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_a_number_that_is_not_finite_ends_the_run_and_names_the_step(bad, stops):
    rows = [losses(7, 1, 0.5, 0.5), losses(8, 1, 0.5, float(bad)), losses(9, 1, float(bad), 0.5)]
    line = stops(lambda argv: common.append_rows("t.csv", rows), [], status=1)
    assert "step 8:" in line and "t.csv is not finite" in line


def test_columns_cannot_come_and_go():
    rows = []
    common.add_row(rows, step=1, loss_d=0.5)
    with pytest.raises(ValueError, match=r"\['step', 'loss_d', 'penalty'\].*\['step', 'loss_d'\]"):
        common.add_row(rows, step=2, loss_d=0.5, penalty=1.0)
    with pytest.raises(ValueError, match="'loss_d'"):
        common.add_row(rows, step=2)
    common.add_row(rows, step=2, loss_d=0.4)
    assert [row["step"] for row in rows] == [1, 2]


def test_a_column_may_hold_numbers_tensors_and_vectors_of_one_element():
    """As when a penalty is computed every second step only, or D forgets to drop a dimension."""
    for first, second in [(torch.tensor(3.0), 0.0), (0, torch.tensor([3.0])[0]),
                          (torch.tensor([3.0]), torch.tensor([0.0]))]:
        rows = []
        common.add_row(rows, step=1, loss_penalty=first)
        common.add_row(rows, step=2, loss_penalty=second)
        table = common.append_rows("mixed.csv", rows)
        assert table.shape == (2, 2) and table[:, 1].sum() == 3


def test_rows_that_wait_keep_no_graph_alive():
    """A loss logged without detach would keep its whole graph until it is written."""
    rows, weight = [], torch.ones(2, requires_grad=True)
    common.add_row(rows, step=1, loss_d=(2 * weight).sum())
    assert rows[0]["loss_d"].grad_fn is None
    assert rows[0]["loss_d"].item() == 4 and rows[0]["step"] == 1
    common.append_rows("t.csv", rows)


# ---------------------------------------------------------------------------------- rows back in
@pytest.mark.parametrize("tail", [b"", b"3,0.3", b"3,0.3\n4,0.4\n", b"\xff\xfe\x00 no text"])
def test_keeping_rows_counts_them_and_reads_nothing_behind_them(tail):
    whole = b"step,loss_d\n1,0.1\n2,0.2\n"
    Path("t.csv").write_bytes(whole + tail)
    common.keep_rows("t.csv", 2)
    assert Path("t.csv").read_bytes() == whole
    common.keep_rows("t.csv", 1)
    assert Path("t.csv").read_bytes() == b"step,loss_d\n1,0.1\n"
    Path("t.csv").write_bytes(whole[:4])
    common.keep_rows("t.csv", 0)
    assert Path("t.csv").read_bytes() == b"", "not a torn header either"
    common.keep_rows("none.csv", 0)
    assert Path("none.csv").read_bytes() == b"", "a run stopped before its first row has no table"


def test_a_table_is_read_with_its_names_and_without_a_torn_line():
    Path("t.csv").write_text("step,epoch,loss_d\n1,1,0.5\n")
    table = common.read_csv("t.csv")
    assert list(table) == ["step", "epoch", "loss_d"] and table["loss_d"].tolist() == [0.5]
    for tail in ("", "3,1", "3,1,", "3,1,0.7"):  # only a line's end says that it is whole
        Path("t.csv").write_text("step,epoch,loss_d\n1,1,0.5\n2,1,0.25\n" + tail)
        assert common.read_csv("t.csv")["loss_d"].tolist() == [0.5, 0.25], tail


@pytest.mark.parametrize("text", ["", "step,epoch", "step,epoch,loss_d\n", "step,loss_d\n1,0."])
def test_a_table_without_rows_is_an_error_that_names_it(text):
    Path("t.csv").write_text(text)
    with pytest.raises(ValueError, match="t.csv"):
        common.read_csv("t.csv")


# ----------------------------------------------------------------------------------- the median
def test_the_running_median_ignores_a_spike_and_follows_a_ramp():
    x = numpy.arange(1, 301)
    middle, smooth = common.running_median(x, 2.0 * x)
    assert len(middle) == len(smooth) == 200 and (smooth == 2 * middle).all() and middle[0] == 51
    y = numpy.zeros(300)
    y[150:170] = 1e6
    assert common.running_median(x, y)[1].max() == 0, "a mean would rise"
    assert common.running_median(x, y, window=25)[1].max() == 1e6, "more than half of that window"
    middle, smooth = common.running_median(x[:7], y[150:157])
    assert middle.tolist() == [2, 3, 4, 5, 6] and smooth.tolist() == [1e6] * 5, "a third of the rows"
    assert common.running_median(x[:1], y[150:151])[1].tolist() == [1e6]


def test_the_median_of_a_very_long_run_is_thinned_out_and_reaches_both_ends():
    """CelebA's 50 epochs in minibatches of 64 have 158,250 steps."""
    x = numpy.arange(1, 158_251)
    middle, smooth = common.running_median(x, 2.0 * x)
    assert 1000 < len(middle) < 3000 and (smooth == 2 * middle).all()
    assert middle[0] < 200 and middle[-1] > 158_000 and len(set(numpy.diff(middle))) == 1
