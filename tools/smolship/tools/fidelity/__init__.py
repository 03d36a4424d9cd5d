"""Size against fidelity: our weights beside what other projects make of the same model.

    python -P -m smolship.tools.fidelity MODEL

Every row is an artifact that its own tool made, as in `smolship.tools.peers`. Its weights are read back out of the
finished file, dequantized, and put into one decoder in fp32, so that weights alone are compared. The KL divergence from
the original is taken over the whole vocabulary, on documents that nothing was trained or calibrated on.

texts.py     documents, each for one use
train.py     a small model that was trained in full precision
rows.py      what is compared
ours.py      makes a row of ours; torchao8da4w.py one of torchao's; the others are smolship.tools.peers'
imatrix.py   what llama.cpp's quantizer may know of the activations
readers.py   weights out of the finished files
judge.py     KL by token; bootstrap.py their intervals by document
table.py     what a person sees; plot.py the same as a page
rotation.py  what a rotation of the residual stream would be worth
"""
