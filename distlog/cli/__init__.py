"""The command line: one module for each command, and what they share.

    main            finds the command, and turns every error into one line and an exit code
      serve                                            a node
      produce  consume  topic  cluster (wait)  bench   talk to a cluster
        connecting      from `--server` to a client that has reached it
        lines           the records in a file or a pipe
        bench_loads     what is measured; bench_samples, bench_plot: what is reported; bench_arguments: what it can be told
      inspect  verify  import_seed                     the files of a node that does not run
        stopped_node    everything that a look at them sees; journal_survey: of the journal
        stored_records  what a flag of `inspect` asks for; journal_listing, producer_rows: too
        inspect_lines   how it is shown; inspect_json: as JSON
        remedies        what to do about a fault
    arguments       the parser that names the nearest flag, and the address of the cluster
    terminal        what a person sees beside the output: errors, progress; progress_bar: where the end is known
    units           sizes, ages, moments and counts; json_fields: bytes of records

A command is a module with `add_arguments(parser)` and `run(namespace) -> exit code`; only the module of the command that runs is
imported.  Exit codes: 0 fine, 1 failed, 2 usage.

Invariants: standard output carries the result and nothing else; an error is one line that says what to do, never a
traceback; on a pipe nothing is said beside the result.
"""
