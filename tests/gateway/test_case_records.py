from types import MappingProxyType

from gateway.case_records import Case, CaseFinding, Exchange, new_case_id


def test_a_case_comes_back_from_json_as_it_was() -> None:
    finding = CaseFinding(
        side="response", role="assistant", index=3, risk=0.75, hazard="jailbreak", risks={"jailbreak": 0.75}, end=9
    )
    case = Case(
        id=new_case_id(),
        created_at=1.5,
        tenant="acme",
        surface="chat",
        action="block",
        side="response",
        shadow=("r1:block",),
        findings=(finding, finding),
        unreadable=("image",),
        timings_ms={"upstream": 12.5},
    )
    assert Case.from_json(case.to_json()) == case


def test_any_mapping_can_hold_risks() -> None:
    finding = CaseFinding(side="request", role="user", index=0, risk=0.5, risks=MappingProxyType({"jailbreak": 0.5}))
    case = Case(id="c", created_at=0, tenant="t", surface="chat", action="allow", findings=(finding,))
    assert Case.from_json(case.to_json()).findings[0].risks == {"jailbreak": 0.5}


def test_case_ids_do_not_repeat() -> None:
    assert len({new_case_id() for _ in range(1000)}) == 1000


def test_the_prompt_of_an_exchange_is_the_last_text_of_the_user() -> None:
    exchange = Exchange((("user", "first"), ("assistant", "a"), ("user", "second"), ("tool", "42")), ("answer",))
    assert exchange.prompt == "second"
    assert Exchange((("system", "s"),)).prompt is None
    assert Exchange.from_json(exchange.to_json()) == exchange
    assert exchange.characters == len("firstasecond42answer")


def test_what_a_case_acted_on_is_found_among_the_texts_wherever_it_stood() -> None:
    exchange = Exchange((("system", "s"), ("user", "bad"), ("assistant", "a"), ("user", "well?")))

    def case(*findings: CaseFinding, side: str | None = "request", action: str = "block") -> Case:
        return Case(
            id="c",
            created_at=0,
            tenant="t",
            surface="chat",
            action=action,
            hazard="hate",
            side=side,  # type: ignore[arg-type]  # a literal
            findings=findings,
        )

    def found(index: int, risk: float, hazard: str = "hate", side: str = "request") -> CaseFinding:
        return CaseFinding(side=side, role="user", index=index, risk=risk, hazard=hazard)  # type: ignore[arg-type]

    assert exchange.acted_on(case(found(1, 0.95), found(3, 0.6))) == "bad"
    assert exchange.acted_on(case(found(0, 0.95, "privacy"), found(3, 0.6))) == "well?"
    assert exchange.acted_on(case(found(1, 0.95, side="response"))) == "well?"
    assert exchange.acted_on(case(found(9, 0.95))) == "well?"
    assert exchange.acted_on(case()) == "well?"
    assert exchange.acted_on(case(found(1, 0.95), side=None, action="allow")) == "well?"
    stopped = [
        case(side=side, action=action).stopped for side in ("request", "response") for action in ("flag", "block")
    ]
    assert stopped == [None, "request", None, "response"]
