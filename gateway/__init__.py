"""The antiprompt gateway: one process between a client and a language model.

The path of a request, and who does what on it:

``app``            builds every part once and puts the routes together
``auth``           client key -> Principal (tenant, limits)
``proxy``          the only place where the order of the steps is written
``conversation``   which texts of a request are new, which are old, what is screened together
``wire``           which texts a body holds, where, and how to answer in its shape
``screening``      texts -> risks, through the cache, the batcher and the bank
``policy``         risks -> allow, flag, rewrite or block
``corrections``    what a rewrite puts in the place of a text; ``refusals`` how a block is worded
``upstream``       the model behind the gateway
``relay``          a streamed reply, held back until it has been screened (``streaming``)
``cases``          what was decided and why; ``flags`` what people or policy want reviewed

Arrows run one way; the contract stands in ``pyproject.toml`` and is checked by the test command.
"""

__version__ = "0.1.0"
