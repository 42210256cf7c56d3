"""Codes of vector files: small derived data that tells which rows are worth an exact look.

file_codes     all there is for one file, and the plan for each search
clusters       numpy's codes        axes, kmeans, build             what makes them
turbo          turbovec's codes     depths                          how deep it looks
calibration    a trial              truth, recall                   what it is measured by
cluster_calibration, turbo_calibration    how far searches have to go
"""
