"""How fast the gateway is: ``python -m tests.benchmarks``, or ``make bench``.

One run measures the same requests direct to a fake model server and through the gateway, so that the ratios hold on
any machine. ``fake_model`` answers at once and runs in a process of its own; ``processes`` starts it, the gateway and
a peer; ``clients`` put load on them; ``measures`` are the benchmarks; ``figures`` are what they give, with their aims.

``python -m tests.benchmarks.screening`` measures encoder and search by themselves, on a CPU or a GPU: ``arrivals`` puts
load on them, ``limits`` says what the machine could do at best.
"""
