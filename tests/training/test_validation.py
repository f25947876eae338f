"""What is measured on held-out data while training goes on, and how it is told.

`test_loop.py` trains with it; `tests/weights/test_quantizing.py` has the
parameters that it asks.
"""

from locvlm_jax.training import validation


def test_each_task_has_a_short_line_that_begins_with_its_main_metric():
  numbers = {
    "val.loss": 1.25,
    "val.locpred.center_error": 0.031,
    "val.locpred.mean_iou": 0.651,
    "val.locpred.acc_iou75": 0.46,
    "val.locpred.acc_iou50": 0.8,
    "val.locpred.num": 150.0,
    "val.locpred.cut_off": 2.0,
    "val.spatial_trained.direct.left_right.left": 0.5,
    "val.spatial_trained.direct.all": 0.75,
    "val.spatial_trained.direct.num": 40.0,
    "val.vqa.accuracy": 0.5,
  }
  assert validation.told(40, numbers).splitlines() == [
    "step 40  val.loss 1.2500",
    "step 40  val.locpred  acc_iou50 80.0 %  center_error 0.031"
    "  mean_iou 0.651",
    "step 40  val.spatial_trained  direct.all 75.0 %"
    "  direct.left_right.left 50.0 %",
    "step 40  val.vqa  accuracy 50.0 %",
  ]


def test_without_a_loss_there_is_no_line_for_it():
  told = validation.told(2, {"val.revloc.accuracy": 1.0})
  assert told == "step 2  val.revloc  accuracy 100.0 %"
