"""The command line: one file per verb, each only options, one call and how the result looks."""
