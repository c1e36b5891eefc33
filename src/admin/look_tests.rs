#![allow(clippy::unwrap_used)]

use super::*;
use crate::client::{Event, Loss, Membership, Portion};
use crate::sample::Watched;

fn board(topics: &[&str]) -> Board {
    let board = Board::default();
    for (number, topic) in topics.iter().enumerate() {
        let watched = Watched {
            group: format!("g-{topic}"),
            topics: vec![((*topic).into(), vec!["log".to_owned()])],
            membership: Membership::None(Portion::All),
            committed_only: false,
        };
        board.add(number, watched, Phase::Waiting, &Arc::default());
    }
    board
}

#[test]
fn what_passes_by_itself_counts_when_it_has_not_for_long() {
    let board = board(&["t", "u"]);
    let of = |number: usize| Arc::clone(&board.entries()[number].progress);
    let name = |topic: &str, number| TopicPartition::new(topic, number);
    let reasons = |later: Duration| failing(&board.entries(), Instant::now() + later);
    assert_eq!(reasons(FAILS_FOR_LONG), [""; 0]);

    for number in 0..7 {
        of(0).event(&Event::Failing(name("t", number), Fault::NoLeader));
    }
    of(1).set_trouble(Some(&Fault::Stuck { call: "survey", earlier: 4 }));
    assert_eq!(reasons(FAILS_FOR_LONG / 2), [""; 0], "a broker restarts");
    assert_eq!(
        reasons(FAILS_FOR_LONG),
        [
            "in trouble: u: 4 earlier calls have not returned, and no further survey is made before one does"
                .to_owned(),
            format!(
                "can't be read: {} and 2 more partitions: the partition has no leader at present",
                (0..5).map(|number| format!("topic=t partition={number}")).collect::<Vec<_>>().join(", ")
            ),
        ]
    );
    of(0).event(&Event::Recovered(name("t", 0)));
    of(0).event(&Event::Lost((1..7).map(|number| name("t", number)).collect(), Loss::LeftGroup));
    of(1).event(&Event::Connected);
    assert_eq!(reasons(FAILS_FOR_LONG), [""; 0]);
}

#[test]
fn what_somebody_has_to_mend_counts_at_once() {
    let board = board(&["t"]);
    let progress = Arc::clone(&board.entries()[0].progress);
    let fault = Fault::Corrupt { offset: crate::record::Offset::ZERO };
    progress.event(&Event::Failing(TopicPartition::new("t", 3), fault.clone()));
    let reasons = failing(&board.entries(), Instant::now());
    assert_eq!(reasons, [format!("can't be read: topic=t partition=3: {fault}")]);
}
