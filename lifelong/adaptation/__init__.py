"""Adapting to a task from a few examples: methods of adaptation, few-shot evaluation, selection of the learning rate."""
