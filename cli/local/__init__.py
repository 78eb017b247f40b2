"""The launcher: the whole service as processes of this machine.

A package of its own. It imports nothing of the terminal's commands and prints
nothing; tests and benchmarks start databases with it.

Start here: `launcher.launch` (what `normbank up` does), `postgres` and
`valkey` (the embedded servers), `bootstrap.prepare` (what any service needs
before its first start).
"""
