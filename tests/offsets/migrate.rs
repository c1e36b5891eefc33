//! From the shared group into a group a topic, and back.

use std::fs;

use super::{cells, run};
use crate::support::bed::Bed;
use crate::support::worker::{Config, Ended};
use broker::server::Member;

const TOPICS: [&str; 2] = ["a", "b"];

fn config(bed: &Bed, multi: bool) -> Config {
    bed.config(&TOPICS).set("consumer", "multi_consumer_mode", multi).set("consumer", "auto_offset_reset", "'latest'")
}

#[track_caller]
fn migrate(bed: &Bed, multi: bool, arguments: &[&str], code: i32) -> Ended {
    let ended = run(bed, &config(bed, multi), "migrate", arguments);
    assert_eq!(ended.code(), Some(code), "{}\n{}", ended.stdout.join("\n"), ended.log.join("\n"));
    ended
}

/// Runs the daemon in a mode until all is committed.
#[track_caller]
fn read_all(bed: &Bed, multi: bool) {
    let worker = bed.started(&config(bed, multi));
    for topic in TOPICS {
        let group = if multi { format!("g-{topic}") } else { "g".to_owned() };
        let end = bed.server.bounds(topic, 0).unwrap().1;
        bed.server.await_committed(&group, topic, 0, end, crate::support::worker::PATIENCE);
    }
    bed.stop(worker);
}

/// With `latest`, whatever is written between two runs is lost if the second one finds no offset.
#[test]
fn there_and_back_and_there_again_every_record_arrives_once() {
    let bed = Bed::new(&TOPICS);
    for topic in TOPICS {
        bed.server.set_committed("g", topic, 0, Some(0));
    }
    let mut multi = false;
    for round in 1..=4 {
        TOPICS.iter().for_each(|topic| bed.fill(topic, 10));
        read_all(&bed, multi);
        TOPICS.iter().for_each(|topic| bed.fill(topic, 5));
        let way = if multi { "--to-shared" } else { "--to-per-topic" };
        let ended = migrate(&bed, multi, &[way, "--execute"], 0);
        assert!(ended.stdout.contains(&"sum: partitions=2 skipped=0 replayed=0".to_owned()), "{:?}", ended.stdout);
        assert!(ended.stdout.last().unwrap().contains("set it to"), "{:?}", ended.stdout);
        if round == 3 {
            assert!(ended.stdout.iter().any(|line| line.contains("given back")), "{:?}", ended.stdout);
        }
        multi = !multi;
        // The group may forget: then the state file has it for the new group, too.
        if round == 2 {
            assert!(!multi, "the shared group is next");
            TOPICS.iter().for_each(|topic| bed.server.set_committed("g", topic, 0, None));
        }
    }
    read_all(&bed, multi);
    TOPICS.iter().for_each(|topic| bed.assert_all(topic, 0));
    assert_eq!(bed.site.records().len(), 2 * 4 * 15);
}

#[test]
fn the_lower_offset_holds_and_the_command_may_be_repeated() {
    let bed = Bed::new(&TOPICS);
    TOPICS.iter().for_each(|topic| bed.fill(topic, 100));
    bed.server.set_committed("g", "a", 0, Some(50));
    bed.server.set_committed("g-a", "a", 0, Some(20));
    bed.server.set_committed("g", "b", 0, Some(50));
    bed.server.set_committed("g-b", "b", 0, Some(70));
    let of = |group: &str, topic: &str| bed.server.committed(group, topic, 0);
    // Only shown; in whatever mode the configuration is.
    for multi in [true, false] {
        let ended = migrate(&bed, multi, &["--to-per-topic"], 0);
        assert_eq!(cells(&ended, &["a"])[..9], ["a", "0", "g", "50", "g-a", "20", "20", "0", "30"]);
        assert_eq!(cells(&ended, &["b"])[..9], ["b", "0", "g", "50", "g-b", "70", "50", "0", "20"]);
    }
    assert_eq!((of("g-a", "a"), of("g-b", "b")), (Some(20), Some(70)));
    let ended = migrate(&bed, true, &["--to-per-topic", "--execute"], 0);
    assert!(cells(&ended, &["a"]).join(" ").contains("--source-wins"));
    assert_eq!((of("g-a", "a"), of("g-b", "b")), (Some(20), Some(50)));
    // They have gone on; to say it again must not set them back, nor forward.
    bed.server.set_committed("g-a", "a", 0, Some(60));
    bed.server.set_committed("g-b", "b", 0, Some(40));
    let ended = migrate(&bed, true, &["--to-per-topic", "--execute"], 0);
    assert!(ended.stdout.contains(&"nothing to do".to_owned()), "{:?}", ended.stdout);
    assert_eq!((of("g-a", "a"), of("g-b", "b")), (Some(60), Some(40)));
    // But for who says so by name.
    let ended = migrate(&bed, true, &["--to-per-topic", "--source-wins", "--execute"], 0);
    assert!(ended.stdout.contains(&"sum: partitions=2 skipped=10 replayed=10".to_owned()), "{:?}", ended.stdout);
    assert_eq!((of("g-a", "a"), of("g-b", "b")), (Some(50), Some(50)));
    assert_eq!((of("g", "a"), of("g", "b")), (Some(50), Some(50)), "the source stays where it is");
}

#[test]
fn members_of_either_group_are_an_obstacle() {
    for occupied in ["g", "g-b"] {
        let bed = Bed::new(&TOPICS);
        for topic in TOPICS {
            bed.server.set_committed("g", topic, 0, Some(0));
        }
        let member = Member { id: "m-1".into(), client_id: "python".into(), host: "/10.0.0.7".into() };
        bed.server.set_members(occupied, vec![member]);
        let group = format!("refused: group {occupied} ");
        let ended = migrate(&bed, true, &["--to-per-topic", "--execute"], 1);
        assert_eq!(ended.lines_with(&[&group, "python at 10.0.0.7"]).len(), 1, "{:?}", ended.log);
        assert_eq!((bed.committed("a"), bed.committed("b")), (None, None));
    }
}

#[test]
fn a_group_of_a_topics_own_name_is_the_one_that_is_meant() {
    let bed = Bed::new(&TOPICS);
    TOPICS.iter().for_each(|topic| bed.server.set_committed("g", topic, 0, Some(0)));
    let own =
        config(&bed, true).more("[[topic]]\nname = 'a'\ngroup_id = 'mine'\n[[topic]]\nname = 'b'\ngroup_id = 'g'\n");
    let ended = run(&bed, &own, "migrate", &["--to-per-topic", "--execute"]);
    assert_eq!(ended.code(), Some(0), "{:?}", ended.log);
    assert_eq!(bed.server.committed("mine", "a", 0), Some(0));
    assert!(!ended.stdout.iter().any(|line| line.starts_with("b ")), "it is in the shared group as it is");
    assert_eq!(bed.committed("a"), None);
}

#[test]
fn one_way_has_to_be_named() {
    let bed = Bed::new(&TOPICS);
    for arguments in [&["--execute"][..], &["--to-shared", "--to-per-topic"]] {
        let ended = migrate(&bed, true, arguments, 2);
        assert!(ended.log[0].starts_with("error: "), "{:?}", ended.log);
    }
    assert!(fs::read_dir(bed.site.path("consumer.toml").parent().unwrap()).unwrap().count() == 1, "nothing is made");
}
