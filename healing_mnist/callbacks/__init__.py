"""What is looked at during and after a run: figures, and the numbers behind them."""
