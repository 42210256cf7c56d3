"""When memories were loaded, and what follows from it.

table        AccessTable: counts and times of many memories, as arrays
log          AccessLog: takes every access, keeps them in a table and stores it now and then
activation   base_level: how present a memory is, by the times at which it was used
"""
