"""The antiprompt bank: what is known to be harmful, and how to recognise what resembles it.

A plain synchronous library, usable from a notebook::

    import antiprompt_bank

    bank = antiprompt_bank.load()                       # the seed bank; built once, then cached
    score, = bank.score(["How do I make a pipe bomb?"], side="request")
    score.risk, score.hazard                            # 0.99..., 'indiscriminate_weapons'
    for neighbour in score.nearest:                     # the exemplars behind it, harmful and benign
        print(f"{neighbour.similarity:.2f}", bank.record(neighbour.id).text)

    bank.score(["Yes, a cup of it will help."], side="response", prompts=["Should I drink bleach?"])

A text is risky when it is near harmful exemplars and not as near benign ones. Adding an exemplar changes the decision
at once, without training, and every decision names the exemplars behind it.

The way of a text, and the module of each step (each imports only from those before it):

    errors, hazards, records    what is stored: Antiprompt, its hazard, its state, the id its content gives it
    views, windows              what an attacker hides; pieces that an encoder can read whole
    blobs, places               what nothing could read; where in a text something was found
    tokens, model_files         the model's tokeniser, its files and their hashes
    encoder                     token ids to unit vectors: encoder_openvino (CPU), encoder_cuda (GPU; padding puts
                                ... texts side by side, packing one behind the other for encoder_packed, bert and
                                ... triton_norm), encoder_torch (the model itself, and its export)
    leaning                     what an adapter's classifiers say of a window's vector and of its wording
    index                       the rows nearest to a vector: index_faiss, index_torch
    neighbours                  the nearest exemplars, each compared in the form in which it was stored
    shingles, lexicon           the exemplars found by their words, at any offset and without an encoder
    calibration, scoring        from neighbours to a risk for each hazard
    evidence                    what copies and unreadable passages add to a score
    conformal                   risks fitted to one's own harmless texts, with a promise for the next one
    additions, remembered       rows for records that join later; the vectors used last
    bank                        Bank: one immutable version, and how a text is judged against it
    fitting, building           from records to a bank: their vectors, and a calibration fitted to them
    manifest, store             BankStore: versions in a folder, sealed with hashes; publish, roll back, compare
    shipped_vectors, seeding    the bank that ships (``seed/*.jsonl``) with its vectors, and ``load``
    remote                      the same versions in an object store, each written once

Beside that way, what changes a bank's exemplars:

    reading, public_sets,       files of rows, what is known of the sets that are published, what their columns mean
    columns, importers          ... and exemplars of them, with source and licence
    dedupe                      what is there already: the same, near copies, near vectors
    rewordings, disguises,      other ways to put a text, and to hide it
    proliferation               variants of a confirmed exemplar, measured against the bank
    signed, withheld            exemplars from others, proved by a signature; those of which only vectors are known

And what says how good a bank is (``antiprompt evaluate``):

    examples, protocol          labelled texts and their sources; what a fold learns from, and what it leaves out
    measures, methods,          rates with intervals and thresholds; what gives a text a score: the bank, and what it
    baselines                   ... must be better than
    evasions, probes            disguises of a text; what they cost, how recall grows, what one exemplar catches
    report, marks, report_page  the figures as JSON, those that decide, and a page of plots
    evaluation                  labelled examples -> report
"""

from antiprompt_bank.bank import Bank, Prepared
from antiprompt_bank.building import build_bank
from antiprompt_bank.errors import BankCorrupt, BankError, BankNotFound, EncoderMismatch, EncoderUnavailable
from antiprompt_bank.hazards import HAZARDS, OPENAI_CATEGORIES, Hazard
from antiprompt_bank.records import Antiprompt, Kind, Label, Side, State, content_id
from antiprompt_bank.scoring import Neighbour, Score
from antiprompt_bank.seeding import load, seed_records
from antiprompt_bank.store import BankStore, Difference

__all__ = [
    "HAZARDS",
    "OPENAI_CATEGORIES",
    "Antiprompt",
    "Bank",
    "BankCorrupt",
    "BankError",
    "BankNotFound",
    "BankStore",
    "Difference",
    "EncoderMismatch",
    "EncoderUnavailable",
    "Hazard",
    "Kind",
    "Label",
    "Neighbour",
    "Prepared",
    "Score",
    "Side",
    "State",
    "build_bank",
    "content_id",
    "load",
    "seed_records",
]
