"""Plain nn.Modules with plain arguments; `forward` returns an `Output`. They know nothing of data, tasks or configs."""
