"""The statistics of the project: intervals, Student's t, scores over seeds, claims, the bootstrap.

The floor under the deciding code: importing a module loads neither numpy nor scipy; a function loads what it uses.
"""
