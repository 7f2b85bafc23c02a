"""The antiprompt gateway: one process between a client and a language model.

The path of a request, and who does what on it:

``commands``       what the ``antiprompt`` command can do (``cli`` puts it together)
``app``            create_app: the routes, one handler for every error, the edge of the process
``parts``          everything a process is made of, built once, started and stopped in order
``auth``           client key -> Principal (tenant, limits); ``client_keys`` and ``quotas`` beside it
``strikes``        end users who were blocked again and again (``strike_rules`` what policy lets follow, ``conduct``
                   holds them to it)
``proxy``          the order of the steps, request side; ``replies`` the reply side; ``endpoints`` our own routes
``holds``          content that is screened before it is published (``hold_webhooks`` tell what came of it); ``appeals``
                   of those who were stopped
``review``         the moderators' dashboard; who may do what there: ``accounts``, ``moderator_sessions``, ``oidc``,
                   ``roles``
``request_body``   bodies within their limits, parsed strictly
``wire``           which texts a body holds, where, and how to answer in its shape
``conversation``   which texts of a request are new, which are old, what is screened together
``judgement``      a request or a reply, screened and put to the policy
``screening``      texts -> scores, through the cache, ``batching`` and the bank
``calibration``    which calibration those scores go through: the bank's own, a fit to own texts, or a stale one
``policy``         scores -> allow, flag, rewrite or block (``policy_file`` reads, ``ruling`` matches, ``policy_store``
                   keeps versions)
``corrections``    what a rewrite puts in the place of a text; ``refusals`` how a block is worded; ``answers`` both in
                   the shape of a reply
``upstream``       the model behind the gateway, through ``http_client``
``relay``          a streamed reply, held back (``holdback``) until it was screened, event by event (``streaming``)
``exchange``       what is known of one request while it is under way; ``bookkeeping`` what it leaves behind
``cases``          what was decided and why; ``flags`` (and their ``spool``) what people or policy want reviewed;
                   ``history`` what a tenant has met before; ``erasure`` a person's text leaves them all
``reviews``        who holds which flag, what was decided, undone, seconded (``review_records``, ``review_queue``,
                   ``review_drafts``, ``review_scripts``, ``review_log``); ``exemplars`` what a verdict teaches the bank
``influence``      how far a new exemplar would reach, held against ``traffic`` and harmless texts
``overlay``        each gateway follows the bank's entries (``overlay_entries``) and its version (``bank_versions``)
``retraining``     the workers: reviews -> candidate -> gate -> next version (``retraining_*`` its steps)
``heartbeat``      a sign that a worker lives
``tracing``        the path of a request, step by step, for whoever runs an OpenTelemetry collector
``observing``      the gauges that nobody sets in passing; ``drift`` whether the scores are still what they were
``backup``         a whole installation into a folder and back (``backup_state`` Redis, ``backup_files`` hashed files)
``archive``        the older part of Redis' logs, as files
``redis_client``   the one connection to Redis (``redis_server`` the private one, ``redis_nodes`` outside ones and
                   ``redis_cluster`` a cluster of them, ``redis_check`` how they are set up, ``redis_keys`` every key)

Arrows run one way; the contract stands in ``pyproject.toml`` and is checked by the test command.
"""

__version__ = "0.1.0"
