"""Base images + a table of rows -> frames, rendered a batch at a time on the batch's device.

sources/ reads base images, one module a source; healing, autoregressive: the tables (plans); frames, corruptions: pure
batched rendering; base: the DataModule they share.
"""
