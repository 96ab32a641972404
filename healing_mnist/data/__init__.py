"""Base images + a table of rows -> frames, rendered a batch at a time on the batch's device.

sources/ reads base images, one module a source; healing, sequences, restoration, autoregressive: the data sets (chains
and preprocessing are the last one's); frames, blur, corruptions: pure batched rendering; counter: random numbers
without a state; base: the DataModule they share.
"""
