"""Tasks around what other libraries train: scikit-learn, Lightning, transformers, and a loader that resumes mid-epoch.

Each module has a function `task` whose result `tune_rh.search` takes as a task. Its library is imported when used.
"""
