#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn plan(mode: bool) -> Plan {
    let text = format!(
        "[kafka]\nbootstrap_servers = ['b:1']\n[consumer]\ngroup_id = 'g'\ntopics = ['a', 'b', 'c', 'd']\n\
         multi_consumer_mode = {mode}\n[memory]\nlimit = '64MiB'\n[[topic]]\nname = 'b'\nsink = 'drop'\n\
         [[topic]]\nname = 'd'\npaused = true\n"
    );
    Plan::new(&crate::config::parse(&text, &|_| None).unwrap())
}

#[test]
fn a_consumer_and_a_group_a_topic() {
    let plan = plan(true);
    let groups: Vec<_> = plan.consumers.iter().map(|c| (c.name.as_str(), c.settings.group.as_str())).collect();
    assert_eq!(groups, [("a", "g-a"), ("b", "g-b"), ("c", "g-c")]);
    assert!(plan.consumers.iter().all(|c| c.settings.bytes == 16 << 20 && c.fetch.memory == 16 << 20));
    assert!(plan.consumers.iter().all(|c| c.fetch.reserve.bytes() == 16 << 20));
    let routes: Vec<_> = plan.routes().map(|(topic, sinks)| (&**topic, sinks[0].as_str())).collect();
    assert_eq!(routes, [("a", "log"), ("b", "drop"), ("c", "log")]);
    let paused = Paused { topic: "d".into(), group: "g-d".to_owned(), sinks: vec!["log".to_owned()] };
    assert_eq!(plan.paused, [paused], "it has no share");
}

#[test]
fn one_consumer_for_all_in_single_mode() {
    let plan = plan(false);
    assert_eq!(plan.consumers.len(), 1);
    assert_eq!((plan.consumers[0].name.as_str(), plan.consumers[0].settings.group.as_str()), ("g", "g"));
    assert_eq!(plan.consumers[0].settings.topics.len(), 3);
}

/// What a test says of one topic: its sink, its quota, whether it is paused.
type Model = BTreeMap<usize, (bool, u8, bool)>;

fn config(mode: bool, topics: &Model) -> Config {
    let names: Vec<String> = topics.keys().map(|number| format!("'t{number}'")).collect();
    let mut text = format!(
        "[kafka]\nbootstrap_servers = ['b:1']\n[consumer]\ngroup_id = 'g'\ntopics = [{}]\n\
         multi_consumer_mode = {mode}\n[memory]\nlimit = '64MiB'\n",
        names.join(",")
    );
    for (number, (sink, quota, paused)) in topics {
        let sink = if *sink { "log" } else { "drop" };
        text += &format!(
            "[[topic]]\nname = 't{number}'\nsink = '{sink}'\nmax_poll_records = {}\npaused = {paused}\n",
            quota + 1
        );
    }
    crate::config::parse(&text, &|_| None).unwrap()
}

fn models() -> impl Strategy<Value = Vec<Model>> {
    let topic = (any::<bool>(), 0..2_u8, proptest::bool::weighted(0.2));
    proptest::collection::vec(proptest::collection::btree_map(0..40_usize, topic, 1..20), 2..8)
}

/// What runs after `difference` where `before` ran.
fn apply(before: &Plan, difference: &Difference) -> BTreeMap<String, ConsumerPlan> {
    let mut running: BTreeMap<_, _> = before.consumers.iter().map(|c| (c.name.clone(), c.clone())).collect();
    for name in &difference.stop {
        assert!(running.remove(name).is_some(), "{name} does not run");
    }
    for consumer in &difference.start {
        assert!(running.insert(consumer.name.clone(), consumer.clone()).is_none(), "{} runs", consumer.name);
    }
    running
}

proptest! {
    #[test]
    fn a_difference_leads_from_one_plan_to_the_next_and_the_limit_holds(mode: bool, models in models()) {
        let mut before = Plan::new(&config(mode, &models[0]));
        for model in &models[1..] {
            let config = config(mode, model);
            let (fresh, after) = (Plan::new(&config), Plan::over(&config, &before));
            let difference = Difference::new(&before, &after);
            let wanted: BTreeMap<_, _> = after.consumers.iter().map(|c| (c.name.clone(), c.clone())).collect();
            prop_assert_eq!(apply(&before, &difference), wanted);
            prop_assert_eq!(Difference::new(&after, &after).said.unchanged, after.consumers.len() + after.paused.len());

            // But for the shares, the next plan is what a start would come to.
            let even = after.memory / after.consumers.len().max(1);
            for (fresh, after) in fresh.consumers.iter().zip(&after.consumers) {
                let mut same = fresh.clone().with_shares_of(after);
                same.fetch.reserve = after.fetch.reserve.clone();
                prop_assert_eq!(&same, after);
                prop_assert_eq!(after.fetch.memory, after.settings.bytes);
            }
            prop_assert_eq!((fresh.consumers.len(), &fresh.paused), (after.consumers.len(), &after.paused));
            let shares: usize = after.consumers.iter().map(|c| c.settings.bytes).sum();
            prop_assert!(shares <= after.memory, "{shares} of {}", after.memory);
            for started in &difference.start {
                prop_assert!(started.settings.bytes >= even / 2 && started.settings.bytes <= even);
            }

            // Who is started again without a change of its own made room for others, and no more than needed.
            let own = |name: &String| {
                let of = |plan: &Plan| plan.consumers.iter().find(|c| c.name == *name).cloned();
                matches!((of(&before), of(&after)), (Some(old), Some(new)) if new.clone().with_shares_of(&old) == old)
            };
            let made_room = difference.said.changed.iter().filter(|name| own(name)).count();
            let others = difference.start.len() - made_room;
            prop_assert!(made_room <= others, "{made_room} made room for {others}");
            before = after;
        }
    }
}

#[test]
fn one_more_topic_takes_half_of_one_share_and_leaves_the_others_alone() {
    let all = |count| config(true, &(0..count).map(|number| (number, (true, 0, false))).collect());
    let mut before = Plan::new(&all(6));
    for count in 7..=60 {
        let after = Plan::over(&all(count), &before);
        let said = Difference::new(&before, &after).said;
        assert_eq!((said.added.len(), said.removed.len()), (1, 0));
        assert!(said.changed.len() <= 1, "{said}");
        before = after;
    }
}

#[test]
fn the_words_of_a_reload() {
    let model = |topics: &[(usize, u8, bool)]| -> Model {
        topics.iter().map(|(number, quota, paused)| (*number, (true, *quota, *paused))).collect()
    };
    let before = Plan::new(&config(
        true,
        &model(&[(0, 0, false), (1, 0, false), (2, 0, false), (3, 0, false), (4, 0, true), (5, 0, true)]),
    ));
    let after = Plan::over(
        &config(
            true,
            &model(&[(0, 0, false), (1, 1, false), (3, 0, true), (4, 0, false), (5, 0, true), (6, 0, false)]),
        ),
        &before,
    );
    let said = Difference::new(&before, &after).said.to_string();
    assert_eq!(said, "added=t6 removed=t2 changed=t1 paused=t3 resumed=t4 unchanged=2");
}
