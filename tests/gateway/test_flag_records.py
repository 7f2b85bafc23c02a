from gateway.flag_records import Flag, FlagEntry, FlagState, Source, flag_from_hash


def entry(source: Source = Source.USER) -> tuple[Flag, FlagEntry]:
    flag = Flag(
        tenant="acme",
        source=source,
        side="response",
        text="text\nwith a line feed",
        reason="r",
        end_user="digest",
        created_at=12.5,
        risk=0.25,
        id="flag_1",
    )
    return flag, FlagEntry.of(flag, "marker", "fingerprint")


def test_a_spooled_flag_is_one_line_and_comes_back_as_it_was() -> None:
    flag, written = entry()
    line = written.to_line()
    assert b"\n" not in line
    assert FlagEntry.from_line(line) == written
    assert FlagEntry.from_line(line).flag() == flag


def test_a_stored_flag_has_its_state_and_what_is_left_of_its_texts() -> None:
    flag, written = entry()
    row = {"record": written.record, "state": "confirmed", "duplicates": "3"}
    assert flag_from_hash("flag_1", row).text is None
    found = flag_from_hash("flag_1", {**row, "texts": written.texts, "end_user": written.end_user})
    assert (found.text, found.end_user) == (flag.text, "digest")
    assert (found.state, found.duplicates) == (FlagState.CONFIRMED, 3)


def test_without_its_person_an_entry_holds_nothing_they_wrote() -> None:
    _, written = entry()
    line = written.without_person().to_line()
    assert b"line feed" not in line
    assert b"digest" not in line
    assert FlagEntry.from_line(line).flag().risk == 0.25


def test_all_keys_of_one_flag_share_a_clusters_slot() -> None:
    _, written = entry()
    keys, _ = written.script_call(replay=False)
    assert {key.split("}")[0] for key in keys} == {"antiprompt:{flags"}


def test_only_policy_flags_merge_and_a_replay_never_does() -> None:
    modes = {
        (source, replay): entry(source)[1].script_call(replay=replay)[1][7]
        for source in Source
        for replay in (False, True)
    }
    merging = {(Source.POLICY, False): "merge"}
    expected = {(source, True): "replay" for source in Source} | {(source, False): "new" for source in Source}
    assert modes == expected | merging
