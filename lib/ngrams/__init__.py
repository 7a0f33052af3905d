"""Counted n-grams and their smoothing: Kneser-Ney, Witten-Bell and add-one."""
