"""The command line: one module for each command, and what they share.

    main       finds the command, and turns every error into one line and an exit code
    arguments  the parser that names the nearest flag, and the address of the cluster
    terminal   what a person sees beside the output: errors, progress
    lines      the records in a file or a pipe
    units      sizes, ages and moments
    serve  produce  consume  cluster  wait  topic  bench  inspect  verify  import_seed

A command is a module with `add_arguments(parser)` and `run(namespace) -> exit code`; only the module of the command that runs is
imported.  Exit codes: 0 fine, 1 failed, 2 usage.

Invariants: standard output carries the result and nothing else; an error is one line that says what to do, never a
traceback; on a pipe nothing is said beside the result.
"""
