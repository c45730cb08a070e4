"""Single mistakes put into the core, one at a time: the tests that stand beside it have to notice each.

`mutants.py` says which mistakes there can be, `python -m tests.mutation` puts them in and runs the tests. What survives
is either a test that is missing, or a change that changes nothing; somebody has to say which.
"""
