"""What the bank and its reviews say about the language model itself, and what that model learns from them.

From flags to data sets (``antiprompt align export``), without torch:

``reviewed``              one decided flag, or an exchange that somebody vouches for; ``reviewed_flags`` reads Redis
``personal_data``         taken out of what leaves; ``families`` look-alikes, their cap, the split that keeps them whole
``inoculation_prompts``   prompts that ask for what must not be learned; ``quarantine`` proposes them to the bank
``formats``               who may stand where in which format; ``openai_checks`` what OpenAI documents that it accepts
``data_set``              examples, provenance and manifest on disk

From data sets to an adapter (``antiprompt align train``), with torch:

``token_batches``         examples as tokens; ``losses`` on whole answers; ``answering`` samples them
``objectives``            what a step looks at: answers to imitate (``Imitation``), answers to rank (``Ranked``: NEAT)
``training_loop``         steps, early stopping; ``checkpoints`` that a kill cannot break
``language_model``        a model, its chat template, its ``adapters``; ``answer_judges`` what an answer is worth
``training_rows``         rows of any format as questions; ``arms`` a method beside its controls; ``trl_training`` TRL's
``held_out``              what a model does on questions it never saw; ``training_run`` all of it, to a ``run_page``
``inoculation_choice``    which inoculation prompt works: gain, elicitation, refusal; ``prompt_choice`` on a data set
``experiments``           the methods on a toy; ``RESULTS.md`` has what came out

Probing a model (``antiprompt probe``), each module importing only from those before it:

``probe_statistics``  exact sign tests, and what several tests at once take
``probe_questions``   what is asked: the bank's antiprompts, sampled by hazard
``probe_pairs``       the same request about two groups of people, and an answer without its group
``probe_asking``      one question at a time: a pace, retries, what a reply says
``probe_judging``     whether an answer is harmful: the bank's word, or another model's
``probe_state``       the answers so far, on disk: an interrupted run goes on where it stood
``probe``             every question asked and judged once
``probe_report``      failure rates by hazard and kind, gaps between groups
``probe_comparison``  what changed since an earlier run; ``probe_page`` all of it as a page
``probe_flags``       failures sent to the review queue
"""
