"""What runs inside a workspace to read an agent's file. `reading.py` lays these modules there.

Never imported on the host, but for the rules of `sight`. They use the standard library and what the
image holds, nothing else of this package. They say what a file holds; what that is worth is for the
host to judge.
"""
