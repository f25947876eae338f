"""What is at this box? The category's name has to be in the answer."""

from eval_scenes import ask, rate, record

from locvlm_jax.evals.tasks.rev_loc import RevLoc


def test_rev_loc_gives_the_box_and_wants_the_name():
  (question,) = ask("revloc", [record(dog=(10, 20, 30, 60))])
  assert "[10,20,30,60]" in question.question
  answers = ["a dog", "The Dog.", "a hot dog", "a hot dog and a dog", "dogs"]
  right = [RevLoc().judge(question, a)["correct"] for a in answers]
  assert right == [True, True, False, True, False]
  assert rate("revloc", [question] * 5, answers) == {"accuracy": 0.6, "num": 5}
