"""Stage ``benchmark``: how fast, beside others, and where the time goes.

Every contestant runs in a process of its own on the same pinned cores; the parent asks them in
turn, so that drifts of the machine hit all alike. Optional contestants need the extra
``vitq[benchmark]``; one that cannot run is listed with the reason.
"""
