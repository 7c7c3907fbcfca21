"""Forecasts of rides a day: pure functions of a series of daily counts."""
