"""Search for good schedules of kernels with MetaSchedule, keep them in logs, use them.

`workload` says what a task is, `space` what can be chosen for it, `measure` builds and times one
choice (in a `worker`), `search` runs MetaSchedule over a `session` of tasks, `log` keeps the
records, `schedules` applies them.
"""
