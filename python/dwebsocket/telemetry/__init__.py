"""Counters, durations, log records and spans of connections, and the clock behind them."""
