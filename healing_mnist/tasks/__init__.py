"""LightningModules: what is learnt. A task takes a network and knows nothing of how data are made."""
