"""The paper's analyses (§5), one file each, named as in `gpt1 analyze`. `section` shows an analysis's runs.

`gpt1 analyze NAME` scores models with `analysis/measure/<name>.py`, where there is such a file. The other analyses
train models, by the plan `recipes/analysis/<name>.yaml`.
"""
