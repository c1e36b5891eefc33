//! Which version of a request is sent, and how its answer is read.

use super::*;
use crate::client::{Bounds, Member};

/// What Kafka 4.1.1 serves of ListOffsets, OffsetCommit, OffsetFetch, FindCoordinator, DescribeGroups and, if it is to
/// know the new protocol of groups, ConsumerGroupDescribe.
fn new(body: Vec<Vec<u8>>, knows_new_groups: bool) -> Wire {
    let mut apis = vec![[2, 1, 11], [8, 2, 10], [9, 1, 10], [10, 0, 6], [15, 0, 6]];
    apis.extend(knows_new_groups.then_some([69, 0, 1]));
    let script = std::iter::once(versions(&apis)).chain(body.into_iter().map(Reply::Body)).collect();
    connect(script, LONG).unwrap()
}

fn i64s(numbers: &[i64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// A text of the flexible versions.
fn compact(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len() + 1).unwrap()], text.as_bytes()].concat()
}

#[test]
fn the_newest_version_that_both_speak() {
    let wire = |apis: &[[i16; 3]]| connect(vec![versions(apis)], LONG).unwrap();
    let choose = |min, max| wire(&[[2, min, max]]).choose(ApiKey::ListOffsets, (1, 5), "ListOffsets 1");
    assert_eq!([choose(0, 1), choose(0, 3), choose(1, 11)], [Ok(1), Ok(3), Ok(5)]);
    assert!(matches!(choose(0, 0), Err(Fault::TooOld { lacks: "ListOffsets 1", .. })));
    let newer = choose(6, 11).unwrap_err().to_string();
    assert!(newer.contains("from version 6 on") && newer.contains("up to 5"), "{newer}");
}

#[test]
fn offsets_of_a_new_broker() {
    let partition = |offset: i64| [i32s(&[0]), i16s(&[0]), i64s(&[-1, offset]), i32s(&[3])].concat();
    let answer = |offset| [i32s(&[0, 1]), text("t"), i32s(&[1]), partition(offset)].concat();
    let bounds = new(vec![answer(5), answer(9)], false).bounds(&[(Arc::from("t"), 0)]).unwrap();
    let at = |offset| Offset::new(offset).unwrap();
    assert_eq!(bounds, [Ok(Bounds { log_start: at(5), log_end: at(9) })]);

    let of = [TopicPartition::new("t", 0)];
    let fetched = |code: i16| {
        let one = [i32s(&[0]), i64s(&[7]), i32s(&[-1]), text("told"), i16s(&[0])].concat();
        [i32s(&[0, 1]), text("t"), i32s(&[1]), one, i16s(&[code])].concat()
    };
    let seven = Committed { offset: at(7), metadata: "told".to_owned() };
    assert_eq!(new(vec![fetched(0)], false).committed("g", &of), Ok(vec![Some(seven)]));
    let refused = Fault::Refused { call: "OffsetFetch", code: "NotCoordinator".into() };
    assert_eq!(new(vec![fetched(16)], false).committed("g", &of), Err(refused));

    let commit = |code: i16| {
        let answer = [i32s(&[0, 1]), text("t"), i32s(&[1, 0]), i16s(&[code])].concat();
        new(vec![answer], false).commit("g", &[(of[0].clone(), at(7))], "")
    };
    assert_eq!(commit(0), Ok(()));
    for (code, name) in [(25, "UnknownMemberId"), (113, "StaleMemberEpoch"), (110, "FencedMemberEpoch")] {
        let members = Fault::GroupHasMembers { group: "g".into(), code: name.into(), members: Vec::new() };
        assert_eq!(commit(code), Err(members));
    }
}

#[test]
fn members_of_either_protocol() {
    let coordinator = [i32s(&[0]), i16s(&[0, -1]), i32s(&[3]), text("b3"), i32s(&[9093])].concat();
    assert_eq!(new(vec![coordinator], false).coordinator("g"), Ok("b3:9093".to_owned()));

    let classic = |members: &[u8], count| {
        let lead = [i32s(&[0, 1]), i16s(&[0]), text("g"), text("Dead"), text(""), text(""), i32s(&[count])].concat();
        [lead, members.to_vec(), i32s(&[i32::MIN])].concat()
    };
    let member = Member { id: "m-1".into(), client_id: "old".into(), host: "/10.0.0.1".into() };
    let bytes = [text("m-1"), i16s(&[-1]), text("old"), text("/10.0.0.1"), i32s(&[0, 0])].concat();
    assert_eq!(new(vec![classic(&bytes, 1)], true).members("g"), Ok(vec![member]));
    assert_eq!(new(vec![classic(&[], 0)], false).members("g"), Ok(vec![]));

    // One partition is assigned; tags behind the topic and behind the list.
    let assigned = [vec![2], vec![7; 16], compact("t"), vec![2], i32s(&[0]), vec![0, 0]].concat();
    let subscribed = [vec![2], compact("t"), vec![0]].concat();
    let one = [compact("m-2"), vec![0, 0], i32s(&[5]), compact("new"), compact("/10.0.0.2"), subscribed, assigned];
    let described = |code: i16, members: Vec<u8>| {
        // The header's tags come first.
        let lead =
            [vec![0], i32s(&[0]), vec![2], i16s(&[code]), vec![0], compact("g"), compact("Stable"), i32s(&[5, 5])];
        [lead.concat(), compact("uniform"), members, i32s(&[i32::MIN]), vec![0, 0]].concat()
    };
    let with = |body: Vec<u8>| new(vec![classic(&[], 0), body], true).members("g");
    // Behind the member's assignment its target, and its tags.
    let found = with(described(0, [vec![2], one.concat(), vec![1, 0], vec![0]].concat()));
    let member = Member { id: "m-2".into(), client_id: "new".into(), host: "/10.0.0.2".into() };
    assert_eq!(found, Ok(vec![member]));
    // Such a group does not exist; the protocol is off; this broker is not its coordinator.
    assert_eq!(with(described(69, vec![1])), Ok(vec![]));
    assert_eq!(with(described(35, vec![1])), Ok(vec![]));
    let refused = Fault::Refused { call: "ConsumerGroupDescribe", code: "NotCoordinator".into() };
    assert_eq!(with(described(16, vec![1])), Err(refused));
    let lie = [vec![0], i32s(&[0]), vec![0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
    assert!(with(lie).is_err(), "a count is not believed");
}
