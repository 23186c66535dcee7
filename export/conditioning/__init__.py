"""Conditioning: weights that compute the same function and lose less when they are quantized.

Activation outliers make T5 hard to quantize: one large channel takes the range of all others. Three
rewrites of the weights remove them. None changes a graph or costs anything at run time:

1. Balance each pair of matrices with a linear connection between them (SmoothQuant).
2. Fold the gains of the RMS norms into the matrices that read them.
3. Rotate the residual stream, and the values of each attention head, by randomized Hadamard
   matrices (QuaRot), which spread an outlier evenly over all channels.

The order matters: rotating before balancing mixes large and small channels for good.
"""
