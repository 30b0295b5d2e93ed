"""The jobs that people write, and what they become.

A function decorated with `@job` (`job`) is read once: its signature becomes form fields, a JSON Schema and the rules that
turn stored arguments into values (`parameters`, with `fields`, `schema`, `limits`, `forms`). A worker's `registry` holds the
jobs of the modules it imported; the `catalogue` is what workers advertise, so that the web process can offer and check
jobs without importing their code. While a job runs it holds a `context`; when it fails, `retry` says what comes next.
`secret` keeps arguments that nobody may read. `isolated` is the child process of `isolation="process"`.
"""
