"""What is loaded next, guessed and read ahead.

transitions   Transitions: what was loaded after what, as a bounded table that forgets
connections   strongest: where the strongest connections of a memory lead
guesses       Guesses: how often those came true
trial         Trial: whether reading ahead pays
prefetcher    Prefetcher: watches the loads, learns, guesses and reads ahead in the background
"""
