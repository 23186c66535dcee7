"""Draft heads: what a rewrite keeps of its input and inserts, predicted from the encoder's output.

The edited input is a draft of the whole answer, which the decoder verifies in one step. Greedy
answers stay the same; they take fewer decoder steps.

Sources: LaserTagger (https://arxiv.org/abs/1909.01187) for tags and phrases; Leviathan et al.
(https://arxiv.org/abs/2211.17192) for verification.
"""
