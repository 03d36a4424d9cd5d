"""Calibration: a quantized set of weights brought nearer to the original, on text. Every code and scale stays on the
portable grid, and every format keeps its bits.

asked.py       what is asked for, and how much each effort is
limits.py      how much is held at once
cost.py        how much work each part is
documents.py   the user's text or chats, and windows of tokens made of them
sampled.py     text that the model writes itself
ops.py         the decoder's primitives in torch, over batches and with gradients
pool.py        work in fixed pieces on threads: the same numbers on any number of them
held.py        the tensors of a source that are held for a while, and a quantized set in memory
compensate.py  codes and scales of a matrix that make up for each other's error (GPTQ)
layers.py      the model a layer at a time: each quantized on what the layers before it give
distil.py      scales and gains trained on the original's answers
state.py       what is saved on the way, and found again after an interruption
step.py        the step of the export
"""
