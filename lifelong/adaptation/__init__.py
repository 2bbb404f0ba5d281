"""Learning from a few examples, by the learner's own pure step: the inner loop of meta-learning and of transfer."""
