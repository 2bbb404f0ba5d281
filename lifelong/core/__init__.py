"""A batch's way through learning: problem, batch, strategy, learner, inner loop, fleet, sampler, loop, evaluator, result.

What every method needs lives here; what one method needs does not.
"""
