"""Experiments that show what the two methods do, on a model of 122,000 parameters made from nothing.

``toy``          its tokens, the model, how a base model is made
``inoculation``  inoculation prompting: what a model learns of a trait that its training prompt asked for
``ranking``      NEAT and its relatives: harm with and without an attacking prompt; ``preference`` has DPO and KTO
``marks``        what has to come out; ``page`` the figures; ``__main__`` runs everything (``make experiments``)

A toy shows that the code does what the papers describe, and where the mechanism holds. It says nothing about how large
the effects are on a real model.
"""
